using System.Numerics;
using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Vector.X87;

/// <summary>The range and precision of a destination; exponents are biased as in <see cref="Float80"/>.</summary>
internal readonly struct FloatFormat(int precision, int minExponent, int maxExponent, bool register)
{
    internal readonly int Precision = precision, MinExponent = minExponent, MaxExponent = maxExponent;
    /// <summary>Unmasked overflow and underflow give a result with a wrapped exponent; memory destinations get none.</summary>
    internal readonly bool Register = register;

    internal static FloatFormat Single => new(24, Float80.Bias - 126, Float80.Bias + 127, register: false);
    internal static FloatFormat Double => new(53, Float80.Bias - 1022, Float80.Bias + 1023, register: false);

    /// <summary>A register whose significand precision control may shorten; its exponent keeps its range.</summary>
    internal static FloatFormat Extended(int precision) => new(precision, 1, Float80.MaxExponent - 1, register: true);
}

/// <summary>Rounds exact results to a destination format: precision, overflow, underflow, with masked and unmasked responses. Everything that rounds comes here.</summary>
/// <remarks>
/// SDM vol 1, "Rounding", "Numeric Overflow Exception (#O)", "Numeric Underflow Exception (#U)", "Inexact-Result (Precision) Exception (#P)".
/// Tininess is detected after rounding, as if the exponent had no limit.
/// </remarks>
internal static class Rounder
{
    /// <summary>Added to the exponent of an unmasked underflow's result, subtracted from an overflow's.</summary>
    private const int wrap = 24576;

    /// <summary>Shifts right and leaves a one in bit 0 if a one was shifted out.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static UInt128 ShiftRightSticky(UInt128 value, int count)
    {
        if (count == 0)
            return value;
        if (count >= 128)
            return value == UInt128.Zero ? UInt128.Zero : UInt128.One;
        UInt128 shifted = value >> count;
        return shifted << count == value ? shifted : shifted | 1;
    }

    /// <summary>
    /// The 64-bit significand nearest to <paramref name="value"/> as the mode says, with <paramref name="precision"/> leading bits in use;
    /// zero when it carried out of bit 63.
    /// </summary>
    internal static ulong Significand(UInt128 value, int precision, RoundingMode mode, bool negative, out bool inexact, out bool up)
    {
        ulong high = (ulong)(value >> 64), low = (ulong)value;
        ulong unit = 1UL << (64 - precision), rest = low, half = 1UL << 63;
        if (precision < 64)
        {
            rest = (high & (unit - 1)) | (low != 0 ? 1UL : 0);
            half = unit >> 1;
            high &= ~(unit - 1);
        }
        inexact = rest != 0;
        up = mode switch
        {
            RoundingMode.Nearest => rest > half || (rest == half && (high & unit) != 0),
            RoundingMode.Down => negative && inexact,
            RoundingMode.Up => !negative && inexact,
            _ => false,
        };
        return up ? high + unit : high;
    }

    /// <summary>Rounds to 64 bits or as precision control says (<paramref name="precision"/>), in the register format.</summary>
    internal static Float80 Extended(ref FloatContext c, bool negative, int exponent, UInt128 significand, int precision = 64) =>
        Round(ref c, negative, exponent, significand, FloatFormat.Extended(precision));

    /// <summary>
    /// Rounds <paramref name="significand"/> (bit 127 set unless zero, bit 0 sticky) × 2^<paramref name="exponent"/>; the result is a value of the format, still as a
    /// <see cref="Float80"/>: a denormal one has the exponent of the smallest normal number, or zero in the register format, and no integer bit.
    /// </summary>
    internal static Float80 Round(ref FloatContext c, bool negative, int exponent, UInt128 significand, in FloatFormat format)
    {
        ulong rounded = Significand(significand, format.Precision, c.Rounding, negative, out bool inexact, out bool up);
        int roundedExponent = exponent;
        if (rounded == 0)
        {
            rounded = Float80.IntegerBit;
            roundedExponent++;
        }
        if (roundedExponent > format.MaxExponent)
            return Overflow(ref c, negative, roundedExponent, rounded, inexact, up, format);
        if (exponent < format.MinExponent)
            return Tiny(ref c, negative, exponent, significand, rounded, roundedExponent, inexact, up, format);
        Note(ref c, inexact, up);
        return new Float80(negative, roundedExponent, rounded);
    }

    private static void Note(ref FloatContext c, bool inexact, bool up)
    {
        if (inexact)
            c.Raised |= X87Exceptions.Precision;
        c.RoundedUp = up;
    }

    private static Float80 Overflow(ref FloatContext c, bool negative, int exponent, ulong rounded, bool inexact, bool up, in FloatFormat format)
    {
        c.Raised |= X87Exceptions.Overflow;
        if (!c.Masked(X87Exceptions.Overflow))
        {
            if (!format.Register)
                return default;
            exponent -= wrap;
            bool beyond = exponent > format.MaxExponent;
            Note(ref c, inexact || beyond, up || beyond);
            return beyond ? Float80.Infinity(negative) : new Float80(negative, exponent, rounded);
        }
        c.Raised |= X87Exceptions.Precision;
        bool infinite = c.Rounding switch { RoundingMode.Nearest => true, RoundingMode.Down => negative, RoundingMode.Up => !negative, _ => false };
        c.RoundedUp = infinite;
        return infinite ? Float80.Infinity(negative) : new Float80(negative, format.MaxExponent, ulong.MaxValue << (64 - format.Precision));
    }

    /// <summary>The exponent is too small before rounding. <paramref name="normal"/> is the significand that an unlimited exponent would give.</summary>
    private static Float80 Tiny(ref FloatContext c, bool negative, int exponent, UInt128 significand, ulong normal, int normalExponent, bool inexact, bool up, in FloatFormat format)
    {
        bool tiny = normalExponent < format.MinExponent;
        if (tiny && !c.Masked(X87Exceptions.Underflow))
        {
            c.Raised |= X87Exceptions.Underflow;
            if (!format.Register)
                return default;
            normalExponent += wrap;
            bool beyond = normalExponent <= 0;
            Note(ref c, inexact || beyond, up && !beyond);
            return beyond ? Float80.Zero(negative) : new Float80(negative, normalExponent, normal);
        }
        UInt128 shifted = ShiftRightSticky(significand, format.MinExponent - exponent);
        ulong rounded = Significand(shifted, format.Precision, c.Rounding, negative, out inexact, out up);
        if (tiny && inexact)
            c.Raised |= X87Exceptions.Underflow;
        Note(ref c, inexact, up);
        int smallest = format.Register && (long)rounded >= 0 ? 0 : format.MinExponent;
        return new Float80(negative, smallest, rounded);
    }

    /// <summary>Shifts a nonzero 128-bit value up to bit 127 and adjusts the exponent of that bit.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static UInt128 Normalize(UInt128 value, ref int exponent)
    {
        ulong high = (ulong)(value >> 64);
        int shift = high != 0 ? BitOperations.LeadingZeroCount(high) : 64 + BitOperations.LeadingZeroCount((ulong)value);
        exponent -= shift;
        return value << shift;
    }
}
