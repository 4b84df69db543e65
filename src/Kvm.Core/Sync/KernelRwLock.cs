namespace Kvm.Core;

/// <summary>rwlock_t: many readers or one writer, busy-waiting; interrupts are serviced while waiting; no sleeping while held.</summary>
public sealed class KernelRwLock
{
    private const int Writer = 1 << 30;
    private int _state;
    private int _writersWaiting;

    /// <summary>rwlock_needbreak: someone waits for the lock.</summary>
    public bool NeedBreak => Volatile.Read(ref _writersWaiting) > 0;

    /// <summary>True while a writer holds it.</summary>
    public bool WriteLocked => Volatile.Read(ref _state) >= Writer;

    /// <summary>read_lock.</summary>
    public void ReadLock()
    {
        HostTask task = HostTask.Current;
        task.PreemptCount++;
        var spin = new SpinWait();
        for (; ; )
        {
            int s = Volatile.Read(ref _state);
            if (s < Writer && Volatile.Read(ref _writersWaiting) == 0 && Interlocked.CompareExchange(ref _state, s + 1, s) == s) return;
            task.Cpu?.ServiceInterrupts();
            spin.SpinOnce(sleep1Threshold: 200);
        }
    }

    /// <summary>read_unlock.</summary>
    public void ReadUnlock()
    {
        Interlocked.Decrement(ref _state);
        HostTask.Current.LeaveAtomic();
    }

    /// <summary>write_lock.</summary>
    public void WriteLock()
    {
        HostTask task = HostTask.Current;
        task.PreemptCount++;
        if (Interlocked.CompareExchange(ref _state, Writer, 0) == 0) return;
        Interlocked.Increment(ref _writersWaiting);
        var spin = new SpinWait();
        while (Interlocked.CompareExchange(ref _state, Writer, 0) != 0)
        {
            task.Cpu?.ServiceInterrupts();
            spin.SpinOnce(sleep1Threshold: 200);
        }

        Interlocked.Decrement(ref _writersWaiting);
    }

    /// <summary>write_unlock.</summary>
    public void WriteUnlock()
    {
        Interlocked.Add(ref _state, -Writer);
        HostTask.Current.LeaveAtomic();
    }
}
