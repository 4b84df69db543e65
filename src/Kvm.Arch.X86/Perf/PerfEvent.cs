namespace Kvm.Arch.X86;

/// <summary>A hardware event that the kernel counts for a guest: excluded in the host, pinned, with a period after which its owner is told.</summary>
/// <remarks>
/// struct perf_event of perf_event_create_kernel_counter with attr.type PERF_TYPE_RAW, kernel/events/core.c. DIVERGES: D-X86-7: it counts while its vCPU is loaded, whichever
/// thread runs it.
/// </remarks>
public sealed class PerfEvent
{
    internal PerfEvent(ulong config, bool excludeUser, bool excludeKernel, ulong period, Action<PerfEvent> overflow)
    {
        Config = config;
        ExcludeUser = excludeUser;
        ExcludeKernel = excludeKernel;
        SamplePeriod = period;
        Overflow = overflow;
    }

    internal ulong Config { get; }
    internal bool ExcludeUser { get; }
    internal bool ExcludeKernel { get; }
    internal ulong SamplePeriod { get; set; }
    /// <summary>perf_event::overflow_handler; runs in NMI context.</summary>
    internal Action<PerfEvent> Overflow { get; }
    /// <summary>Enabled: it counts when a counter is free on the CPU where its vCPU is loaded.</summary>
    internal bool Enabled { get; set; } = true;

    /// <summary>hw.idx: the counter it is on; -1 = none.</summary>
    internal int Index { get; set; } = -1;
    internal CpuPmu? OnCpu { get; set; }
    /// <summary>hw.prev_count, hw.period_left.</summary>
    internal ulong Previous { get; set; }
    internal long PeriodLeft { get; set; }
    internal ulong Counted { get; set; }

    /// <summary>perf_event_read_value.</summary>
    internal ulong Read()
    {
        OnCpu?.Update(this);
        return Counted;
    }

    /// <summary>perf_event_pause(event, reset = true): stops, and gives what it has counted since it was last asked.</summary>
    internal ulong Pause()
    {
        Enabled = false;
        OnCpu?.Remove(this);
        ulong counted = Counted;
        Counted = 0;
        return counted;
    }

    /// <summary>perf_event_period: another period, which begins now.</summary>
    internal void SetPeriod(ulong period)
    {
        SamplePeriod = period;
        CpuPmu? cpu = OnCpu;
        cpu?.Remove(this);
        PeriodLeft = 0;
        cpu?.Add(this);
    }

    /// <summary>perf_event_release_kernel.</summary>
    internal void Release()
    {
        Enabled = false;
        OnCpu?.Remove(this);
    }
}
