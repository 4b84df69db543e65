namespace Kvm.Emulator;

/// <summary>A processor exception as a value: vector, optional error code, and for #PF the linear address (CR2), for #DB the DR6 bits.</summary>
public readonly record struct Fault(byte Vector, bool HasErrorCode = false, uint ErrorCode = 0, ulong Address = 0)
{
    public const byte DE = 0, DB = 1, NMI = 2, BP = 3, OF = 4, BR = 5, UD = 6, NM = 7, DF = 8, TS = 10, NP = 11, SS = 12, GP = 13, PF = 14, MF = 16, AC = 17, MC = 18, XM = 19, VE = 20, CP = 21;

    public static Fault Ud => new(UD);
    public static Fault Gp(uint errorCode = 0) => new(GP, true, errorCode);
    public static Fault Page(uint errorCode, ulong linear) => new(PF, true, errorCode, linear);
}
