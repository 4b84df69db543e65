namespace Kvm.Emulator.Vector.X87;

/// <summary>Register format to memory formats, and rounding to integers.</summary>
internal static class FloatConversions
{
    internal const uint IndefiniteSingle = 0xffc00000;
    internal const ulong IndefiniteDouble = 0xfff8000000000000;
    /// <summary>The packed BCD indefinite: sign and two leading digits; eight bytes below are 0xc000000000000000.</summary>
    internal const ushort IndefiniteBcdHigh = 0xffff;
    internal const ulong IndefiniteBcdLow = 0xc000000000000000;
    private const ulong bcdLimit = 1_000_000_000_000_000_000;

    internal static uint ToSingle(in Unpacked a, ref FloatContext c)
    {
        uint sign = a.Negative ? 0x80000000 : 0;
        Float80 rounded;
        switch (a.Kind)
        {
            case FloatKind.Zero:
                return sign;
            case FloatKind.Infinity:
                return sign | 0x7f800000;
            case FloatKind.Normal or FloatKind.Denormal:
                rounded = Rounder.Round(ref c, a.Negative, a.Exponent, new UInt128(a.Significand, 0), FloatFormat.Single);
                break;
            default:
                FloatArithmetic.PropagateNaN(a, ref c, out rounded);
                break;
        }
        sign = rounded.Negative ? 0x80000000 : 0;
        uint fraction = (uint)(rounded.Significand >> 40) & 0x7fffff;
        if (rounded.Exponent == Float80.MaxExponent)
            return sign | 0x7f800000 | fraction;
        return (long)rounded.Significand >= 0 ? sign | fraction : sign | (uint)(rounded.Exponent - Float80.Bias + 127) << 23 | fraction;
    }

    internal static ulong ToDouble(in Unpacked a, ref FloatContext c)
    {
        ulong sign = a.Negative ? 1UL << 63 : 0;
        Float80 rounded;
        switch (a.Kind)
        {
            case FloatKind.Zero:
                return sign;
            case FloatKind.Infinity:
                return sign | 0x7ffUL << 52;
            case FloatKind.Normal or FloatKind.Denormal:
                rounded = Rounder.Round(ref c, a.Negative, a.Exponent, new UInt128(a.Significand, 0), FloatFormat.Double);
                break;
            default:
                FloatArithmetic.PropagateNaN(a, ref c, out rounded);
                break;
        }
        sign = rounded.Negative ? 1UL << 63 : 0;
        ulong fraction = rounded.Significand << 1 >> 12;
        if (rounded.Exponent == Float80.MaxExponent)
            return sign | 0x7ffUL << 52 | fraction;
        return (long)rounded.Significand >= 0 ? sign | fraction : sign | (ulong)(rounded.Exponent - Float80.Bias + 1023) << 52 | fraction;
    }

    /// <summary>The magnitude of a finite number, rounded to an integer; false: it is 2^64 or more (or there is none), an invalid operand.</summary>
    internal static bool Magnitude(in Unpacked a, RoundingMode mode, out ulong magnitude, out bool inexact, out bool up)
    {
        magnitude = 0;
        inexact = up = false;
        if (a.Kind == FloatKind.Zero)
            return true;
        if (!a.IsFinite || a.Exponent > Float80.Bias + 63)
            return false;
        // At 2^63 and above there is no fraction left, so rounding does not carry out.
        UInt128 value = Rounder.ShiftRightSticky(new UInt128(a.Significand, 0), Float80.Bias + 63 - a.Exponent);
        magnitude = Rounder.Significand(value, 64, mode, a.Negative, out inexact, out up);
        return true;
    }

    /// <summary>A signed integer of <paramref name="bits"/> bits; the integer indefinite (the most negative one) with an invalid operation.</summary>
    internal static long ToInteger(in Unpacked a, int bits, RoundingMode mode, ref FloatContext c)
    {
        ulong limit = 1UL << (bits - 1);
        if (!Magnitude(a, mode, out ulong magnitude, out bool inexact, out bool up) || magnitude > (a.Negative ? limit : limit - 1))
        {
            c.Raised |= X87Exceptions.Invalid;
            return (long)limit;
        }
        if (inexact)
            c.Raised |= X87Exceptions.Precision;
        c.RoundedUp = up;
        return a.Negative ? -(long)magnitude : (long)magnitude;
    }

    /// <summary>Eighteen decimal digits and a sign: eight bytes, and the two above them.</summary>
    internal static (ulong Low, ushort High) ToBcd(in Unpacked a, ref FloatContext c)
    {
        if (!Magnitude(a, c.Rounding, out ulong magnitude, out bool inexact, out bool up) || magnitude >= bcdLimit)
        {
            c.Raised |= X87Exceptions.Invalid;
            return (IndefiniteBcdLow, IndefiniteBcdHigh);
        }
        if (inexact)
            c.Raised |= X87Exceptions.Precision;
        c.RoundedUp = up;
        ulong low = 0, high = a.Negative ? 0x8000UL : 0;
        for (int digit = 0; digit < 18; digit++)
        {
            (magnitude, ulong d) = Math.DivRem(magnitude, 10);
            if (digit < 16)
                low |= d << (4 * digit);
            else
                high |= d << (4 * (digit - 16));
        }
        return (low, (ushort)high);
    }

    /// <summary>Bits 14:8 of the upper bytes are ignored. Digits above 9, which the manual leaves undefined, count with their weight.</summary>
    internal static Float80 OfBcd(ulong low, ushort high)
    {
        ulong value = (uint)(high >> 4 & 0xf) * 10u + (high & 0xfu);
        for (int digit = 15; digit >= 0; digit--)
            value = value * 10 + (low >> (4 * digit) & 0xf);
        bool negative = (high & 0x8000) != 0;
        if (value == 0)
            return Float80.Zero(negative);
        int shift = System.Numerics.BitOperations.LeadingZeroCount(value);
        return new Float80(negative, Float80.Bias + 63 - shift, value << shift);
    }

    /// <summary>The integer in register format; the sign of a zero result is the operand's.</summary>
    internal static Float80 ToIntegral(in Unpacked a, ref FloatContext c)
    {
        if (a.Kind is FloatKind.Zero or FloatKind.Infinity)
            return a.Pack();
        if (FloatArithmetic.PropagateNaN(a, ref c, out Float80 nan))
            return nan;
        c.NoteDenormal(a);
        if (a.Exponent >= Float80.Bias + 63)
            return a.Pack();
        Magnitude(a, c.Rounding, out ulong magnitude, out bool inexact, out bool up);
        if (inexact)
            c.Raised |= X87Exceptions.Precision;
        c.RoundedUp = up;
        if (magnitude == 0)
            return Float80.Zero(a.Negative);
        int shift = System.Numerics.BitOperations.LeadingZeroCount(magnitude);
        return new Float80(a.Negative, Float80.Bias + 63 - shift, magnitude << shift);
    }
}
