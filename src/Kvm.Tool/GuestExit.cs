using Kvm.Vmm;

namespace Kvm.Tool;

/// <summary>A guest's end as an exit code.</summary>
internal static class GuestExit
{
    public static int Code(GuestStop stop) => stop.Reason switch
    {
        GuestStopReason.Halted or GuestStopReason.PowerOff => ExitCode.Success,
        GuestStopReason.Reset => ExitCode.Reset,
        GuestStopReason.DebugExit => (int)(stop.Code & 0xff),
        GuestStopReason.Interrupted => ExitCode.TimedOut,
        GuestStopReason.HostFailed => ExitCode.BadFile,
        GuestStopReason.RunFailed => ExitCode.NoKvm,
        _ => ExitCode.GuestCrashed,
    };
}
