namespace Kvm.Core;

/// <summary>What a task waits for (task->__state).</summary>
public enum TaskState
{
    Running,

    /// <summary>Woken by wake-ups and by unblocked signals.</summary>
    Interruptible,

    /// <summary>Woken by wake-ups only.</summary>
    Uninterruptible,

    /// <summary>Woken by wake-ups and by SIGKILL.</summary>
    Killable,
}
