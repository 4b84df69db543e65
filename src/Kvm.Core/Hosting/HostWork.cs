namespace Kvm.Core;

/// <summary>struct work_struct, struct kthread_work: a function that a <see cref="HostWorker"/> runs later, once for any number of requests before it begins.</summary>
public sealed class HostWork(Action function)
{
    internal bool Pending { get; set; }

    internal void Run() => function();
}
