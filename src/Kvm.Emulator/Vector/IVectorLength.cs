namespace Kvm.Emulator.Vector;

/// <summary>VEX.L as a type argument.</summary>
internal interface IVectorLength
{
    static abstract int Bytes { get; }
}

internal readonly struct Bits128 : IVectorLength
{
    public static int Bytes => 16;
}

internal readonly struct Bits256 : IVectorLength
{
    public static int Bytes => 32;
}
