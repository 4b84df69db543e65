using Kvm.Abi;
using Kvm.Client;
using Kvm.Client.Backends;
using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance;

/// <summary>KVM_RUN in a thread of its own.</summary>
internal sealed unsafe class RunThread
{
    private readonly IKvmBackend _kernel;
    private readonly Thread _thread;
    private long _id;

    public RunThread(IKvmBackend kernel, int fd, kvm_run* run)
    {
        _kernel = kernel;
        Run = run;
        using var started = new ManualResetEventSlim();
        _thread = new Thread(() =>
        {
            _id = kernel.CurrentThread();
            started.Set();
            Result = kernel.Ioctl(fd, KVM_RUN, 0);
        })
        { IsBackground = true };
        _thread.Start();
        started.Wait();
    }

    public kvm_run* Run { get; }

    public long Result { get; private set; }

    public bool Join(int milliseconds) => _thread.Join(milliseconds);

    /// <summary>A busy machine needs longer than the recorded one until the guest halts: gives it up to a second more to get there.</summary>
    public void AwaitSleep()
    {
        if (_kernel is not ModelBackend model || model.Process.FindTask((int)_id) is not { } task) return;
        for (int i = 0; i < 100 && task.State == TaskState.Running && !_thread.Join(10); i++)
        {
        }
    }

    public void Kick() => _kernel.Interrupt(_id);

    /// <summary>The scenario is over: the thread must not use its memory any longer.</summary>
    public void Abandon()
    {
        for (int i = 0; i < 50 && !_thread.Join(20); i++) Kick();
        if (_thread.IsAlive) throw new InvalidOperationException("a KVM_RUN cannot be interrupted");
    }
}
