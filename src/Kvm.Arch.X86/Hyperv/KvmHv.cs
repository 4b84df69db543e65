using System.Collections.Concurrent;
using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;

namespace Kvm.Arch.X86;

/// <summary>What a VM's vCPUs share of the Hyper-V interface (struct kvm_hv): the "partition".</summary>
/// <remarks>asm/kvm_host.h, arch/x86/kvm/hyperv.c. <see cref="Lock"/> guards the registers and the reference TSC page.</remarks>
public sealed unsafe partial class KvmHv(X86Vm vm)
{
    private readonly ConcurrentDictionary<uint, EventfdContext> _connToEvt = new();
    private int _mismatchedVpIndexes;

    /// <summary>hv_lock.</summary>
    public KernelMutex Lock { get; } = new();

    /// <summary>How many SynICs have an auto-EOI vector; under apicv_update_lock.</summary>
    public int SynicAutoEoiUsed;

    /// <summary>How many vCPUs have a VP index that is not their own index.</summary>
    public ref int MismatchedVpIndexes => ref _mismatchedVpIndexes;

    [KernelFunction("kvm_hv_init_vm", File = "arch/x86/kvm/hyperv.c")]
    internal void InitVm() => FunctionTrace.Leaf("kvm_hv_init_vm");

    [KernelFunction("kvm_hv_destroy_vm", File = "arch/x86/kvm/hyperv.c")]
    internal void DestroyVm()
    {
        FunctionTrace.Leaf("kvm_hv_destroy_vm");
        _connToEvt.Clear();
    }

    // ---- connections: HvSignalEvent signals an eventfd ----

    /// <summary>KVM_HYPERV_EVENTFD: -EINVAL for an unknown flag or a connection of more than 24 bits; then -EBADF, -EINVAL of the fd, -EEXIST, or -ENOENT.</summary>
    [KernelFunction("kvm_vm_ioctl_hv_eventfd", File = "arch/x86/kvm/hyperv.c")]
    internal KvmResult IoctlEventfd(in kvm_hyperv_eventfd args)
    {
        if ((args.flags & ~(uint)KVM_HYPERV_EVENTFD_DEASSIGN) != 0 || (args.conn_id & ~(uint)KVM_HYPERV_CONN_ID_MASK) != 0)
            return -EINVAL;
        return args.flags == KVM_HYPERV_EVENTFD_DEASSIGN ? DeassignEventfd(args.conn_id) : AssignEventfd(args.conn_id, args.fd);
    }

    [KernelFunction("kvm_hv_eventfd_assign", File = "arch/x86/kvm/hyperv.c")]
    private KvmResult AssignEventfd(uint connection, int fd)
    {
        KvmResult r = EventfdContext.FromFd(fd, out EventfdContext? eventfd);
        if (r.IsError)
            return r;
        using var held = Lock.Enter();
        if (vm.Host.Faults.ShouldFail("idr_alloc", "conn_to_evt"))
            return -ENOMEM;
        return _connToEvt.TryAdd(connection, eventfd!) ? 0 : -EEXIST;
    }

    [KernelFunction("kvm_hv_eventfd_deassign", File = "arch/x86/kvm/hyperv.c")]
    private KvmResult DeassignEventfd(uint connection)
    {
        using (Lock.Enter())
        {
            if (!_connToEvt.TryRemove(connection, out EventfdContext? _))
                return -ENOENT;
        }

        // Hypercalls that found it are over when this returns.
        vm.Srcu.Synchronize();
        return 0;
    }

    /// <summary>Signals the eventfd of a connection; false without one.</summary>
    internal bool SignalConnection(uint connection)
    {
        if (!_connToEvt.TryGetValue(connection, out EventfdContext? eventfd))
            return false;
        eventfd.Signal();
        return true;
    }

    // ---- virtual processors ----

    /// <summary>get_vcpu_by_vpidx: null when no vCPU has the VP index.</summary>
    [KernelFunction("get_vcpu_by_vpidx", File = "arch/x86/kvm/hyperv.c")]
    private X86Vcpu? VcpuByVpIndex(uint vpIndex)
    {
        if (vpIndex >= X86Const.KVM_MAX_VCPUS)
            return null;
        if (vm.GetVcpu((int)vpIndex) is X86Vcpu usual && usual.HvVpIndex == vpIndex)
            return usual;
        foreach (KvmVcpu vcpu in vm.Vcpus)
        {
            if (((X86Vcpu)vcpu).HvVpIndex == vpIndex)
                return (X86Vcpu)vcpu;
        }

        return null;
    }

    /// <summary>synic_get: the active SynIC of a virtual processor, or null.</summary>
    [KernelFunction("synic_get", File = "arch/x86/kvm/hyperv.c")]
    private KvmVcpuHvSynic? SynicOf(uint vpIndex) => VcpuByVpIndex(vpIndex)?.Hv is { Synic: { Active: true } synic } ? synic : null;

    /// <summary>kvm_hv_synic_set_irq: -EINVAL without a SynIC or such a SINT, -ENOENT while it is masked; else how many APICs took it. Any thread.</summary>
    [KernelFunction("kvm_hv_synic_set_irq", File = "arch/x86/kvm/hyperv.c")]
    internal int SynicSetIrq(uint vpIndex, uint sint) => SynicOf(vpIndex) is { } synic ? synic.SetIrq(sint) : -EINVAL;

    /// <summary>kvm_hv_irq_routing_update: SINTs learn which GSI hears of their end. Under the VM's irq lock.</summary>
    [KernelFunction("kvm_hv_irq_routing_update", File = "arch/x86/kvm/hyperv.c")]
    internal void IrqRoutingUpdate()
    {
        FunctionTrace.Leaf("kvm_hv_irq_routing_update");
        for (uint gsi = 0; gsi < vm.NrIrqRoutes; gsi++)
        {
            foreach (KvmKernelIrqRoutingEntry e in vm.RoutesOf(gsi))
            {
                if (e.Type == KVM_IRQ_ROUTING_HV_SINT)
                    SynicOf(e.HvSintVcpu)?.SetSintGsi(e.HvSint, (int)gsi);
            }
        }
    }

    /// <summary>sparse_set_to_vcpu_mask: a set of VP indexes, 64 to a bank, as a set of vCPU indexes. <paramref name="banks"/> holds the banks of the mask one after another.</summary>
    [KernelFunction("sparse_set_to_vcpu_mask", File = "arch/x86/kvm/hyperv.c")]
    internal void SparseSetToVcpuMask(ReadOnlySpan<ulong> banks, ulong validBanks, Span<ulong> vcpus)
    {
        Span<ulong> set = stackalloc ulong[MaxSparseBanks];
        set.Clear();
        int next = 0;
        for (int bank = 0; bank < MaxSparseBanks; bank++)
        {
            if ((validBanks >> bank & 1) != 0)
                set[bank] = banks[next++];
        }

        if (Volatile.Read(ref _mismatchedVpIndexes) == 0)
        {
            set.CopyTo(vcpus);
            return;
        }

        vcpus.Clear();
        ReadOnlySpan<KvmVcpu> all = vm.Vcpus;
        for (int i = 0; i < all.Length; i++)
        {
            uint vp = ((X86Vcpu)all[i]).HvVpIndex;
            if ((set[(int)(vp / 64)] >> (int)(vp & 63) & 1) != 0)
                vcpus[i / 64] |= 1ul << (i & 63);
        }
    }

    /// <summary>KVM_HV_MAX_SPARSE_VCPU_SET_BITS.</summary>
    internal const int MaxSparseBanks = X86Const.KVM_MAX_VCPUS / 64;
}
