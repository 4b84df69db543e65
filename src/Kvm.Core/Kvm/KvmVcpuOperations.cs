using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;

namespace Kvm.Core;

/// <summary>kvm_vcpu_fops: vCPU files.</summary>
internal sealed class KvmVcpuOperations : FileOperations
{
    /// <summary>The generic vCPU ioctls.</summary>
    public static readonly IoctlTable<KvmVcpu> Table = Build();

    [KernelFunction("kvm_vcpu_ioctl", File = "virt/kvm/kvm_main.c")]
    public override KvmResult Ioctl(KvmFile file, uint request, ulong arg)
    {
        using var _ = FunctionTrace.Enter("kvm_vcpu_ioctl");
        var vcpu = (KvmVcpu)file.PrivateData!;
        if (vcpu.Vm.Mm != HostTask.Current.Mm || vcpu.Vm.VmDead) return Errno.EIO;
        if ((byte)(request >> 8) != KVMIO) return Errno.EINVAL;
        if (request != KVM_RUN)
        {
            KvmResult async = vcpu.Arch.VcpuAsyncIoctl(vcpu, request, arg);
            if (async.Raw != -(long)Errno.ENOIOCTLCMD) return async;
        }

        if (!vcpu.Mutex.LockKillable()) return Errno.EINTR;
        KvmResult r;
        if (request == KVM_RUN) r = vcpu.IoctlRun(arg);
        else r = Table.Find(request) is { } row ? row.Invoke(vcpu, arg) : vcpu.Arch.VcpuIoctl(vcpu, request, arg);
        vcpu.Mutex.Unlock();
        return r;
    }

    /// <summary>Dirty-ring pages must be mapped shared and not executable.</summary>
    [KernelFunction("kvm_vcpu_mmap", File = "virt/kvm/kvm_main.c")]
    public override KvmResult Mmap(KvmFile file, Vma vma)
    {
        using var _ = FunctionTrace.Enter("kvm_vcpu_mmap");
        var vcpu = (KvmVcpu)file.PrivateData!;
        ulong pages = vma.Length / PageAllocator.PageSize;
        if ((InDirtyRing(vcpu, vma.PageOffset) || InDirtyRing(vcpu, vma.PageOffset + pages - 1)) &&
            ((vma.Protection & Fcntl.PROT_EXEC) != 0 || (vma.Flags & Fcntl.MAP_SHARED) == 0))
            return Errno.EINVAL;
        return 0;
    }

    [KernelFunction("kvm_vcpu_fault", File = "virt/kvm/kvm_main.c")]
    public override unsafe ulong Fault(KvmFile file, ulong pageOffset)
    {
        using var _ = FunctionTrace.Enter("kvm_vcpu_fault");
        var vcpu = (KvmVcpu)file.PrivateData!;
        return pageOffset switch
        {
            0 => (ulong)vcpu.Run,
            KvmLimits.KVM_PIO_PAGE_OFFSET => vcpu.Arch.PioDataPage(vcpu),
            KvmLimits.KVM_COALESCED_MMIO_PAGE_OFFSET => vcpu.Vm.CoalescedMmio.RingPage,
            _ when InDirtyRing(vcpu, pageOffset) => vcpu.DirtyRing!.Page(pageOffset - KvmLimits.KVM_DIRTY_LOG_PAGE_OFFSET),
            _ => vcpu.Arch.VcpuFault(vcpu, pageOffset),
        };
    }

    [KernelFunction("kvm_vcpu_release", File = "virt/kvm/kvm_main.c")]
    public override void Release(KvmFile file)
    {
        using var _ = FunctionTrace.Enter("kvm_vcpu_release");
        ((KvmVcpu)file.PrivateData!).Vm.Put();
    }

    /// <summary>kvm_page_in_dirty_ring.</summary>
    private static bool InDirtyRing(KvmVcpu vcpu, ulong page) =>
        page >= KvmLimits.KVM_DIRTY_LOG_PAGE_OFFSET && page < KvmLimits.KVM_DIRTY_LOG_PAGE_OFFSET + vcpu.Vm.DirtyRingSize / PageAllocator.PageSize;

    private static IoctlTable<KvmVcpu> Build()
    {
        var t = new IoctlTable<KvmVcpu>();
        t.Add(KVM_RUN, nameof(KVM_RUN), static (v, arg) => v.IoctlRun(arg));
        t.AddOut(KVM_GET_REGS, nameof(KVM_GET_REGS), static (KvmVcpu v, ref kvm_regs regs) => v.Nomem("kvm_regs") ?? v.Arch.VcpuIoctlGetRegs(v, ref regs));
        t.AddIn(KVM_SET_REGS, nameof(KVM_SET_REGS), static (KvmVcpu v, in kvm_regs regs) => v.Nomem("kvm_regs") ?? v.Arch.VcpuIoctlSetRegs(v, in regs));
        t.AddOut(KVM_GET_SREGS, nameof(KVM_GET_SREGS), static (KvmVcpu v, ref kvm_sregs sregs) => v.Nomem("kvm_sregs") ?? v.Arch.VcpuIoctlGetSregs(v, ref sregs));
        t.AddIn(KVM_SET_SREGS, nameof(KVM_SET_SREGS), static (KvmVcpu v, in kvm_sregs sregs) => v.Nomem("kvm_sregs") ?? v.Arch.VcpuIoctlSetSregs(v, in sregs));
        t.AddRef(KVM_TRANSLATE, nameof(KVM_TRANSLATE), static (KvmVcpu v, ref kvm_translation tr) => v.Arch.VcpuIoctlTranslate(v, ref tr));
        t.AddPtr<kvm_signal_mask>(KVM_SET_SIGNAL_MASK, nameof(KVM_SET_SIGNAL_MASK), static (v, argp) => v.IoctlSetSignalMask(argp));
        t.AddOut(KVM_GET_FPU, nameof(KVM_GET_FPU), static (KvmVcpu v, ref kvm_fpu fpu) => v.Nomem("kvm_fpu") ?? v.Arch.VcpuIoctlGetFpu(v, ref fpu));
        t.AddIn(KVM_SET_FPU, nameof(KVM_SET_FPU), static (KvmVcpu v, in kvm_fpu fpu) => v.Nomem("kvm_fpu") ?? v.Arch.VcpuIoctlSetFpu(v, in fpu));
        t.AddOut(KVM_GET_MP_STATE, nameof(KVM_GET_MP_STATE), static (KvmVcpu v, ref kvm_mp_state state) => v.Arch.VcpuIoctlGetMpState(v, ref state));
        t.AddIn(KVM_SET_MP_STATE, nameof(KVM_SET_MP_STATE), static (KvmVcpu v, in kvm_mp_state state) => v.Arch.VcpuIoctlSetMpState(v, in state));
        t.AddIn(KVM_SET_GUEST_DEBUG, nameof(KVM_SET_GUEST_DEBUG), static (KvmVcpu v, in kvm_guest_debug dbg) => v.Arch.VcpuIoctlSetGuestDebug(v, in dbg));
        t.Add(KVM_GET_STATS_FD, nameof(KVM_GET_STATS_FD), static (v, arg) => v.Vm.Module.GetStatsFd($"kvm-vcpu-stats:{v.VcpuId}", v, v.Vm));
        return t;
    }
}
