using System.Numerics;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>The guest's performance counters on the host's events: arch/x86/kvm/pmu.c.</remarks>
public unsafe partial class X86Vcpu
{
    private const ulong AMD64_RAW_EVENT_MASK_NB = 0xf_0000_ffff, PinControl = 1 << 19;
    private const uint VMWARE_BACKDOOR_PMC_HOST_TSC = 0x10000, VMWARE_BACKDOOR_PMC_REAL_TIME = 0x10001, VMWARE_BACKDOOR_PMC_APPARENT_TIME = 0x10002;

    private bool PmuIsValidMsr(uint index) => Arch.PmuOps.IsValidMsr(this, index);

    private int PmuGetMsr(ref MsrData msr) => Arch.PmuOps.GetMsr(this, ref msr);

    [KernelFunction("kvm_pmu_set_msr", File = "arch/x86/kvm/pmu.c")]
    private int PmuSetMsr(ref MsrData msr)
    {
        if (Pmu.EventCount != 0 && Arch.PmuOps.MsrIdxToPmc(this, msr.Index) is { } pmc)
            Pmu.PmcInUse |= 1UL << pmc.Index;
        return Arch.PmuOps.SetMsr(this, ref msr);
    }

    [KernelFunction("kvm_pmu_refresh", File = "arch/x86/kvm/pmu.c")]
    public void PmuRefresh()
    {
        using var _ = FunctionTrace.Enter("kvm_pmu_refresh");
        Arch.PmuOps.Refresh(this);
    }

    /// <summary>The counter follows its registers: what was counted is taken over, and a host's event counts on when it is enabled and allowed.</summary>
    [KernelFunction("reprogram_counter", File = "arch/x86/kvm/pmu.c")]
    public void ReprogramCounter(KvmPmc pmc)
    {
        PauseCounter(pmc);
        if (!pmc.SpeculativeInUse || !Arch.PmuOps.PmcIsEnabled(pmc) || !CheckPmuEventFilter(pmc))
            return;
        ulong select = pmc.Eventsel, config = select;
        if ((select & PinControl) != 0)
            Arch.Host.Log.Once(LogLevel.Info, "kvm pmu: pin control bit is ignored");
        if (pmc.IsFixed)
        {
            config = Pmu.FixedCtrCtrl >> (4 * (pmc.Index - HostPmu.IndexFixed)) & 0xf;
            select |= ((config & 1) != 0 ? KvmPmu.EventselOs : 0) | ((config & 2) != 0 ? KvmPmu.EventselUser : 0) | ((config & 8) != 0 ? KvmPmu.EventselInt : 0);
        }

        if (pmc.CurrentConfig == config && ResumeCounter(pmc))
            return;
        pmc.ReleaseEvent();
        pmc.CurrentConfig = config;
        var perf = new PerfEvent(select & Pmu.RawEventMask, (select & KvmPmu.EventselUser) == 0, (select & KvmPmu.EventselOs) == 0, pmc.SamplePeriod(pmc.Counter), _ => PerfOverflow(pmc, inPmi: true));
        pmc.Event = perf;
        Pmu.EventCount++;
        Pmu.ReprogramPmi &= ~(1UL << pmc.Index);
        pmc.IsPaused = false;
        pmc.Intr = (select & KvmPmu.EventselInt) != 0;
        LoadedPmu?.Add(perf);
    }

    [KernelFunction("pmc_pause_counter", File = "arch/x86/kvm/pmu.c")]
    private static void PauseCounter(KvmPmc pmc)
    {
        if (pmc.Event is null || pmc.IsPaused)
            return;
        pmc.Counter = (pmc.Counter + pmc.Event.Pause()) & pmc.Bitmask;
        pmc.IsPaused = true;
    }

    [KernelFunction("pmc_resume_counter", File = "arch/x86/kvm/pmu.c")]
    private bool ResumeCounter(KvmPmc pmc)
    {
        if (pmc.Event is not { } perf)
            return false;
        perf.SetPeriod(pmc.SamplePeriod(pmc.Counter));
        perf.Enabled = true;
        LoadedPmu?.Add(perf);
        pmc.IsPaused = false;
        Pmu.ReprogramPmi &= ~(1UL << pmc.Index);
        return true;
    }

    [KernelFunction("check_pmu_event_filter", File = "arch/x86/kvm/pmu.c")]
    private bool CheckPmuEventFilter(KvmPmc pmc)
    {
        if (!Arch.PmuOps.HwEventAvailable(pmc))
            return false;
        if (Vm.PmuEventFilter is not { } filter)
            return true;
        if (pmc.IsFixed)
            return (filter.FixedCounterBitmap >> (pmc.Index - HostPmu.IndexFixed) & 1) != 0 == filter.Allow;
        return Array.BinarySearch(filter.Events, pmc.Eventsel & AMD64_RAW_EVENT_MASK_NB) >= 0 == filter.Allow;
    }

    /// <summary>__kvm_perf_overflow: from the host's interrupt (<paramref name="inPmi"/>), which ended the guest's run, or from an emulated instruction.</summary>
    [KernelFunction("kvm_perf_overflow", File = "arch/x86/kvm/pmu.c")]
    private void PerfOverflow(KvmPmc pmc, bool inPmi)
    {
        ulong bit = 1UL << pmc.Index;
        if ((Pmu.ReprogramPmi & bit) != 0)
            return;
        Pmu.ReprogramPmi |= bit;
        Pmu.GlobalStatus |= bit;
        MakeRequest(KVM_REQ_PMU);
        if (pmc.Intr)
            MakeRequest(KVM_REQ_PMI);
    }

    [KernelFunction("kvm_pmu_handle_event", File = "arch/x86/kvm/pmu.c")]
    private void PmuHandleEvent()
    {
        using var _ = FunctionTrace.Enter("kvm_pmu_handle_event");
        for (ulong bits = Pmu.ReprogramPmi; bits != 0; bits &= bits - 1)
        {
            int bit = BitOperations.TrailingZeroCount(bits);
            KvmPmc? pmc = Arch.PmuOps.PmcIdxToPmc(Pmu, bit);
            if (pmc?.Event is null)
                Pmu.ReprogramPmi &= ~(1UL << bit);
            else
                ReprogramCounter(pmc);
        }

        if (Pmu.NeedCleanup)
            PmuCleanup();
    }

    /// <summary>Events whose registers the guest has not touched for a whole time slice, and that are off, go.</summary>
    [KernelFunction("kvm_pmu_cleanup", File = "arch/x86/kvm/pmu.c")]
    private void PmuCleanup()
    {
        Pmu.NeedCleanup = false;
        for (ulong bits = Pmu.AllValidPmcIdx & ~Pmu.PmcInUse; bits != 0; bits &= bits - 1)
        {
            if (Arch.PmuOps.PmcIdxToPmc(Pmu, BitOperations.TrailingZeroCount(bits)) is { Event: not null, SpeculativeInUse: false } pmc)
                pmc.Stop();
        }

        Pmu.PmcInUse = 0;
    }

    [KernelFunction("kvm_pmu_deliver_pmi", File = "arch/x86/kvm/pmu.c")]
    private void PmuDeliverPmi()
    {
        if (LapicInKernel)
            Apic!.LocalDeliver(ApicConst.APIC_LVTPC);
    }

    /// <summary>An instruction was done for the guest: counters that count it, here and at this privilege, go up by one.</summary>
    [KernelFunction("kvm_pmu_trigger_event", File = "arch/x86/kvm/pmu.c")]
    private void PmuTriggerEvent(ulong hardwareEvent)
    {
        if (Pmu.EventCount == 0 && !FunctionTrace.Enabled)
            return;
        using var _ = FunctionTrace.Enter("kvm_pmu_trigger_event");
        for (ulong bits = Pmu.AllValidPmcIdx; bits != 0; bits &= bits - 1)
        {
            KvmPmc? pmc = Arch.PmuOps.PmcIdxToPmc(Pmu, BitOperations.TrailingZeroCount(bits));
            if (pmc is null || !Arch.PmuOps.PmcIsEnabled(pmc) || !pmc.SpeculativeInUse)
                continue;
            if (((pmc.Eventsel ^ hardwareEvent) & AMD64_RAW_EVENT_MASK_NB) == 0 && CplIsMatched(pmc))
                IncrementCounter(pmc);
        }
    }

    /// <summary>perf_get_hw_event_config(PERF_COUNT_HW_INSTRUCTIONS), of both vendors.</summary>
    private const ulong HwInstructions = 0xc0;

    /// <summary>PERF_COUNT_HW_BRANCH_INSTRUCTIONS: 0x00c4 on Intel, 0x00c2 on AMD.</summary>
    private ulong HwBranches => Arch.HostX86.Pmu?.Intel == false ? 0xc2UL : 0xc4;

    private bool CplIsMatched(KvmPmc pmc)
    {
        ulong config = pmc.CurrentConfig;
        ulong os = pmc.IsFixed ? 1 : KvmPmu.EventselOs, user = pmc.IsFixed ? 2 : KvmPmu.EventselUser;
        return (config & (Ops.GetCpl(this) == 0 ? os : user)) != 0;
    }

    [KernelFunction("kvm_pmu_incr_counter", File = "arch/x86/kvm/pmu.c")]
    private void IncrementCounter(KvmPmc pmc)
    {
        ulong previous = pmc.Counter;
        pmc.Counter = (pmc.Counter + 1) & pmc.Bitmask;
        ReprogramCounter(pmc);
        if (pmc.Counter < previous)
            PerfOverflow(pmc, inPmi: false);
    }

    /// <summary>kvm_pmu_rdpmc: without a guest PMU, or when user mode may not read, 1.</summary>
    [KernelFunction("kvm_pmu_rdpmc", File = "arch/x86/kvm/pmu.c")]
    private int PmuRdpmc(uint idx, out ulong data)
    {
        data = 0;
        if (Pmu.Version == 0)
            return 1;
        switch (idx)
        {
            case VMWARE_BACKDOOR_PMC_HOST_TSC:
                data = Arch.HostX86.Rdtsc();
                return 0;
            case VMWARE_BACKDOOR_PMC_REAL_TIME:
                data = (ulong)Arch.Host.KtimeNs;
                return 0;
            case VMWARE_BACKDOOR_PMC_APPARENT_TIME:
                data = (ulong)(Arch.Host.KtimeNs + Vm.KvmclockOffset);
                return 0;
        }

        if (Arch.PmuOps.RdpmcEcxToPmc(this, idx) is not { } pmc)
            return 1;
        if (ReadCr4Bits(X86_CR4_PCE) == 0 && Ops.GetCpl(this) != 0 && ReadCr0Bits(X86_CR0_PE) != 0)
            return 1;
        data = pmc.Read() & ((idx & 1u << 31) != 0 ? uint.MaxValue : ulong.MaxValue);
        return 0;
    }

    // ---- the host's counters follow the vCPU ----

    /// <summary>The counters of the CPU on which the vCPU is loaded; null when it is not, or the host has none.</summary>
    private CpuPmu? LoadedPmu => PmuLoaded ? LoadedCpu.Pmu : null;

    internal bool PmuLoaded;

    internal void PmuLoad()
    {
        PmuLoaded = true;
        if (Pmu.EventCount != 0)
            ForEachEvent(static (cpu, perf) => cpu.Add(perf));
    }

    internal void PmuPut()
    {
        if (Pmu.EventCount != 0)
            ForEachEvent(static (_, perf) => perf.OnCpu?.Remove(perf));
        PmuLoaded = false;
    }

    private void ForEachEvent(Action<CpuPmu, PerfEvent> action)
    {
        if (LoadedCpu.Pmu is not { } cpu)
            return;
        foreach (KvmPmc pmc in Pmu.GpCounters)
        {
            if (pmc.Event is { } perf)
                action(cpu, perf);
        }

        foreach (KvmPmc pmc in Pmu.FixedCounters)
        {
            if (pmc.Event is { } perf)
                action(cpu, perf);
        }
    }
}
