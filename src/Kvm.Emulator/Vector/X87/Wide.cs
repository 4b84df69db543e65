using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Vector.X87;

/// <summary>A number with 128 significant bits and no limit to its exponent, for what lies between the operands and the one rounding of a transcendental function.</summary>
/// <remarks>Its value is ±<see cref="Significand"/> × 2^(<see cref="Exponent"/> - 127); the significand's bit 127 is set, except in zero.</remarks>
internal readonly struct Wide(bool negative, int exponent, UInt128 significand)
{
    internal readonly UInt128 Significand = significand;
    internal readonly int Exponent = exponent;
    internal readonly bool Negative = negative;

    internal bool IsZero => Significand == UInt128.Zero;

    internal static Wide Of(in Unpacked a) => new(a.Negative, a.Exponent - Float80.Bias, new UInt128(a.Significand, 0));

    internal static Wide Of(in WideConstant a) => new(false, a.Exponent - Float80.Bias, a.Significand);

    internal static Wide Of(int value) => Normal(value < 0, 127, (UInt128)Math.Abs((long)value));

    /// <summary><paramref name="value"/> × 2^(<paramref name="exponent"/> - 127), any value.</summary>
    internal static Wide Normal(bool negative, int exponent, UInt128 value)
    {
        if (value == UInt128.Zero)
            return default;
        value = Rounder.Normalize(value, ref exponent);
        return new(negative, exponent, value);
    }

    internal Wide WithSign(bool negative) => new(negative, Exponent, Significand);

    internal Wide Halved => new(Negative, Exponent - 1, Significand);

    /// <summary>The upper half of a 256-bit product.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static UInt128 MultiplyHigh(UInt128 a, UInt128 b)
    {
        ulong a1 = (ulong)(a >> 64), a0 = (ulong)a, b1 = (ulong)(b >> 64), b0 = (ulong)b;
        ulong low = Math.BigMul(a0, b0, out _);
        ulong m1 = Math.BigMul(a1, b0, out ulong m0), n1 = Math.BigMul(a0, b1, out ulong n0), high = Math.BigMul(a1, b1, out ulong middle);
        UInt128 carries = (UInt128)low + m0 + n0;
        return new UInt128(high, middle) + m1 + n1 + (ulong)(carries >> 64);
    }

    public static Wide operator *(in Wide a, in Wide b) =>
        Normal(a.Negative ^ b.Negative, a.Exponent + b.Exponent + 1, MultiplyHigh(a.Significand, b.Significand));

    public static Wide operator +(in Wide a, in Wide b)
    {
        if (a.IsZero)
            return b;
        if (b.IsZero)
            return a;
        bool swap = b.Exponent > a.Exponent || (b.Exponent == a.Exponent && b.Significand > a.Significand);
        Wide large = swap ? b : a, small = swap ? a : b;
        UInt128 x = large.Significand >> 1, y = Rounder.ShiftRightSticky(small.Significand >> 1, large.Exponent - small.Exponent);
        UInt128 sum = large.Negative == small.Negative ? x + y : x - y;
        return Normal(large.Negative, large.Exponent + 1, sum);
    }

    public static Wide operator -(in Wide a, in Wide b) => a + b.WithSign(!b.Negative);

    /// <summary>Good to about 125 bits.</summary>
    public static Wide operator /(in Wide a, in Wide b)
    {
        // 2^255 / b by the upper half of b, then one Newton step.
        ulong divisor = (ulong)(b.Significand >> 64);
        UInt128 reciprocal = divisor == Float80.IntegerBit
            ? UInt128.MaxValue
            : new UInt128(FloatArithmetic.Divide(Float80.IntegerBit, 0, divisor, out ulong rest), FloatArithmetic.Divide(rest, 0, divisor, out _));
        UInt128 one = UInt128.One << 127, product = MultiplyHigh(reciprocal, b.Significand);
        reciprocal = product > one
            ? reciprocal - (MultiplyHigh(product - one, reciprocal) << 1)
            : reciprocal + (MultiplyHigh(one - product, reciprocal) << 1);
        return Normal(a.Negative ^ b.Negative, a.Exponent - b.Exponent, MultiplyHigh(a.Significand, reciprocal));
    }

    /// <summary>The fraction × 2^128; the magnitude must be less than one.</summary>
    internal UInt128 Fraction => Exponent >= -1 ? Significand : Exponent < -128 ? UInt128.Zero : Significand >> (-1 - Exponent);
}
