using Kvm.Abi;
using Kvm.Core.Tracing;

namespace Kvm.Arch.X86.Vmx;

/// <summary>The performance counters of an Intel guest: general and fixed ones of architectural performance monitoring, version 2 at most.</summary>
/// <remarks>arch/x86/kvm/vmx/pmu_intel.c.</remarks>
internal sealed class IntelPmu : IKvmPmuOps
{
    private const uint fixedFlag = 1u << 30, fullWidthBit = MSR_IA32_PMC0 - MSR_IA32_PERFCTR0;
    private const ulong capFullWidthWrites = 1 << 13;

    /// <summary>Selectors that fixed counters stand for: instructions, cycles, cycles at the TSC's rate.</summary>
    private static readonly ulong[] fixedEvents = [0xc0, 0x3c, 0x300];
    /// <summary>Architectural events in the order of CPUID.0AH:EBX, umask in the upper byte.</summary>
    private static readonly ushort[] architecturalEvents = [0x003c, 0x00c0, 0x013c, 0x4f2e, 0x412e, 0x00c4, 0x00c5];

    [KernelFunction("intel_pmu_init", File = "arch/x86/kvm/vmx/pmu_intel.c")]
    public void Init(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("intel_pmu_init");
        foreach (KvmPmc pmc in vcpu.Pmu.GpCounters)
            pmc.CurrentConfig = 0;
        foreach (KvmPmc pmc in vcpu.Pmu.FixedCounters)
            pmc.CurrentConfig = 0;
        vcpu.PerfCapabilities = vcpu.Arch.KvmCaps.SupportedPerfCap;
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
        pmu.AvailableEventTypes = ~entry.ebx & (uint)((1ul << Math.Min((int)(entry.eax >> 24), host.EventsMaskLength)) - 1);
        pmu.NrArchGpCounters = Math.Min(entry.eax >> 8 & 0xff, (uint)host.NumCountersGp);
        pmu.CounterBitmask[0] = (1ul << Math.Min((int)(entry.eax >> 16 & 0xff), host.BitWidthGp)) - 1;
        if (pmu.Version > 1)
        {
            pmu.NrArchFixedCounters = Math.Min(Math.Min(entry.edx & 0x1f, KvmPmu.KVM_PMC_MAX_FIXED), (uint)host.NumCountersFixed);
            pmu.CounterBitmask[1] = (1ul << Math.Min((int)(entry.edx >> 5 & 0xff), host.BitWidthFixed)) - 1;
        }
        for (int i = 0; i < pmu.NrArchFixedCounters; i++)
            pmu.FixedCounters[i].Eventsel = fixedEvents[i];
        for (int i = 0; i < pmu.NrArchFixedCounters; i++)
            pmu.FixedCtrCtrlMask &= ~(0xbul << i * 4);
        pmu.GlobalCtrlMask = ~(((1ul << (int)pmu.NrArchGpCounters) - 1) | ((1ul << (int)pmu.NrArchFixedCounters) - 1) << 32);
        pmu.GlobalOvfCtrlMask = pmu.GlobalCtrlMask & ~(1ul << 62 | 1ul << 63);
        pmu.AllValidPmcIdx |= ~pmu.GlobalCtrlMask;
    }

    [KernelFunction("intel_pmu_reset", File = "arch/x86/kvm/vmx/pmu_intel.c")]
    public void Reset(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("intel_pmu_reset");
        KvmPmu pmu = vcpu.Pmu;
        foreach (KvmPmc pmc in pmu.GpCounters)
        {
            pmc.Stop();
            pmc.Counter = pmc.Eventsel = 0;
        }

        foreach (KvmPmc pmc in pmu.FixedCounters)
        {
            pmc.Stop();
            pmc.Counter = 0;
        }

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
                return MsrIdxToPmc(vcpu, msr) is not null || (FullWidthWrites(vcpu) && Gp(vcpu.Pmu, msr, MSR_IA32_PMC0) is not null);
        }
    }

    private static bool FullWidthWrites(X86Vcpu vcpu) => vcpu.GuestCpuidHas(X86Feature.PDCM) && (vcpu.PerfCapabilities & capFullWidthWrites) != 0;

    [KernelFunction("intel_msr_idx_to_pmc", File = "arch/x86/kvm/vmx/pmu_intel.c")]
    public KvmPmc? MsrIdxToPmc(X86Vcpu vcpu, uint msr) => Fixed(vcpu.Pmu, msr) ?? Gp(vcpu.Pmu, msr, MSR_P6_EVNTSEL0) ?? Gp(vcpu.Pmu, msr, MSR_IA32_PERFCTR0);

    [KernelFunction("intel_pmc_idx_to_pmc", File = "arch/x86/kvm/vmx/pmu_intel.c")]
    public KvmPmc? PmcIdxToPmc(KvmPmu pmu, int index) => index < 32
        ? index < pmu.NrArchGpCounters ? pmu.GpCounters[index] : null
        : index - 32 < pmu.NrArchFixedCounters ? pmu.FixedCounters[index - 32] : null;

    [KernelFunction("intel_hw_event_available", File = "arch/x86/kvm/vmx/pmu_intel.c")]
    public bool HwEventAvailable(KvmPmc pmc)
    {
        int i = Array.IndexOf(architecturalEvents, (ushort)pmc.Eventsel);
        return i < 0 || (pmc.Pmu.AvailableEventTypes >> i & 1) != 0;
    }

    [KernelFunction("intel_pmc_is_enabled", File = "arch/x86/kvm/vmx/pmu_intel.c")]
    public bool PmcIsEnabled(KvmPmc pmc) => pmc.Pmu.Version < 2 || (pmc.Pmu.GlobalCtrl >> pmc.Index & 1) != 0;

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
        if ((Gp(pmu, msr.Index, MSR_IA32_PERFCTR0) ?? Gp(pmu, msr.Index, MSR_IA32_PMC0) ?? Fixed(pmu, msr.Index)) is { } counter)
            msr.Data = counter.Read();
        else if (Gp(pmu, msr.Index, MSR_P6_EVNTSEL0) is { } select)
            msr.Data = select.Eventsel;
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
                if (pmu.FixedCtrCtrl == data)
                    return 0;
                if ((data & pmu.FixedCtrCtrlMask) != 0)
                    return 1;
                ReprogramFixedCounters(vcpu, data);
                return 0;
            case MSR_CORE_PERF_GLOBAL_STATUS:
                if (!msr.HostInitiated)
                    return 1;
                pmu.GlobalStatus = data;
                return 0;
            case MSR_CORE_PERF_GLOBAL_CTRL:
                if (pmu.GlobalCtrl == data)
                    return 0;
                if ((data & pmu.GlobalCtrlMask) != 0)
                    return 1;
                ulong changed = pmu.GlobalCtrl ^ data;
                pmu.GlobalCtrl = data;
                for (; changed != 0; changed &= changed - 1)
                {
                    if (PmcIdxToPmc(pmu, System.Numerics.BitOperations.TrailingZeroCount(changed)) is { } pmc)
                        vcpu.ReprogramCounter(pmc);
                }

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
        if ((Gp(pmu, msr.Index, MSR_IA32_PERFCTR0) ?? Gp(pmu, msr.Index, MSR_IA32_PMC0)) is { } gp)
        {
            bool fullWidth = (msr.Index & fullWidthBit) != 0;
            if (fullWidth && (data & ~gp.Bitmask) != 0)
                return 1;
            // The legacy counter registers take 32 bits, sign-extended.
            gp.Write(msr.HostInitiated || fullWidth ? data : (ulong)(int)data);
            return 0;
        }

        if (Fixed(pmu, msr.Index) is { } fixedCounter)
        {
            fixedCounter.Write(data);
            return 0;
        }

        if (Gp(pmu, msr.Index, MSR_P6_EVNTSEL0) is not { } select)
            return 1;
        if (select.Eventsel == data)
            return 0;
        if ((data & pmu.ReservedBits) != 0)
            return 1;
        select.Eventsel = data;
        vcpu.ReprogramCounter(select);
        return 0;
    }

    [KernelFunction("reprogram_fixed_counters", File = "arch/x86/kvm/vmx/pmu_intel.c")]
    private static void ReprogramFixedCounters(X86Vcpu vcpu, ulong data)
    {
        KvmPmu pmu = vcpu.Pmu;
        ulong changed = pmu.FixedCtrCtrl ^ data;
        pmu.FixedCtrCtrl = data;
        for (int i = 0; i < pmu.NrArchFixedCounters; i++)
        {
            if ((changed >> 4 * i & 0xf) == 0)
                continue;
            pmu.PmcInUse |= 1ul << (32 + i);
            vcpu.ReprogramCounter(pmu.FixedCounters[i]);
        }
    }

    [KernelFunction("intel_is_valid_rdpmc_ecx", File = "arch/x86/kvm/vmx/pmu_intel.c")]
    public bool IsValidRdpmcEcx(X86Vcpu vcpu, uint idx) =>
        (idx & ~(3u << 30)) < ((idx & fixedFlag) != 0 ? vcpu.Pmu.NrArchFixedCounters : vcpu.Pmu.NrArchGpCounters);

    [KernelFunction("intel_rdpmc_ecx_to_pmc", File = "arch/x86/kvm/vmx/pmu_intel.c")]
    public KvmPmc? RdpmcEcxToPmc(X86Vcpu vcpu, uint idx)
    {
        if (!IsValidRdpmcEcx(vcpu, idx))
            return null;
        uint counter = idx & ~(3u << 30);
        return (idx & fixedFlag) != 0 ? vcpu.Pmu.FixedCounters[counter] : vcpu.Pmu.GpCounters[counter];
    }

    private static KvmPmc? Gp(KvmPmu pmu, uint msr, uint first) => msr >= first && msr - first < pmu.NrArchGpCounters ? pmu.GpCounters[msr - first] : null;

    private static KvmPmc? Fixed(KvmPmu pmu, uint msr) =>
        msr >= MSR_CORE_PERF_FIXED_CTR0 && msr - MSR_CORE_PERF_FIXED_CTR0 < pmu.NrArchFixedCounters ? pmu.FixedCounters[msr - MSR_CORE_PERF_FIXED_CTR0] : null;
}
