namespace Kvm.Core;

/// <remarks>Timers and deferred work.</remarks>
public sealed partial class Host
{
    private HrTimerBase? _hrTimers;
    private HostWorker? _systemWorkqueue;

    /// <summary>The clock's timers.</summary>
    internal HrTimerBase HrTimers => LazyInitializer.EnsureInitialized(ref _hrTimers, () => new HrTimerBase(this));

    /// <summary>system_wq: where schedule_work puts its work.</summary>
    public HostWorker SystemWorkqueue => LazyInitializer.EnsureInitialized(ref _systemWorkqueue, static () => new HostWorker("kworker"));

    /// <summary>
    /// schedule_work. A worker wakes on the CPU where its work was queued, and has it before the program that made the system call; so the work is done
    /// when the call returns.
    /// </summary>
    [Tracing.KernelFunction("schedule_work", File = "include/linux/workqueue.h")]
    public void ScheduleWork(HostWork work)
    {
        SystemWorkqueue.Queue(work);
        if (HostTask.CurrentOrNull is { KernelDepth: > 0, IrqDepth: 0 } task && task.Host == this) task.LeftWork = work;
    }

    private void AwaitLeftWork(HostTask task)
    {
        HostWork work = task.LeftWork!;
        task.LeftWork = null;
        SystemWorkqueue.Await(work); // first in, first out: what was left before is done too
    }

    private void StopTimers()
    {
        _hrTimers?.Dispose();
        _systemWorkqueue?.Dispose();
    }
}
