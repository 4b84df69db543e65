using Kvm.Abi;
using Kvm.Core.Tracing;

namespace Kvm.Arch.X86.Vmx;

/// <summary>The performance counters of an Intel guest: architectural registers that hold what is written; nothing counts, because the host has no counters to share.</summary>
/// <remarks>arch/x86/kvm/vmx/pmu_intel.c.</remarks>
internal sealed class IntelPmu : IKvmPmuOps
{
    private const uint fixedFlag = 1u << 30;

    [KernelFunction("intel_pmu_init", File = "arch/x86/kvm/vmx/pmu_intel.c")]
    public void Init(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("intel_pmu_init");
        Array.Clear(vcpu.Pmu.GpCounters);
        Array.Clear(vcpu.Pmu.GpEventsel);
        Array.Clear(vcpu.Pmu.FixedCounters);
    }

    [KernelFunction("intel_pmu_refresh", File = "arch/x86/kvm/vmx/pmu_intel.c")]
    public void Refresh(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("intel_pmu_refresh");
        KvmPmu pmu = vcpu.Pmu;
        pmu.NrArchGpCounters = 0;
        pmu.NrArchFixedCounters = 0;
        pmu.CounterBitmask[0] = pmu.CounterBitmask[1] = 0;
        pmu.Version = 0;
        pmu.ReservedBits = 0xffffffff00200000;
        pmu.RawEventMask = 0xffffffff;
        pmu.GlobalCtrlMask = pmu.GlobalOvfCtrlMask = pmu.FixedCtrCtrlMask = pmu.PebsEnableMask = pmu.PebsDataCfgMask = ulong.MaxValue;
        if (!vcpu.FindCpuidEntry(0xa, out kvm_cpuid_entry2 entry) || !vcpu.Vm.EnablePmu)
            return;
        pmu.Version = (byte)entry.eax;
        if (pmu.Version == 0)
            return;
        X86PmuCapability host = vcpu.Arch.PmuCap;
        pmu.NrArchGpCounters = Math.Min(entry.eax >> 8 & 0xff, (uint)host.NumCountersGp);
        pmu.CounterBitmask[0] = (1ul << Math.Min((int)(entry.eax >> 16 & 0xff), host.BitWidthGp)) - 1;
        if (pmu.Version > 1)
        {
            pmu.NrArchFixedCounters = Math.Min(Math.Min(entry.edx & 0x1f, KvmPmu.KVM_PMC_MAX_FIXED), (uint)host.NumCountersFixed);
            pmu.CounterBitmask[1] = (1ul << Math.Min((int)(entry.edx >> 5 & 0xff), host.BitWidthFixed)) - 1;
        }
        for (int i = 0; i < pmu.NrArchFixedCounters; i++)
            pmu.FixedCtrCtrlMask &= ~(0xbul << i * 4);
        pmu.GlobalCtrlMask = ~(((1ul << (int)pmu.NrArchGpCounters) - 1) | ((1ul << (int)pmu.NrArchFixedCounters) - 1) << 32);
        pmu.GlobalOvfCtrlMask = pmu.GlobalCtrlMask & ~(1ul << 62 | 1ul << 63);
    }

    [KernelFunction("intel_pmu_reset", File = "arch/x86/kvm/vmx/pmu_intel.c")]
    public void Reset(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("intel_pmu_reset");
        KvmPmu pmu = vcpu.Pmu;
        Array.Clear(pmu.GpCounters);
        Array.Clear(pmu.GpEventsel);
        Array.Clear(pmu.FixedCounters);
        pmu.FixedCtrCtrl = pmu.GlobalCtrl = pmu.GlobalStatus = 0;
    }

    [KernelFunction("intel_is_valid_msr", File = "arch/x86/kvm/vmx/pmu_intel.c")]
    public bool IsValidMsr(X86Vcpu vcpu, uint msr)
    {
        using var _ = FunctionTrace.Enter("intel_is_valid_msr");
        switch (msr)
        {
            case MSR_CORE_PERF_FIXED_CTR_CTRL:
            case MSR_CORE_PERF_GLOBAL_STATUS:
            case MSR_CORE_PERF_GLOBAL_CTRL:
            case MSR_CORE_PERF_GLOBAL_OVF_CTRL:
                return vcpu.Pmu.Version > 1;
            case MSR_IA32_PEBS_ENABLE:
            case MSR_PEBS_DATA_CFG:
                return false; // no PEBS format is offered
            case MSR_IA32_DS_AREA:
                return vcpu.GuestCpuidHas(X86Feature.DS);
            default:
                return Gp(vcpu.Pmu, msr, MSR_IA32_PERFCTR0) >= 0 || Gp(vcpu.Pmu, msr, MSR_P6_EVNTSEL0) >= 0 || Fixed(vcpu.Pmu, msr) >= 0;
        }
    }

    [KernelFunction("intel_pmu_get_msr", File = "arch/x86/kvm/vmx/pmu_intel.c")]
    public int GetMsr(X86Vcpu vcpu, ref MsrData msr)
    {
        KvmPmu pmu = vcpu.Pmu;
        switch (msr.Index)
        {
            case MSR_CORE_PERF_FIXED_CTR_CTRL:
                msr.Data = pmu.FixedCtrCtrl;
                return 0;
            case MSR_CORE_PERF_GLOBAL_STATUS:
                msr.Data = pmu.GlobalStatus;
                return 0;
            case MSR_CORE_PERF_GLOBAL_CTRL:
                msr.Data = pmu.GlobalCtrl;
                return 0;
            case MSR_CORE_PERF_GLOBAL_OVF_CTRL:
                msr.Data = 0;
                return 0;
            case MSR_IA32_DS_AREA:
                msr.Data = pmu.DsArea;
                return 0;
        }
        if (Gp(pmu, msr.Index, MSR_IA32_PERFCTR0) is >= 0 and int gp)
            msr.Data = pmu.GpCounters[gp] & pmu.CounterBitmask[0];
        else if (Fixed(pmu, msr.Index) is >= 0 and int f)
            msr.Data = pmu.FixedCounters[f] & pmu.CounterBitmask[1];
        else if (Gp(pmu, msr.Index, MSR_P6_EVNTSEL0) is >= 0 and int select)
            msr.Data = pmu.GpEventsel[select];
        else
            return 1;
        return 0;
    }

    [KernelFunction("intel_pmu_set_msr", File = "arch/x86/kvm/vmx/pmu_intel.c")]
    public int SetMsr(X86Vcpu vcpu, ref MsrData msr)
    {
        KvmPmu pmu = vcpu.Pmu;
        ulong data = msr.Data;
        switch (msr.Index)
        {
            case MSR_CORE_PERF_FIXED_CTR_CTRL:
                if ((data & pmu.FixedCtrCtrlMask) != 0)
                    return 1;
                pmu.FixedCtrCtrl = data;
                return 0;
            case MSR_CORE_PERF_GLOBAL_STATUS:
                if (!msr.HostInitiated)
                    return 1;
                pmu.GlobalStatus = data;
                return 0;
            case MSR_CORE_PERF_GLOBAL_CTRL:
                if ((data & pmu.GlobalCtrlMask) != 0)
                    return 1;
                pmu.GlobalCtrl = data;
                return 0;
            case MSR_CORE_PERF_GLOBAL_OVF_CTRL:
                if ((data & pmu.GlobalOvfCtrlMask) != 0)
                    return 1;
                if (!msr.HostInitiated)
                    pmu.GlobalStatus &= ~data;
                return 0;
            case MSR_IA32_DS_AREA:
                if (vcpu.IsNoncanonicalAddress(data))
                    return 1;
                pmu.DsArea = data;
                return 0;
        }
        if (Gp(pmu, msr.Index, MSR_IA32_PERFCTR0) is >= 0 and int gp)
        {
            // The legacy counter registers take 32 bits, sign-extended.
            pmu.GpCounters[gp] = msr.HostInitiated ? data : (ulong)(int)data;
        }
        else if (Fixed(pmu, msr.Index) is >= 0 and int f)
        {
            pmu.FixedCounters[f] = data;
        }
        else if (Gp(pmu, msr.Index, MSR_P6_EVNTSEL0) is >= 0 and int select && (data & pmu.ReservedBits) == 0)
        {
            pmu.GpEventsel[select] = data;
        }
        else
        {
            return 1;
        }
        return 0;
    }

    [KernelFunction("intel_is_valid_rdpmc_ecx", File = "arch/x86/kvm/vmx/pmu_intel.c")]
    public bool IsValidRdpmcEcx(X86Vcpu vcpu, uint idx) =>
        (idx & ~(3u << 30)) < ((idx & fixedFlag) != 0 ? vcpu.Pmu.NrArchFixedCounters : vcpu.Pmu.NrArchGpCounters);

    public int Rdpmc(X86Vcpu vcpu, uint idx, out ulong data)
    {
        data = 0;
        if (!IsValidRdpmcEcx(vcpu, idx))
            return 1;
        uint counter = idx & ~(3u << 30);
        data = (idx & fixedFlag) != 0 ? vcpu.Pmu.FixedCounters[counter] & vcpu.Pmu.CounterBitmask[1] : vcpu.Pmu.GpCounters[counter] & vcpu.Pmu.CounterBitmask[0];
        return 0;
    }

    private static int Gp(KvmPmu pmu, uint msr, uint first) => msr >= first && msr - first < pmu.NrArchGpCounters ? (int)(msr - first) : -1;
    private static int Fixed(KvmPmu pmu, uint msr) => msr >= MSR_CORE_PERF_FIXED_CTR0 && msr - MSR_CORE_PERF_FIXED_CTR0 < pmu.NrArchFixedCounters ? (int)(msr - MSR_CORE_PERF_FIXED_CTR0) : -1;
}
