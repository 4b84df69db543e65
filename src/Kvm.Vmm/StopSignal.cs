namespace Kvm.Vmm;

/// <summary>Where devices and users ask for the guest to stop. The first request counts.</summary>
public sealed class StopSignal
{
    private GuestStop? _stop;

    /// <summary>Called once, with the first request: wakes vCPUs that are in the guest.</summary>
    public event Action? Requested;

    /// <summary>The first request; null while the guest may run.</summary>
    public GuestStop? Stop => Volatile.Read(ref _stop);

    /// <summary>Asks the guest to stop, from any thread. Only the first request counts.</summary>
    public void Request(GuestStop stop)
    {
        if (Interlocked.CompareExchange(ref _stop, stop, null) is null) Requested?.Invoke();
    }

    /// <summary>Asks the guest to stop, from any thread. Only the first request counts.</summary>
    public void Request(GuestStopReason reason, long code, string text) => Request(new GuestStop(reason, code, text));
}
