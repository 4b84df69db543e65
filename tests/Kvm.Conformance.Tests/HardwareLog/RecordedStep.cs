namespace Kvm.Conformance.Tests.HardwareLog;

/// <summary>One step of a recorded session: an ioctl, or loading or unloading a module.</summary>
internal sealed record RecordedStep(int Number, string Name, List<HardwareOp> Operations)
{
    /// <summary>The errno that userspace got, from "=> ret R errno E"; null when the log does not say.</summary>
    public int? Errno { get; init; }
}
