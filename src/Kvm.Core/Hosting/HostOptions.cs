namespace Kvm.Core;

/// <summary>How a <see cref="Host"/> is made. Every member has a working default.</summary>
public sealed class HostOptions
{
    /// <summary>Possible CPUs; all of them are online after boot. 1 to 1024.</summary>
    public int CpuCount { get; init; } = 2;

    /// <summary>Which kernel generation's names and messages are used where an old one differs.</summary>
    public KernelProfile Profile { get; init; } = KernelProfile.Linux61;

    /// <summary>The one source of time (ktime_get, timers, halt polling).</summary>
    public TimeProvider TimeProvider { get; init; } = TimeProvider.System;

    /// <summary>How long a waiting thread leaves a CPU to its occupant before it asks for it, in nanoseconds.</summary>
    public long TimeSliceNs { get; init; } = 3_000_000;

    /// <summary>
    /// Preemption wherever it can be: at every VM exit, and now and then wherever else the kernel can be preempted, a task loses its CPU and goes to another one
    /// (kvm_sched_out, kvm_sched_in), as this number says. Null: tasks stay where they are until others wait.
    /// </summary>
    public ulong? PreemptionSeed { get; init; }

    /// <summary>Pages that the host may hand out at all (total memory); the allocator fails beyond.</summary>
    public long MaxPages { get; init; } = 1L << 24;

    /// <summary>RLIMIT_NOFILE of new processes (EMFILE beyond).</summary>
    public int OpenFilesLimit { get; init; } = 1 << 16;

    /// <summary>fs.file-max: open files of all processes (ENFILE beyond).</summary>
    public int FileMax { get; init; } = 1 << 20;

    /// <summary>Capacity of the kernel log in records.</summary>
    public int LogRecords { get; init; } = 8192;
}
