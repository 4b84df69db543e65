namespace Kvm.Core;

/// <summary>raw_spinlock_t: busy-waits, services the CPU's interrupts while it waits, forbids sleeping while held.</summary>
public sealed class RawSpinLock
{
    private HostTask? _owner;

    /// <summary>True when the calling thread holds it.</summary>
    public bool HeldByCurrent => Volatile.Read(ref _owner) == HostTask.Current;

    /// <summary>raw_spin_lock.</summary>
    public void Lock()
    {
        HostTask task = HostTask.Current;
        if (Volatile.Read(ref _owner) == task) throw new InvalidOperationException("BUG: spinlock recursion.");
        task.PreemptCount++;
        if (Interlocked.CompareExchange(ref _owner, task, null) is null) return;
        var spin = new SpinWait();
        do
        {
            // Interrupts are on while we wait: the holder may need this CPU to run a function.
            task.Cpu?.ServiceInterrupts();
            spin.SpinOnce(sleep1Threshold: 200);
        }
        while (Interlocked.CompareExchange(ref _owner, task, null) is not null);
    }

    /// <summary>raw_spin_unlock.</summary>
    public void Unlock()
    {
        HostTask task = HostTask.Current;
        if (_owner != task) throw new InvalidOperationException("BUG: spinlock not held by the caller.");
        Volatile.Write(ref _owner, null);
        task.LeaveAtomic();
    }

    /// <summary>Holds the lock until disposed.</summary>
    public Scope Enter()
    {
        Lock();
        return new Scope(this);
    }

    /// <summary>Releases on dispose.</summary>
    public readonly ref struct Scope(RawSpinLock spin)
    {
        public void Dispose() => spin.Unlock();
    }
}
