namespace Kvm.Core;

/// <summary>wait_queue_head_t: any number of tasks wait for a condition.</summary>
public sealed class WaitQueue
{
    private readonly object _gate = new();
    private HostTask[] _tasks = []; // replaced as a whole

    /// <summary>waitqueue_active.</summary>
    public bool Active => Volatile.Read(ref _tasks).Length > 0;

    /// <summary>wake_up_all: returns how many tasks it woke. Takes no lock.</summary>
    public int WakeUpAll()
    {
        // The condition before the queue is looked at: a waiter that is not seen here is in the queue before it looks at the condition.
        Interlocked.MemoryBarrier();
        int woken = 0;
        foreach (HostTask task in Volatile.Read(ref _tasks))
            if (task.WakeUp()) woken++;
        return woken;
    }

    /// <summary>wait_event (or wait_event_interruptible: false when a signal came first).</summary>
    public bool WaitEvent(Func<bool> condition, bool interruptible = false)
    {
        if (condition()) return true;
        HostTask task = HostTask.Current;
        lock (_gate) Volatile.Write(ref _tasks, [.. _tasks, task]);
        try
        {
            for (; ; )
            {
                task.SetState(interruptible ? TaskState.Interruptible : TaskState.Uninterruptible);
                if (condition()) return true;
                if (interruptible && task.SignalPending) return false;
                task.Schedule();
            }
        }
        finally
        {
            task.SetState(TaskState.Running);
            lock (_gate) Volatile.Write(ref _tasks, Without(_tasks, task));
        }
    }

    /// <summary>One entry of the task less.</summary>
    private static HostTask[] Without(HostTask[] tasks, HostTask task)
    {
        int at = Array.IndexOf(tasks, task);
        return [.. tasks.AsSpan(0, at), .. tasks.AsSpan(at + 1)];
    }
}
