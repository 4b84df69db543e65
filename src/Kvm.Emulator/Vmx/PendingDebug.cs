namespace Kvm.Emulator.Vmx;

/// <summary>Bits of the guest pending-debug-exceptions field beyond B3–B0 (SDM vol 3C, "Guest Non-Register State").</summary>
public static class PendingDebug
{
    public const ulong EnabledBreakpoint = 1UL << 12, SingleStep = 1UL << 14, Rtm = 1UL << 16;
}
