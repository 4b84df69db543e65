namespace Kvm.Client.Tests.Soak;

/// <summary>Time as a thread sees it that its own operating system stops now and then: before one look at the clock in sixteen, half a millisecond goes by.</summary>
internal sealed class HaltingTime : TimeProvider
{
    private const long Gap = 500_000; // ns
    private const uint Odds = 16;
    private long _gaps;
    private uint _random = 1;

    public override long TimestampFrequency => 1_000_000_000;

    public override long GetTimestamp()
    {
        uint random = Volatile.Read(ref _random) * 1664525 + 1013904223;
        Volatile.Write(ref _random, random);
        if ((random >> 16) % Odds == 0) Interlocked.Increment(ref _gaps);
        return Peek;
    }

    /// <summary>The time without a halt.</summary>
    private long Peek => System.GetElapsedTime(0).Ticks * 100L + Volatile.Read(ref _gaps) * Gap;

    /// <summary>One that is exact to a few microseconds, where the runtime's count milliseconds.</summary>
    public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
    {
        var timer = new ExactTimer(this, callback, state);
        timer.Change(dueTime, period);
        return timer;
    }

    private sealed class ExactTimer : ITimer
    {
        private readonly HaltingTime _time;
        private readonly Thread _thread;
        private long _due = long.MaxValue;
        private volatile bool _disposed;

        public ExactTimer(HaltingTime time, TimerCallback callback, object? state)
        {
            _time = time;
            _thread = new Thread(() =>
            {
                while (!_disposed)
                {
                    long due = Volatile.Read(ref _due);
                    if (_time.Peek >= due && Interlocked.CompareExchange(ref _due, long.MaxValue, due) == due) callback(state);
                    else Thread.Yield();
                }
            })
            { IsBackground = true };
            _thread.Start();
        }

        public bool Change(TimeSpan dueTime, TimeSpan period)
        {
            Volatile.Write(ref _due, dueTime == Timeout.InfiniteTimeSpan ? long.MaxValue : _time.Peek + dueTime.Ticks * 100);
            return true;
        }

        public void Dispose() => _disposed = true;

        public ValueTask DisposeAsync()
        {
            Dispose();
            return ValueTask.CompletedTask;
        }
    }
}
