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

    private void StopTimers()
    {
        _hrTimers?.Dispose();
        _systemWorkqueue?.Dispose();
    }
}
