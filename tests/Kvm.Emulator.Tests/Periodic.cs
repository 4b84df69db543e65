namespace Kvm.Emulator.Tests;

/// <summary>Does something to a machine from another thread, once or again and again. Disposal waits for a call in flight, so the machine may be disposed after it.</summary>
internal sealed class Periodic : IDisposable
{
    private readonly Timer timer;

    public Periodic(Action action, int milliseconds, bool once = false)
        => timer = new Timer(_ => action(), null, milliseconds, once ? Timeout.Infinite : milliseconds);

    public void Dispose()
    {
        using var done = new ManualResetEvent(false);
        if (timer.Dispose(done))
            done.WaitOne();
    }
}
