using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.HypervConst;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>The vCPU's ends of the Hyper-V interface.</remarks>
public unsafe partial class X86Vcpu
{
    private KvmVcpuHv? _hv;

    /// <summary>to_hv_vcpu: null until the interface is used. Other threads read it too.</summary>
    public KvmVcpuHv? Hv => Volatile.Read(ref _hv);

    /// <summary>hyperv_enabled: the guest's CPUID has the interface ("Hv#1").</summary>
    public bool HypervEnabled { get; private set; }

    /// <summary>kvm_hv_get_vpindex.</summary>
    internal uint HvVpIndex => Hv is { } hv ? hv.VpIndex : (uint)VcpuIdx;

    /// <summary>kvm_hv_hypercall_enabled: the guest has the interface and has said what it is.</summary>
    private bool HvHypercallEnabled => HypervEnabled && Vm.Hyperv.GuestOsId != 0;

    /// <summary>kvm_hv_vcpu_init: false (-ENOMEM) without memory.</summary>
    private bool HvVcpuInit()
    {
        if (_hv is not null)
            return true;
        if (Vm.Host.Faults.ShouldFail("kzalloc", "kvm_vcpu_hv"))
            return false;
        Volatile.Write(ref _hv, new KvmVcpuHv(this));
        return true;
    }

    [KernelFunction("kvm_hv_vcpu_uninit", File = "arch/x86/kvm/hyperv.c")]
    private void HvVcpuUninit()
    {
        FunctionTrace.Leaf("kvm_hv_vcpu_uninit");
        _hv?.Uninit();
        _hv = null;
    }

    /// <summary>kvm_cpuid_has_hyperv.</summary>
    private static bool CpuidHasHyperv(Span<kvm_cpuid_entry2> entries) =>
        Copy(ref Find(entries, HYPERV_CPUID_INTERFACE, IndexNotSignificant), out kvm_cpuid_entry2 e) && e.eax == HYPERV_CPUID_SIGNATURE_EAX;

    [KernelFunction("kvm_hv_set_cpuid", File = "arch/x86/kvm/hyperv.c")]
    private void HvSetCpuid()
    {
        using var _ = FunctionTrace.Enter("kvm_hv_set_cpuid");
        HypervEnabled = CpuidHasHyperv(Entries);
        _hv?.SetCpuid(HypervEnabled);
    }

    private int HvSetMsr(uint index, ulong data, bool host) => (host || HypervEnabled) && HvVcpuInit() ? _hv!.SetMsrCommon(index, data, host) : 1;

    private int HvGetMsr(uint index, out ulong data, bool host)
    {
        data = 0;
        return (host || HypervEnabled) && HvVcpuInit() ? _hv!.GetMsrCommon(index, out data, host) : 1;
    }

    /// <summary>KVM_CAP_HYPERV_SYNIC and SYNIC2: -EINVAL without in-kernel interrupt controllers; the second takes no argument and leaves the guest's pages as they are.</summary>
    [KernelFunction("kvm_hv_activate_synic", File = "arch/x86/kvm/hyperv.c")]
    internal int ActivateSynic(bool dontZeroPages)
    {
        if (!HvVcpuInit())
            return -ENOMEM;
        _hv!.Synic.Activate(dontZeroPages);
        return 0;
    }

    /// <summary>KVM_CAP_HYPERV_ENFORCE_CPUID.</summary>
    [KernelFunction("kvm_hv_set_enforce_cpuid", File = "arch/x86/kvm/hyperv.c")]
    internal int SetEnforceCpuid(bool enforce)
    {
        if (_hv is null && !enforce)
            return 0;
        if (!HvVcpuInit())
            return -ENOMEM;
        _hv!.EnforceCpuid = enforce;
        return 0;
    }

    /// <summary>KVM_REQ_HV_CRASH, KVM_REQ_HV_RESET and KVM_REQ_HV_EXIT: true when KVM_RUN ends.</summary>
    private bool HvExitRequest()
    {
        if (CheckRequest(KVM_REQ_HV_CRASH))
            return SystemEvent(KVM_SYSTEM_EVENT_CRASH);
        if (CheckRequest(KVM_REQ_HV_RESET))
            return SystemEvent(KVM_SYSTEM_EVENT_RESET);
        if (!CheckRequest(KVM_REQ_HV_EXIT))
            return false;
        Run->exit_reason = KVM_EXIT_HYPERV;
        Run->hyperv = _hv!.Exit;
        return true;
    }

    private bool SystemEvent(uint type)
    {
        Run->exit_reason = KVM_EXIT_SYSTEM_EVENT;
        Run->system_event.type = type;
        Run->system_event.ndata = 0;
        return true;
    }
}
