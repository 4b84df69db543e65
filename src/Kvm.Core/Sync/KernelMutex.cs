namespace Kvm.Core;

/// <summary>struct mutex: a contended lock leaves the CPU and sleeps.</summary>
public sealed class KernelMutex
{
    private readonly Queue<HostTask> _waiters = new();
    private HostTask? _owner;
    private int _waiterCount;

    /// <summary>mutex_is_locked.</summary>
    public bool IsLocked => Volatile.Read(ref _owner) is not null;

    /// <summary>True when the calling thread holds it.</summary>
    public bool HeldByCurrent => Volatile.Read(ref _owner) == HostTask.Current;

    /// <summary>Threads that sleep for it.</summary>
    public int Waiters => Volatile.Read(ref _waiterCount);

    /// <summary>mutex_lock.</summary>
    public void Lock() => Acquire(TaskState.Uninterruptible);

    /// <summary>mutex_lock_killable: false (-EINTR) when SIGKILL came while waiting.</summary>
    public bool LockKillable() => Acquire(TaskState.Killable);

    /// <summary>mutex_trylock.</summary>
    public bool TryLock() => Interlocked.CompareExchange(ref _owner, HostTask.Current, null) is null;

    /// <summary>mutex_unlock.</summary>
    public void Unlock()
    {
        if (_owner != HostTask.Current) throw new InvalidOperationException("BUG: mutex not held by the caller.");
        Interlocked.Exchange(ref _owner, null);
        if (Volatile.Read(ref _waiterCount) != 0) WakeOne();
    }

    /// <summary>Holds the mutex until disposed.</summary>
    public Scope Enter()
    {
        Lock();
        return new Scope(this);
    }

    /// <summary>Releases on dispose.</summary>
    public readonly ref struct Scope(KernelMutex mutex)
    {
        public void Dispose() => mutex.Unlock();
    }

    private bool Acquire(TaskState state)
    {
        HostTask task = HostTask.Current;
        if (Interlocked.CompareExchange(ref _owner, task, null) is null) return true;
        if (Volatile.Read(ref _owner) == task) throw new InvalidOperationException("BUG: mutex recursion.");
        task.AssertMaySleep();
        Interlocked.Increment(ref _waiterCount);
        try
        {
            for (; ; )
            {
                lock (_waiters)
                {
                    if (!_waiters.Contains(task)) _waiters.Enqueue(task);
                }

                // The state is set before the last try: an unlock after that try finds a sleeper to wake.
                task.SetState(state);
                if (Interlocked.CompareExchange(ref _owner, task, null) is null)
                {
                    task.SetState(TaskState.Running);
                    return true;
                }

                if (state == TaskState.Killable && task.FatalSignalPending)
                {
                    task.SetState(TaskState.Running);
                    return false;
                }

                task.Schedule();
            }
        }
        finally
        {
            Interlocked.Decrement(ref _waiterCount);
            Forget(task);
            // A wake-up that was meant for us must not be lost on the others.
            if (Volatile.Read(ref _owner) is null && Volatile.Read(ref _waiterCount) != 0) WakeOne();
        }
    }

    private void Forget(HostTask task)
    {
        lock (_waiters)
        {
            int n = _waiters.Count;
            for (int i = 0; i < n; i++)
            {
                HostTask t = _waiters.Dequeue();
                if (t != task) _waiters.Enqueue(t);
            }
        }
    }

    private void WakeOne()
    {
        lock (_waiters)
        {
            while (_waiters.TryDequeue(out HostTask? t))
                if (t.WakeUp()) return;
        }
    }
}
