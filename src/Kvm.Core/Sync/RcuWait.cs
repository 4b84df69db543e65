namespace Kvm.Core;

/// <summary>struct rcuwait: one task waits, anyone wakes it without a lock.</summary>
public sealed class RcuWait
{
    private HostTask? _task;

    /// <summary>rcuwait_active: someone waits here.</summary>
    public bool Active => Volatile.Read(ref _task) is not null;

    /// <summary>prepare_to_rcuwait: the calling task will wait here.</summary>
    public void Prepare() => Interlocked.Exchange(ref _task, HostTask.Current);

    /// <summary>finish_rcuwait.</summary>
    public void Finish()
    {
        Volatile.Write(ref _task, null);
        HostTask.Current.SetState(TaskState.Running);
    }

    /// <summary>rcuwait_wake_up: true when it woke a task that slept or was about to.</summary>
    public bool WakeUp()
    {
        // Orders the caller's store of the condition before the load of the task.
        Interlocked.MemoryBarrier();
        return Volatile.Read(ref _task)?.WakeUp() ?? false;
    }
}
