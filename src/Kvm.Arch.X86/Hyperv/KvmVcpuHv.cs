using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.HypervConst;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <summary>A vCPU's part of the Hyper-V interface (struct kvm_vcpu_hv). Exists from the first use of it on.</summary>
/// <remarks>asm/kvm_host.h, arch/x86/kvm/hyperv.c.</remarks>
public sealed unsafe partial class KvmVcpuHv
{
    private readonly KvmVcpuHvStimer[] _stimers = new KvmVcpuHvStimer[HV_SYNIC_STIMER_COUNT];
    private KvmHvCpuidCache _cpuid;
    private uint _stimerPending;

    [KernelFunction("kvm_hv_vcpu_init", File = "arch/x86/kvm/hyperv.c")]
    internal KvmVcpuHv(X86Vcpu vcpu)
    {
        Vcpu = vcpu;
        Synic = new KvmVcpuHvSynic(this);
        for (int i = 0; i < _stimers.Length; i++)
            _stimers[i] = new KvmVcpuHvStimer(this, i);
        VpIndex = (uint)vcpu.VcpuIdx;
    }

    public X86Vcpu Vcpu { get; }

    public KvmVcpuHvSynic Synic { get; }

    public uint VpIndex { get; private set; }

    /// <summary>The partition.</summary>
    internal KvmHv Partition => Vcpu.Vm.Hyperv;

    /// <summary>KVM_CAP_HYPERV_ENFORCE_CPUID: the guest may use what its CPUID announces, and no more.</summary>
    public bool EnforceCpuid { get; internal set; }

    /// <summary>evmcs_has_perf_global_ctrl: some Windows does not boot with these controls unless its CPUID says so.</summary>
    public bool HasEvmcsPerfGlobalCtrl => (_cpuid.NestedEbx & HV_X64_NESTED_EVMCS1_PERF_GLOBAL_CTRL) != 0;

    /// <summary>What KVM_REQ_HV_EXIT hands to userspace.</summary>
    internal kvm_hyperv_exit Exit;

    internal ref readonly KvmHvCpuidCache Cpuid => ref _cpuid;

    /// <summary>kvm_hv_has_stimer_pending.</summary>
    internal bool HasStimerPending => Volatile.Read(ref _stimerPending) != 0;

    internal ReadOnlySpan<KvmVcpuHvStimer> Stimers => _stimers;

    internal void MarkStimer(int index) => Interlocked.Or(ref _stimerPending, 1u << index);

    /// <summary>Takes a timer's pending bit.</summary>
    internal bool TakeStimer(int index) => (Interlocked.And(ref _stimerPending, ~(1u << index)) >> index & 1) != 0;

    /// <summary>The rest of kvm_hv_set_cpuid: keeps what the access checks need.</summary>
    internal void SetCpuid(bool enabled)
    {
        _cpuid = default;
        if (!enabled)
            return;
        if (Vcpu.FindCpuidEntry(HYPERV_CPUID_FEATURES, out kvm_cpuid_entry2 e))
            (_cpuid.FeaturesEax, _cpuid.FeaturesEbx, _cpuid.FeaturesEdx) = (e.eax, e.ebx, e.edx);
        if (Vcpu.FindCpuidEntry(HYPERV_CPUID_ENLIGHTMENT_INFO, out e))
            (_cpuid.EnlightenmentsEax, _cpuid.EnlightenmentsEbx) = (e.eax, e.ebx);
        if (Vcpu.FindCpuidEntry(HYPERV_CPUID_SYNDBG_PLATFORM_CAPABILITIES, out e))
            _cpuid.SyndbgCapEax = e.eax;
        if (Vcpu.FindCpuidEntry(HYPERV_CPUID_NESTED_FEATURES, out e))
            (_cpuid.NestedEax, _cpuid.NestedEbx) = (e.eax, e.ebx);
    }

    /// <summary>kvm_hv_vcpu_uninit: no timer runs when this returns.</summary>
    internal void Uninit()
    {
        foreach (KvmVcpuHvStimer stimer in _stimers)
            stimer.Cleanup();
    }

    /// <summary>kvm_hv_process_stimers: KVM_REQ_HV_STIMER, after the clock is up to date.</summary>
    [KernelFunction("kvm_hv_process_stimers", File = "arch/x86/kvm/hyperv.c")]
    internal void ProcessStimers()
    {
        for (int i = 0; i < _stimers.Length; i++)
        {
            if (TakeStimer(i))
                _stimers[i].Process();
        }
    }

    /// <summary>kvm_hv_notify_acked_sint: a message slot is free again: timers that wait for it, and the listeners of its GSI.</summary>
    [KernelFunction("kvm_hv_notify_acked_sint", File = "arch/x86/kvm/hyperv.c")]
    internal void NotifyAckedSint(int sint)
    {
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_hv_notify_acked_sint", $"vcpu_id {Vcpu.VcpuId} sint {sint}");
        foreach (KvmVcpuHvStimer stimer in _stimers)
        {
            if (stimer.WaitsFor(sint))
                stimer.MarkPending(false);
        }

        int index = Vcpu.Vm.IrqSrcu.ReadLock();
        int gsi = Synic.SintGsi(sint);
        if (gsi != -1)
            Vcpu.Vm.NotifyAckedGsi((uint)gsi);
        Vcpu.Vm.IrqSrcu.ReadUnlock(index);
    }

    // ---- synthetic debugger ----

    /// <summary>kvm_hv_is_syndbg_enabled.</summary>
    internal bool SyndbgEnabled => (_cpuid.SyndbgCapEax & HV_X64_SYNDBG_CAP_ALLOW_KERNEL_DEBUGGING) != 0;

    /// <summary>syndbg_exit: userspace's debugger gets to work before the guest goes on.</summary>
    [KernelFunction("syndbg_exit", File = "arch/x86/kvm/hyperv.c")]
    internal void SyndbgExit(uint msr, in KvmHvSyndbg syndbg)
    {
        Exit.type = KVM_EXIT_HYPERV_SYNDBG;
        Exit.u.syndbg.msr = msr;
        Exit.u.syndbg.control = syndbg.Control;
        Exit.u.syndbg.send_page = syndbg.SendPage;
        Exit.u.syndbg.recv_page = syndbg.RecvPage;
        Exit.u.syndbg.pending_page = syndbg.PendingPage;
        Vcpu.CompleteUserspaceIo = &SyndbgComplete;
        Vcpu.MakeRequest(KVM_REQ_HV_EXIT);
    }

    [KernelFunction("kvm_hv_syndbg_complete_userspace", File = "arch/x86/kvm/hyperv.c")]
    private static int SyndbgComplete(X86Vcpu vcpu)
    {
        if (vcpu.Run->hyperv.u.syndbg.msr == HV_X64_MSR_SYNDBG_CONTROL)
            vcpu.Vm.Hyperv.Syndbg.Status = vcpu.Run->hyperv.u.syndbg.status;
        return 1;
    }
}
