namespace Kvm.Emulator.Vector.Float;

/// <summary>An IEEE 754 binary interchange format. Values travel as their bit patterns, in the low bits of a ulong.</summary>
internal interface IFloatFormat
{
    static abstract int ExponentBits { get; }
    /// <summary>Bits of the fraction, the hidden one not counted.</summary>
    static abstract int FractionBits { get; }
    /// <summary>MXCSR.FTZ applies to results of this format (not to halves: SDM vol 2, VCVTPS2PH).</summary>
    static abstract bool Flushes { get; }
}

/// <summary>A format that the host computes in: round to nearest, no exception reported.</summary>
internal interface INativeFormat : IFloatFormat
{
    static abstract ulong Add(ulong a, ulong b);
    static abstract ulong Subtract(ulong a, ulong b);
    static abstract ulong Multiply(ulong a, ulong b);
    static abstract ulong Divide(ulong a, ulong b);
    static abstract ulong SquareRoot(ulong a);
    /// <summary>a * b + c, rounded once.</summary>
    static abstract ulong MultiplyAdd(ulong a, ulong b, ulong c);
    static abstract unsafe ulong Load(byte* at);
    static abstract unsafe void Store(byte* at, ulong value);
}

internal readonly struct Binary16 : IFloatFormat
{
    public static int ExponentBits => 5;
    public static int FractionBits => 10;
    public static bool Flushes => false;
}

internal readonly struct Binary32 : INativeFormat
{
    public static int ExponentBits => 8;
    public static int FractionBits => 23;
    public static bool Flushes => true;
    public static ulong Add(ulong a, ulong b) => Bits(Value(a) + Value(b));
    public static ulong Subtract(ulong a, ulong b) => Bits(Value(a) - Value(b));
    public static ulong Multiply(ulong a, ulong b) => Bits(Value(a) * Value(b));
    public static ulong Divide(ulong a, ulong b) => Bits(Value(a) / Value(b));
    public static ulong SquareRoot(ulong a) => Bits(MathF.Sqrt(Value(a)));
    public static ulong MultiplyAdd(ulong a, ulong b, ulong c) => Bits(MathF.FusedMultiplyAdd(Value(a), Value(b), Value(c)));
    public static unsafe ulong Load(byte* at) => *(uint*)at;
    public static unsafe void Store(byte* at, ulong value) => *(uint*)at = (uint)value;

    private static float Value(ulong bits) => BitConverter.UInt32BitsToSingle((uint)bits);
    private static ulong Bits(float value) => BitConverter.SingleToUInt32Bits(value);
}

internal readonly struct Binary64 : INativeFormat
{
    public static int ExponentBits => 11;
    public static int FractionBits => 52;
    public static bool Flushes => true;
    public static ulong Add(ulong a, ulong b) => Bits(Value(a) + Value(b));
    public static ulong Subtract(ulong a, ulong b) => Bits(Value(a) - Value(b));
    public static ulong Multiply(ulong a, ulong b) => Bits(Value(a) * Value(b));
    public static ulong Divide(ulong a, ulong b) => Bits(Value(a) / Value(b));
    public static ulong SquareRoot(ulong a) => Bits(Math.Sqrt(Value(a)));
    public static ulong MultiplyAdd(ulong a, ulong b, ulong c) => Bits(Math.FusedMultiplyAdd(Value(a), Value(b), Value(c)));
    public static unsafe ulong Load(byte* at) => *(ulong*)at;
    public static unsafe void Store(byte* at, ulong value) => *(ulong*)at = value;

    private static double Value(ulong bits) => BitConverter.UInt64BitsToDouble(bits);
    private static ulong Bits(double value) => BitConverter.DoubleToUInt64Bits(value);
}
