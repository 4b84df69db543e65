namespace Kvm.Arch.X86;

/// <summary>A performance counter of a guest: what its registers hold, and the host's event that counts for it.</summary>
/// <remarks>struct kvm_pmc, asm/kvm_host.h.</remarks>
public sealed class KvmPmc
{
    internal KvmPmc(KvmPmu pmu, bool isFixed, int index)
    {
        Pmu = pmu;
        IsFixed = isFixed;
        Index = index;
    }

    public KvmPmu Pmu { get; }
    public bool IsFixed { get; }
    /// <summary>Bit in the global registers: fixed counters from 32 on.</summary>
    public int Index { get; }
    /// <summary>What the counter held when its event last began.</summary>
    public ulong Counter;
    /// <summary>The selector; of a fixed counter the event that it stands for.</summary>
    public ulong Eventsel;
    public PerfEvent? Event;
    public ulong CurrentConfig;
    public bool IsPaused;
    /// <summary>The guest wants an interrupt when it overflows.</summary>
    public bool Intr;

    /// <summary>pmc_bitmask.</summary>
    public ulong Bitmask => Pmu.CounterBitmask[IsFixed ? 1 : 0];

    /// <summary>pmc_read_counter.</summary>
    public ulong Read() => (Counter + (Event is not null && !IsPaused ? Event.Read() : 0)) & Bitmask;

    /// <summary>pmc_write_counter and pmc_update_sample_period.</summary>
    public void Write(ulong value)
    {
        Counter = (Counter + value - Read()) & Bitmask;
        if (Event is not null && !IsPaused)
            Event.SetPeriod(SamplePeriod(Counter));
    }

    /// <summary>get_sample_period: as many events as it takes to overflow.</summary>
    internal ulong SamplePeriod(ulong counter)
    {
        ulong period = (0 - counter) & Bitmask;
        return period != 0 ? period : Bitmask + 1;
    }

    /// <summary>pmc_speculative_in_use.</summary>
    public bool SpeculativeInUse => IsFixed ? (Pmu.FixedCtrCtrl >> (4 * (Index - HostPmu.IndexFixed)) & 3) != 0 : (Eventsel & KvmPmu.EventselEnable) != 0;

    /// <summary>pmc_release_perf_event.</summary>
    internal void ReleaseEvent()
    {
        if (Event is null)
            return;
        Event.Release();
        Event = null;
        CurrentConfig = 0;
        Pmu.EventCount--;
    }

    /// <summary>pmc_stop_counter.</summary>
    internal void Stop()
    {
        if (Event is null)
            return;
        Counter = Read();
        ReleaseEvent();
    }
}
