namespace Kvm.Core;

/// <summary>
/// struct hrtimer: runs a function once the host's clock (ktime_get) has reached a time. The function runs in interrupt context: it occupies no CPU and must not
/// sleep. Any thread may start and cancel it.
/// </summary>
public sealed class HrTimer
{
    private readonly HrTimerBase _base;
    private readonly Func<bool> _function;

    /// <summary>hrtimer_init. <paramref name="function"/> returns true (HRTIMER_RESTART) after it has moved <see cref="Expires"/>.</summary>
    [Tracing.KernelFunction("hrtimer_init", File = "kernel/time/hrtimer.c")]
    public HrTimer(Host host, Func<bool> function)
    {
        Tracing.FunctionTrace.Leaf("hrtimer_init");
        _base = host.HrTimers;
        _function = function;
    }

    /// <summary>When it is due, in nanoseconds of <see cref="Host.KtimeNs"/>; written only by the function itself and by <see cref="Start"/>.</summary>
    public long Expires { get; set; }

    /// <summary>Its place in the queue, or -1; under the queue's lock.</summary>
    internal int HeapIndex { get; set; } = -1;

    /// <summary>Its function asked to be run again and was not, because it was cancelled meanwhile; under the queue's lock.</summary>
    internal bool RestartRefused { get; set; }

    /// <summary>hrtimer_start: (re)arms it; a time that has passed already is due at once.</summary>
    [Tracing.KernelFunction("hrtimer_start_range_ns", File = "kernel/time/hrtimer.c")]
    public void Start(long expires)
    {
        Tracing.FunctionTrace.Leaf("hrtimer_start_range_ns");
        _base.Start(this, expires);
    }

    /// <summary>hrtimer_cancel: when it returns the function is not running and will not run. True when the timer was waiting.</summary>
    [Tracing.KernelFunction("hrtimer_cancel", File = "kernel/time/hrtimer.c")]
    public bool Cancel()
    {
        Tracing.FunctionTrace.Leaf("hrtimer_cancel");
        return _base.Cancel(this);
    }

    /// <summary>hrtimer_active: it waits or its function runs.</summary>
    public bool Active => _base.IsActive(this);

    /// <summary>hrtimer_get_remaining: nanoseconds until it is due; negative when that has passed.</summary>
    public long Remaining => Expires - _base.Now;

    internal bool Run() => _function();
}
