using Kvm.Interop;

namespace Kvm.Core;

/// <summary>The timers of a host: a heap by expiry, and one thread that sleeps until the first is due. The thread exists from the first timer on.</summary>
/// <remarks>With a time source other than the system's, that source's own timer takes the thread's place, so that simulated time drives the timers.</remarks>
internal sealed unsafe class HrTimerBase : IDisposable
{
    private const int EfdCloexec = 0x80000, EfdNonblock = 0x800;
    private const short Pollin = 1;

    private readonly Host _host;
    private readonly object _gate = new();
    private HrTimer[] _heap = new HrTimer[16];
    private int _count;
    private HrTimer? _running;
    private bool _restart;
    private int _runningThread;
    private bool _disposed;
    private Thread? _thread;
    private int _wakeFd = -1;
    private ITimer? _alarm;

    public HrTimerBase(Host host) => _host = host;

    public long Now => _host.KtimeNs;

    public void Start(HrTimer timer, long expires)
    {
        lock (_gate)
        {
            if (_disposed) return;
            Remove(timer);
            timer.Expires = expires;
            // A function that runs right now must not move the time that was just set.
            if (_running == timer) _restart = false;
            Insert(timer);
            if (timer.HeapIndex == 0) Rearm();
        }
    }

    public bool Cancel(HrTimer timer)
    {
        lock (_gate)
        {
            bool was = Remove(timer);
            if (_running != timer) return was;
            // Its function runs. One that comes to its end without asking to be run again was not waiting: whoever cancels a timer to start it once more must not revive it.
            bool own = _runningThread == Environment.CurrentManagedThreadId;
            if (own) was |= _restart;
            _restart = false;
            timer.RestartRefused = false;
            while (_running == timer && _runningThread != Environment.CurrentManagedThreadId) Monitor.Wait(_gate);
            return Remove(timer) || was || (!own && timer.RestartRefused);
        }
    }

    public bool IsActive(HrTimer timer)
    {
        lock (_gate) return timer.HeapIndex >= 0 || _running == timer;
    }

    public void Dispose()
    {
        lock (_gate)
        {
            _disposed = true;
            _count = 0;
            _alarm?.Dispose();
            Wake();
        }

        _thread?.Join();
        if (_wakeFd >= 0) LibC.close(_wakeFd);
        _wakeFd = -1;
    }

    // ---- waiting; the gate is held ----

    private void Rearm()
    {
        if (_host.Time != TimeProvider.System)
        {
            long left = Math.Max(0, _heap[0].Expires - Now);
            var due = TimeSpan.FromTicks((left + 99) / 100);
            if (_alarm is null) _alarm = _host.Time.CreateTimer(static b => ((HrTimerBase)b!).OnAlarm(), this, due, Timeout.InfiniteTimeSpan);
            else _alarm.Change(due, Timeout.InfiniteTimeSpan);
            return;
        }

        if (_thread is null)
        {
            _wakeFd = LibC.eventfd(0, EfdCloexec | EfdNonblock);
            _thread = new Thread(Loop) { IsBackground = true, Name = "hrtimer", Priority = ThreadPriority.Highest };
            _thread.Start();
        }
        else
        {
            Wake();
        }
    }

    private void Wake()
    {
        if (_wakeFd < 0) return;
        ulong one = 1;
        _ = LibC.write(_wakeFd, &one, sizeof(ulong));
    }

    private void OnAlarm()
    {
        lock (_gate)
        {
            RunExpired();
            if (!_disposed && _count > 0) Rearm();
        }
    }

    private void Loop()
    {
        lock (_gate)
        {
            while (!_disposed)
            {
                RunExpired();
                if (_disposed) return;
                long left = _count == 0 ? long.MaxValue : Math.Max(0, _heap[0].Expires - Now);
                Monitor.Exit(_gate);
                Sleep(left);
                Monitor.Enter(_gate);
            }
        }
    }

    private void Sleep(long ns)
    {
        var time = new LibC.TimeSpec { tv_sec = ns / 1_000_000_000, tv_nsec = ns % 1_000_000_000 };
        var fd = new LibC.pollfd { fd = _wakeFd, events = Pollin };
        if (LibC.ppoll(&fd, 1, ns == long.MaxValue ? null : &time, null) <= 0) return;
        ulong value;
        _ = LibC.read(_wakeFd, &value, sizeof(ulong));
    }

    private void RunExpired()
    {
        // An alarm may come while a function runs on another thread: that one goes on with the rest.
        if (_running is not null) return;
        while (_count > 0 && !_disposed && _heap[0].Expires <= Now)
        {
            HrTimer timer = _heap[0];
            Remove(timer);
            _running = timer;
            _runningThread = Environment.CurrentManagedThreadId;
            _restart = true;
            Monitor.Exit(_gate);
            bool again;
            try
            {
                again = timer.Run();
            }
            finally
            {
                Monitor.Enter(_gate);
            }

            if (again && timer.HeapIndex < 0)
            {
                if (_restart) Insert(timer);
                else timer.RestartRefused = true;
            }

            _running = null;
            Monitor.PulseAll(_gate);
        }
    }

    // ---- a binary heap by Expires; the gate is held ----

    private void Insert(HrTimer timer)
    {
        if (_count == _heap.Length) Array.Resize(ref _heap, _count * 2);
        Place(timer, _count++);
        Up(timer.HeapIndex);
    }

    private bool Remove(HrTimer timer)
    {
        int i = timer.HeapIndex;
        if (i < 0) return false;
        timer.HeapIndex = -1;
        HrTimer last = _heap[--_count];
        _heap[_count] = null!;
        if (last == timer) return true;
        Place(last, i);
        Up(i);
        Down(last.HeapIndex);
        return true;
    }

    private void Place(HrTimer timer, int i)
    {
        _heap[i] = timer;
        timer.HeapIndex = i;
    }

    private void Up(int i)
    {
        HrTimer timer = _heap[i];
        for (; i > 0 && _heap[(i - 1) / 2].Expires > timer.Expires; i = (i - 1) / 2) Place(_heap[(i - 1) / 2], i);
        Place(timer, i);
    }

    private void Down(int i)
    {
        HrTimer timer = _heap[i];
        for (int child; (child = (2 * i) + 1) < _count; i = child)
        {
            if (child + 1 < _count && _heap[child + 1].Expires < _heap[child].Expires) child++;
            if (_heap[child].Expires >= timer.Expires) break;
            Place(_heap[child], i);
        }

        Place(timer, i);
    }
}
