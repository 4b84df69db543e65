namespace Kvm.Emulator.Vector.Float;

/// <summary>How an instruction is encoded: how many bytes it works on, where its first source is, and what happens to the rest of the destination.</summary>
internal interface IFloatShape
{
    /// <summary>VEX: the first source is VEX.vvvv, and the bits of the YMM register behind the result are cleared. Legacy: the destination, and they stay.</summary>
    static abstract bool Vex { get; }
    static abstract int Bytes { get; }
}

internal readonly struct Legacy128 : IFloatShape
{
    public static bool Vex => false;
    public static int Bytes => 16;
}

internal readonly struct Vex128 : IFloatShape
{
    public static bool Vex => true;
    public static int Bytes => 16;
}

internal readonly struct Vex256 : IFloatShape
{
    public static bool Vex => true;
    public static int Bytes => 32;
}
