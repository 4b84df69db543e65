using Kvm.Abi;
using Kvm.Client;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance;

/// <summary>KVM_RUN in a thread of its own.</summary>
internal sealed unsafe class RunThread
{
    private readonly IKvmBackend _kernel;
    private readonly Thread _thread;
    private OsThread _os = null!; // and _id: set before started
    private long _id;

    public RunThread(IKvmBackend kernel, int fd, kvm_run* run)
    {
        _kernel = kernel;
        Run = run;
        using var started = new ManualResetEventSlim();
        _thread = new Thread(() =>
        {
            _id = kernel.CurrentThread();
            _os = OsThread.Current();
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

    /// <summary>A busy machine needs longer than the recorded one until the guest waits for something, or has run so long: gives it ten seconds to get there.</summary>
    /// <returns>KVM_RUN has returned.</returns>
    public bool AwaitProgress(TimeSpan time)
    {
        for (int i = 0; i < 1000 && !_os.HasHad(time); i++)
        {
            if (_thread.Join(10)) return true;
        }

        return !_thread.IsAlive;
    }

    public void Kick() => _kernel.Interrupt(_id);

    /// <summary>The scenario is over: the thread must not use its memory any longer.</summary>
    public void Abandon()
    {
        for (int i = 0; i < 50 && !_thread.Join(20); i++) Kick();
        if (_thread.IsAlive) throw new InvalidOperationException("a KVM_RUN cannot be interrupted");
    }
}
