namespace Kvm.Core;

/// <summary>struct preempt_ops: told when the task that registered it leaves a CPU or gets one again.</summary>
public interface IPreemptNotifier
{
    /// <summary>Where the task goes when it is preempted, if its scheduler forces moves; null: as the task itself would.</summary>
    ForcedMoves? Moves => null;

    /// <summary>The task runs on <paramref name="cpu"/> again.</summary>
    void SchedIn(HostCpu cpu);

    /// <summary>The task is about to leave its CPU. <paramref name="preempted"/>: it did not go to sleep by itself.</summary>
    void SchedOut(bool preempted);
}
