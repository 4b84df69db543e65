namespace Kvm.Emulator;

/// <summary>Bits of <see cref="SegmentCache.AccessRights"/> and segment types.</summary>
public static class SegmentRights
{
    public const uint Accessed = 1, Writable = 2, Readable = 2, Conforming = 4, ExpandDown = 4, Code = 8, S = 0x10, DplMask = 0x60, P = 0x80, Avl = 0x1000, L = 0x2000, DB = 0x4000, G = 0x8000, Unusable = 0x10000;

    /// <summary>System-segment and gate types.</summary>
    public const int TssAvailable16 = 1, Ldt = 2, TssBusy16 = 3, CallGate16 = 4, TaskGate = 5, InterruptGate16 = 6, TrapGate16 = 7,
        TssAvailable32 = 9, TssBusy32 = 11, CallGate32 = 12, InterruptGate32 = 14, TrapGate32 = 15;
}
