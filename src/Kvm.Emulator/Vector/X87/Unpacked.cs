using System.Numerics;
using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Vector.X87;

/// <summary>What a bit pattern stands for.</summary>
internal enum FloatKind : byte
{
    Zero,
    Normal,
    /// <summary>Denormals, and pseudo-denormals (exponent zero with the integer bit set), which processors read but never write.</summary>
    Denormal,
    Infinity,
    QuietNaN,
    SignalingNaN,
    /// <summary>Pseudo-NaNs, pseudo-infinities and unnormals: invalid operands since the 387.</summary>
    Unsupported,
}

/// <summary>An operand taken apart: every source format ends here, so arithmetic is written once.</summary>
/// <remarks>
/// Of numbers, <see cref="Significand"/> has bit 63 set and <see cref="Exponent"/> is biased as in <see cref="Float80"/> (zero or less where only a denormal can hold it);
/// of NaNs, it is the fraction as the register would hold it.
/// </remarks>
internal readonly struct Unpacked(FloatKind kind, bool negative, int exponent, ulong significand)
{
    internal readonly ulong Significand = significand;
    internal readonly int Exponent = exponent;
    internal readonly FloatKind Kind = kind;
    internal readonly bool Negative = negative;

    internal bool IsNaN => Kind is FloatKind.QuietNaN or FloatKind.SignalingNaN;

    internal bool IsFinite => Kind <= FloatKind.Denormal;

    /// <summary>Finite and not zero.</summary>
    internal bool IsNumber => Kind is FloatKind.Normal or FloatKind.Denormal;

    internal static Unpacked Of(in Float80 value)
    {
        int exponent = value.Exponent;
        ulong significand = value.Significand;
        bool negative = value.Negative;
        if (exponent == 0)
            return significand == 0 ? new(FloatKind.Zero, negative, 0, 0) : Denormal(negative, 1, significand);
        if ((long)significand >= 0)
            return new(FloatKind.Unsupported, negative, exponent, significand);
        if (exponent < Float80.MaxExponent)
            return new(FloatKind.Normal, negative, exponent, significand);
        return new(Special(significand), negative, exponent, significand);
    }

    internal static Unpacked OfSingle(uint bits)
    {
        bool negative = bits >> 31 != 0;
        int exponent = (int)(bits >> 23 & 0xff);
        ulong fraction = (ulong)(bits & 0x7fffff) << 40;
        return exponent switch
        {
            0 => fraction == 0 ? new(FloatKind.Zero, negative, 0, 0) : Denormal(negative, Float80.Bias - 126, fraction),
            0xff => new(Special(fraction | Float80.IntegerBit), negative, Float80.MaxExponent, fraction | Float80.IntegerBit),
            _ => new(FloatKind.Normal, negative, exponent + Float80.Bias - 127, fraction | Float80.IntegerBit),
        };
    }

    internal static Unpacked OfDouble(ulong bits)
    {
        bool negative = bits >> 63 != 0;
        int exponent = (int)(bits >> 52 & 0x7ff);
        ulong fraction = bits << 12 >> 1;
        return exponent switch
        {
            0 => fraction == 0 ? new(FloatKind.Zero, negative, 0, 0) : Denormal(negative, Float80.Bias - 1022, fraction),
            0x7ff => new(Special(fraction | Float80.IntegerBit), negative, Float80.MaxExponent, fraction | Float80.IntegerBit),
            _ => new(FloatKind.Normal, negative, exponent + Float80.Bias - 1023, fraction | Float80.IntegerBit),
        };
    }

    internal static Unpacked OfInteger(long value)
    {
        if (value == 0)
            return new(FloatKind.Zero, false, 0, 0);
        ulong magnitude = value < 0 ? (ulong)-value : (ulong)value;
        int shift = BitOperations.LeadingZeroCount(magnitude);
        return new(FloatKind.Normal, value < 0, Float80.Bias + 63 - shift, magnitude << shift);
    }

    /// <summary>The register format of a value that it can hold without rounding.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal Float80 Pack() => new(Negative, Exponent, Significand);

    /// <summary>Of a NaN: the quiet one with the same fraction.</summary>
    internal Float80 Quieted() => new(Negative, Float80.MaxExponent, Significand | Float80.QuietBit);

    internal Unpacked Negated => new(Kind, !Negative, Exponent, Significand);

    private static Unpacked Denormal(bool negative, int exponent, ulong significand)
    {
        int shift = BitOperations.LeadingZeroCount(significand);
        return new(FloatKind.Denormal, negative, exponent - shift, significand << shift);
    }

    private static FloatKind Special(ulong significand) =>
        significand << 1 == 0 ? FloatKind.Infinity : (significand & Float80.QuietBit) != 0 ? FloatKind.QuietNaN : FloatKind.SignalingNaN;
}
