namespace Kvm.Conformance.Tests.HardwareLog;

internal enum DifferenceKind
{
    /// <summary>Only in the recording.</summary>
    Missing,
    /// <summary>Only in the model.</summary>
    Extra,
    /// <summary>The same instruction with another value.</summary>
    Value,
}

/// <summary>One difference between the recording and the model.</summary>
internal sealed record HardwareDifference(DifferenceKind Kind, HardwareOp Op, HardwareOp? Model = null)
{
    public override string ToString() => Kind switch
    {
        DifferenceKind.Missing => $"missing {Op}",
        DifferenceKind.Extra => $"extra   {Op}",
        _ => $"value   {Op} but the model has {Model!.Value:x}{string.Concat(Model.Exit.Select(static e => $" {e:x}"))}",
    };
}
