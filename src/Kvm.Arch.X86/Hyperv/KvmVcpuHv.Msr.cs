using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.ApicConst;
using static Kvm.Arch.X86.HypervConst;

namespace Kvm.Arch.X86;

/// <remarks>MSRs of one virtual processor, and which MSRs its CPUID lets it use.</remarks>
public sealed unsafe partial class KvmVcpuHv
{
    private ulong _vapic;
    private ulong _runtimeOffset;

    /// <summary>kvm_hv_set_msr_common: 0, or 1 when the write fails (#GP in the guest).</summary>
    [KernelFunction("kvm_hv_set_msr_common", File = "arch/x86/kvm/hyperv.c")]
    internal int SetMsrCommon(uint msr, ulong data, bool host)
    {
        if (!host && !CheckMsrAccess(msr))
            return 1;
        if (!KvmHv.IsPartitionWide(msr))
            return SetMsr(msr, data, host);
        using var held = Partition.Lock.Enter();
        return Partition.SetMsr(Vcpu, msr, data, host);
    }

    /// <summary>kvm_hv_get_msr_common.</summary>
    [KernelFunction("kvm_hv_get_msr_common", File = "arch/x86/kvm/hyperv.c")]
    internal int GetMsrCommon(uint msr, out ulong data, bool host)
    {
        data = 0;
        if (!host && !CheckMsrAccess(msr))
            return 1;
        if (!KvmHv.IsPartitionWide(msr))
            return GetMsr(msr, out data, host);
        using var held = Partition.Lock.Enter();
        return Partition.GetMsr(Vcpu, msr, out data, host);
    }

    /// <summary>hv_check_msr_access.</summary>
    [KernelFunction("hv_check_msr_access", File = "arch/x86/kvm/hyperv.c")]
    private bool CheckMsrAccess(uint msr)
    {
        if (!EnforceCpuid)
            return true;
        uint eax = msr switch
        {
            HV_X64_MSR_GUEST_OS_ID or HV_X64_MSR_HYPERCALL => HV_MSR_HYPERCALL_AVAILABLE,
            HV_X64_MSR_VP_RUNTIME => HV_MSR_VP_RUNTIME_AVAILABLE,
            HV_X64_MSR_TIME_REF_COUNT => HV_MSR_TIME_REF_COUNT_AVAILABLE,
            HV_X64_MSR_VP_INDEX => HV_MSR_VP_INDEX_AVAILABLE,
            HV_X64_MSR_RESET => HV_MSR_RESET_AVAILABLE,
            HV_X64_MSR_REFERENCE_TSC => HV_MSR_REFERENCE_TSC_AVAILABLE,
            (>= HV_X64_MSR_SCONTROL and <= HV_X64_MSR_EOM) or (>= HV_X64_MSR_SINT0 and <= HV_X64_MSR_SINT15) => HV_MSR_SYNIC_AVAILABLE,
            >= HV_X64_MSR_STIMER0_CONFIG and <= HV_X64_MSR_STIMER3_COUNT => HV_MSR_SYNTIMER_AVAILABLE,
            >= HV_X64_MSR_EOI and <= HV_X64_MSR_VP_ASSIST_PAGE => HV_MSR_APIC_ACCESS_AVAILABLE,
            HV_X64_MSR_TSC_FREQUENCY or HV_X64_MSR_APIC_FREQUENCY => HV_ACCESS_FREQUENCY_MSRS,
            >= HV_X64_MSR_REENLIGHTENMENT_CONTROL and <= HV_X64_MSR_TSC_EMULATION_STATUS => HV_ACCESS_REENLIGHTENMENT,
            _ => 0,
        };
        uint edx = msr is >= HV_X64_MSR_CRASH_P0 and <= HV_X64_MSR_CRASH_CTL ? HV_FEATURE_GUEST_CRASH_MSR_AVAILABLE
            : KvmHv.IsSyndbg(msr) ? HV_FEATURE_DEBUG_MSRS_AVAILABLE : 0;
        return (_cpuid.FeaturesEax & eax) != 0 || (_cpuid.FeaturesEdx & edx) != 0;
    }

    /// <summary>kvm_hv_set_msr.</summary>
    [KernelFunction("kvm_hv_set_msr", File = "arch/x86/kvm/hyperv.c")]
    private int SetMsr(uint msr, ulong data, bool host)
    {
        switch (msr)
        {
            case HV_X64_MSR_VP_INDEX:
                return host ? SetVpIndex((uint)data) : 1;
            case HV_X64_MSR_VP_ASSIST_PAGE:
                return SetVpAssistPage(data);
            case HV_X64_MSR_EOI:
                return Vcpu.Apic?.MsrWrite(APIC_EOI, data) ?? 1;
            case HV_X64_MSR_ICR:
                return Vcpu.Apic?.MsrWrite(APIC_ICR, data) ?? 1;
            case HV_X64_MSR_TPR:
                return Vcpu.Apic?.MsrWrite(APIC_TASKPRI, data) ?? 1;
            case HV_X64_MSR_VP_RUNTIME:
                if (!host)
                    return 1;
                _runtimeOffset = data - CurrentTaskRuntime;
                return 0;
            case >= HV_X64_MSR_SCONTROL and <= HV_X64_MSR_EOM:
            case >= HV_X64_MSR_SINT0 and <= HV_X64_MSR_SINT15:
                return Synic.SetMsr(msr, data, host);
            case >= HV_X64_MSR_STIMER0_CONFIG and <= HV_X64_MSR_STIMER3_COUNT:
                KvmVcpuHvStimer stimer = _stimers[(msr - HV_X64_MSR_STIMER0_CONFIG) / 2];
                return (msr & 1) == 0 ? stimer.SetConfig(data, host) : stimer.SetCount(data, host);
            case HV_X64_MSR_TSC_FREQUENCY or HV_X64_MSR_APIC_FREQUENCY:
                // Read-only; userspace's write of a saved value is ignored.
                return host ? 0 : 1;
            default:
                Vcpu.Arch.PrUnimplWrmsr(Vcpu, msr, data);
                return 1;
        }
    }

    private int SetVpIndex(uint index)
    {
        if (index >= X86Const.KVM_MAX_VCPUS)
            return 1;
        if (index == VpIndex)
            return 0;

        // Sets of virtual processors are sets of vCPUs while no index differs from the vCPU's own.
        if (VpIndex == (uint)Vcpu.VcpuIdx)
            Interlocked.Increment(ref Partition.MismatchedVpIndexes);
        else if (index == (uint)Vcpu.VcpuIdx)
            Interlocked.Decrement(ref Partition.MismatchedVpIndexes);
        VpIndex = index;
        return 0;
    }

    /// <summary>HV_X64_MSR_VP_ASSIST_PAGE: its first word takes the place of KVM's own paravirtual EOI; only that word is cleared, the rest is the guest's.</summary>
    private int SetVpAssistPage(ulong data)
    {
        if ((data & HV_X64_MSR_PAGE_ENABLE) == 0)
        {
            _vapic = data;
            return Vcpu.SetPvEoi(0, 0) != 0 ? 1 : 0;
        }

        ulong gfn = data >> 12;
        ulong hva = Vcpu.GfnToHva(gfn);
        uint zero = 0;
        if (KvmLimits.IsErrorHva(hva) || !UserMemory.CopyToUser(hva, &zero, sizeof(uint)))
            return 1;
        _vapic = data;
        Vcpu.MarkPageDirty(gfn);
        return Vcpu.SetPvEoi((gfn << 12) | 1, HvVpAssistPageSize) != 0 ? 1 : 0;
    }

    /// <summary>kvm_hv_assist_page_enabled.</summary>
    [KernelFunction("kvm_hv_assist_page_enabled", File = "arch/x86/kvm/hyperv.c")]
    public bool AssistPageEnabled => (_vapic & HV_X64_MSR_PAGE_ENABLE) != 0 && (Vcpu.PvEoiMsrVal & 1) != 0;

    /// <summary>kvm_hv_get_msr.</summary>
    [KernelFunction("kvm_hv_get_msr", File = "arch/x86/kvm/hyperv.c")]
    private int GetMsr(uint msr, out ulong data, bool host)
    {
        data = 0;
        switch (msr)
        {
            case HV_X64_MSR_VP_INDEX:
                data = VpIndex;
                return 0;
            case HV_X64_MSR_EOI:
                return Vcpu.Apic?.MsrRead(APIC_EOI, out data) ?? 1;
            case HV_X64_MSR_ICR:
                return Vcpu.Apic?.MsrRead(APIC_ICR, out data) ?? 1;
            case HV_X64_MSR_TPR:
                return Vcpu.Apic?.MsrRead(APIC_TASKPRI, out data) ?? 1;
            case HV_X64_MSR_VP_ASSIST_PAGE:
                data = _vapic;
                return 0;
            case HV_X64_MSR_VP_RUNTIME:
                data = CurrentTaskRuntime + _runtimeOffset;
                return 0;
            case >= HV_X64_MSR_SCONTROL and <= HV_X64_MSR_EOM:
            case >= HV_X64_MSR_SINT0 and <= HV_X64_MSR_SINT15:
                return Synic.GetMsr(msr, out data, host);
            case >= HV_X64_MSR_STIMER0_CONFIG and <= HV_X64_MSR_STIMER3_COUNT:
                KvmVcpuHvStimer stimer = _stimers[(msr - HV_X64_MSR_STIMER0_CONFIG) / 2];
                data = (msr & 1) == 0 ? stimer.Config : stimer.Count;
                return 0;
            case HV_X64_MSR_TSC_FREQUENCY:
                data = Vcpu.VirtualTscKhz * 1000ul;
                return 0;
            case HV_X64_MSR_APIC_FREQUENCY:
                data = 1_000_000_000 / APIC_BUS_CYCLE_NS;
                return 0;
            default:
                Vcpu.Arch.PrUnimplRdmsr(Vcpu, msr);
                return 1;
        }
    }

    /// <summary>current_task_runtime_100ns.</summary>
    private static ulong CurrentTaskRuntime => HostTask.Current.RuntimeNs / 100;
}
