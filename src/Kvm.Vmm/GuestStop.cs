namespace Kvm.Vmm;

/// <summary>The end of a run: why, a number that belongs to the reason, and a sentence.</summary>
public sealed record GuestStop(GuestStopReason Reason, long Code, string Text)
{
    /// <summary>The sentence.</summary>
    public override string ToString() => Text;
}
