using System.Runtime.InteropServices;
using Kvm.Vmm;

namespace Kvm.Tool;

/// <summary>While it lives, Ctrl-C and SIGTERM stop the guest instead of the process.</summary>
internal sealed class CancelKey : IDisposable
{
    private readonly PosixSignalRegistration _interrupt, _terminate;

    public CancelKey(StopSignal stop)
    {
        _interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, OnSignal);
        _terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, OnSignal);

        void OnSignal(PosixSignalContext context)
        {
            context.Cancel = true;
            stop.Request(GuestStopReason.Interrupted, 0, "stopped by the user");
        }
    }

    public void Dispose()
    {
        _interrupt.Dispose();
        _terminate.Dispose();
    }
}
