using Kvm.Vmm;

namespace Kvm.Tool;

/// <summary>While it lives, Ctrl-C stops the guest instead of the process.</summary>
internal sealed class CancelKey : IDisposable
{
    private readonly StopSignal _stop;

    public CancelKey(StopSignal stop)
    {
        _stop = stop;
        Console.CancelKeyPress += OnCancel;
    }

    public void Dispose() => Console.CancelKeyPress -= OnCancel;

    private void OnCancel(object? sender, ConsoleCancelEventArgs e)
    {
        e.Cancel = true;
        _stop.Request(GuestStopReason.Interrupted, 0, "stopped by the user");
    }
}
