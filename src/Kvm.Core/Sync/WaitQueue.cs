namespace Kvm.Core;

/// <summary>wait_queue_head_t: any number of tasks wait for a condition.</summary>
public sealed class WaitQueue
{
    private readonly List<HostTask> _tasks = [];

    /// <summary>waitqueue_active.</summary>
    public bool Active
    {
        get { lock (_tasks) return _tasks.Count > 0; }
    }

    /// <summary>wake_up_all: returns how many tasks it woke.</summary>
    public int WakeUpAll()
    {
        Interlocked.MemoryBarrier();
        HostTask[] tasks;
        lock (_tasks)
        {
            if (_tasks.Count == 0) return 0;
            tasks = [.. _tasks];
        }

        return tasks.Count(t => t.WakeUp());
    }

    /// <summary>wait_event (or wait_event_interruptible: false when a signal came first).</summary>
    public bool WaitEvent(Func<bool> condition, bool interruptible = false)
    {
        if (condition()) return true;
        HostTask task = HostTask.Current;
        lock (_tasks) _tasks.Add(task);
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
            lock (_tasks) _tasks.Remove(task);
        }
    }
}
