using Kvm.Core.Tracing;
using static Kvm.Arch.X86.MsrIndex;

namespace Kvm.Arch.X86.Svm;

/// <summary>Performance counters as an AMD guest sees them: four K7 pairs, or six of family 15h where CPUID has PERFCTR_CORE.</summary>
/// <remarks>arch/x86/kvm/svm/pmu.c.</remarks>
internal sealed class AmdPmu : IKvmPmuOps
{
    private const uint AMD64_NUM_COUNTERS = 4, AMD64_NUM_COUNTERS_CORE = 6;
    private const uint MSR_F15H_PERF_CTL0 = 0xc0010200, MSR_F15H_PERF_CTR5 = 0xc001020b, MSR_K7_EVNTSEL0 = 0xc0010000, MSR_K7_PERFCTR0 = 0xc0010004;
    private const ulong CounterMask = (1ul << 48) - 1;

    [KernelFunction("amd_pmu_init", File = "arch/x86/kvm/svm/pmu.c")]
    public void Init(X86Vcpu vcpu) => FunctionTrace.Leaf("amd_pmu_init");

    [KernelFunction("amd_pmu_refresh", File = "arch/x86/kvm/svm/pmu.c")]
    public void Refresh(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("amd_pmu_refresh");
        KvmPmu pmu = vcpu.Pmu;
        pmu.NrArchGpCounters = vcpu.GuestCpuidHas(X86Feature.PERFCTR_CORE) ? AMD64_NUM_COUNTERS_CORE : AMD64_NUM_COUNTERS;
        pmu.CounterBitmask[0] = CounterMask;
        pmu.CounterBitmask[1] = 0;
        pmu.ReservedBits = 0xfffffff000280000;
        pmu.RawEventMask = 0xf_ff84_ffff;
        pmu.Version = 1;
        pmu.NrArchFixedCounters = 0;
        pmu.GlobalStatus = 0;
        pmu.AllValidPmcIdx |= (1ul << (int)pmu.NrArchGpCounters) - 1;
    }

    [KernelFunction("amd_pmu_reset", File = "arch/x86/kvm/svm/pmu.c")]
    public void Reset(X86Vcpu vcpu)
    {
        FunctionTrace.Leaf("amd_pmu_reset");
        for (int i = 0; i < KvmPmu.KVM_AMD_PMC_MAX_GENERIC; i++)
        {
            KvmPmc pmc = vcpu.Pmu.GpCounters[i];
            pmc.Stop();
            pmc.Counter = pmc.Eventsel = 0;
        }
    }

    /// <summary>The counter behind an MSR, and whether the MSR is its event selector; -1 when it is not one that the guest has.</summary>
    private static int Find(X86Vcpu vcpu, uint msr, out bool eventSelector)
    {
        eventSelector = false;
        if (!vcpu.Vm.EnablePmu)
            return -1;
        uint index;
        switch (msr)
        {
            case >= MSR_F15H_PERF_CTL0 and <= MSR_F15H_PERF_CTR5:
                if (!vcpu.GuestCpuidHas(X86Feature.PERFCTR_CORE))
                    return -1;
                index = (msr - MSR_F15H_PERF_CTL0) / 2;
                eventSelector = (msr & 1) == 0;
                break;
            case >= MSR_K7_EVNTSEL0 and < MSR_K7_EVNTSEL0 + 4:
                index = msr - MSR_K7_EVNTSEL0;
                eventSelector = true;
                break;
            case >= MSR_K7_PERFCTR0 and < MSR_K7_PERFCTR0 + 4:
                index = msr - MSR_K7_PERFCTR0;
                break;
            default:
                return -1;
        }

        return index < vcpu.Pmu.NrArchGpCounters ? (int)index : -1;
    }

    [KernelFunction("amd_msr_idx_to_pmc", File = "arch/x86/kvm/svm/pmu.c")]
    public bool IsValidMsr(X86Vcpu vcpu, uint msr)
    {
        FunctionTrace.Leaf("amd_msr_idx_to_pmc");
        return Find(vcpu, msr, out bool _) >= 0;
    }

    [KernelFunction("amd_pmu_get_msr", File = "arch/x86/kvm/svm/pmu.c")]
    public int GetMsr(X86Vcpu vcpu, ref MsrData msr)
    {
        int index = Find(vcpu, msr.Index, out bool eventSelector);
        if (index < 0)
            return 1;
        KvmPmc pmc = vcpu.Pmu.GpCounters[index];
        msr.Data = eventSelector ? pmc.Eventsel : pmc.Read();
        return 0;
    }

    [KernelFunction("amd_pmu_set_msr", File = "arch/x86/kvm/svm/pmu.c")]
    public int SetMsr(X86Vcpu vcpu, ref MsrData msr)
    {
        int index = Find(vcpu, msr.Index, out bool eventSelector);
        if (index < 0)
            return 1;
        KvmPmc pmc = vcpu.Pmu.GpCounters[index];
        if (!eventSelector)
        {
            pmc.Write(msr.Data);
            return 0;
        }

        ulong select = msr.Data & ~vcpu.Pmu.ReservedBits;
        if (select == pmc.Eventsel)
            return 0;
        pmc.Eventsel = select;
        vcpu.ReprogramCounter(pmc);
        return 0;
    }

    public KvmPmc? MsrIdxToPmc(X86Vcpu vcpu, uint msr) => Find(vcpu, msr, out bool _) is >= 0 and int index ? vcpu.Pmu.GpCounters[index] : null;

    [KernelFunction("amd_pmc_idx_to_pmc", File = "arch/x86/kvm/svm/pmu.c")]
    public KvmPmc? PmcIdxToPmc(KvmPmu pmu, int index)
    {
        FunctionTrace.Leaf("amd_pmc_idx_to_pmc");
        return index < pmu.NrArchGpCounters ? pmu.GpCounters[index] : null;
    }

    /// <summary>Every event: CPUID does not say which there are.</summary>
    [KernelFunction("amd_hw_event_available", File = "arch/x86/kvm/svm/pmu.c")]
    public bool HwEventAvailable(KvmPmc pmc) => true;

    /// <summary>There is no global control register.</summary>
    [KernelFunction("amd_pmc_is_enabled", File = "arch/x86/kvm/svm/pmu.c")]
    public bool PmcIsEnabled(KvmPmc pmc)
    {
        FunctionTrace.Leaf("amd_pmc_is_enabled");
        return true;
    }

    [KernelFunction("amd_is_valid_rdpmc_ecx", File = "arch/x86/kvm/svm/pmu.c")]
    public bool IsValidRdpmcEcx(X86Vcpu vcpu, uint idx) => (idx & 0x3fffffff) < vcpu.Pmu.NrArchGpCounters;

    [KernelFunction("amd_rdpmc_ecx_to_pmc", File = "arch/x86/kvm/svm/pmu.c")]
    public KvmPmc? RdpmcEcxToPmc(X86Vcpu vcpu, uint idx)
    {
        FunctionTrace.Leaf("amd_rdpmc_ecx_to_pmc");
        idx &= 0x3fffffff;
        return idx < vcpu.Pmu.NrArchGpCounters ? vcpu.Pmu.GpCounters[idx] : null;
    }
}
