using System.Numerics;

namespace Kvm.Emulator.Vector.X87;

/// <summary>Addition, subtraction, multiplication, division, square root, comparison: exact first, then rounded once.</summary>
/// <remarks>SDM vol 1, "Invalid Arithmetic Operand Exception (#IA)", "Operating on NaNs"; IEEE 754-2008.</remarks>
internal static class FloatArithmetic
{
    internal static Float80 Add(in Unpacked a, in Unpacked b, ref FloatContext c)
    {
        if (!(a.IsFinite && b.IsFinite))
            return AddSpecial(a, b, ref c);
        c.NoteDenormal(a);
        c.NoteDenormal(b);
        if (a.Kind == FloatKind.Zero)
            return b.Kind == FloatKind.Zero ? Float80.Zero(a.Negative == b.Negative ? a.Negative : c.Rounding == RoundingMode.Down) : Rounded(b, ref c);
        if (b.Kind == FloatKind.Zero)
            return Rounded(a, ref c);
        bool swap = b.Exponent > a.Exponent || (b.Exponent == a.Exponent && b.Significand > a.Significand);
        ref readonly Unpacked large = ref swap ? ref b : ref a;
        ref readonly Unpacked small = ref swap ? ref a : ref b;
        // Two bits of headroom above, 62 below, the last of them sticky.
        UInt128 x = (UInt128)large.Significand << 62;
        UInt128 y = Rounder.ShiftRightSticky((UInt128)small.Significand << 62, large.Exponent - small.Exponent);
        UInt128 sum = large.Negative == small.Negative ? x + y : x - y;
        if (sum == UInt128.Zero)
            return Float80.Zero(c.Rounding == RoundingMode.Down);
        int exponent = large.Exponent + 2;
        sum = Rounder.Normalize(sum, ref exponent);
        return Rounder.Extended(ref c, large.Negative, exponent, sum, c.Precision);
    }

    private static Float80 AddSpecial(in Unpacked a, in Unpacked b, ref FloatContext c)
    {
        if (PropagateNaN(a, b, ref c, out Float80 nan))
            return nan;
        if (a.Kind == FloatKind.Infinity && b.Kind == FloatKind.Infinity)
            return a.Negative == b.Negative ? a.Pack() : c.Invalid();
        c.NoteDenormal(a);
        c.NoteDenormal(b);
        return Float80.Infinity(a.Kind == FloatKind.Infinity ? a.Negative : b.Negative);
    }

    internal static Float80 Subtract(in Unpacked a, in Unpacked b, ref FloatContext c)
    {
        if (PropagateNaN(a, b, ref c, out Float80 nan))
            return nan;
        return Add(a, b.Negated, ref c);
    }

    internal static Float80 Multiply(in Unpacked a, in Unpacked b, ref FloatContext c)
    {
        bool negative = a.Negative ^ b.Negative;
        if (!(a.IsNumber && b.IsNumber))
        {
            if (PropagateNaN(a, b, ref c, out Float80 nan))
                return nan;
            bool infinite = a.Kind == FloatKind.Infinity || b.Kind == FloatKind.Infinity, zero = a.Kind == FloatKind.Zero || b.Kind == FloatKind.Zero;
            if (infinite && zero)
                return c.Invalid();
            c.NoteDenormal(a);
            c.NoteDenormal(b);
            return infinite ? Float80.Infinity(negative) : Float80.Zero(negative);
        }
        c.NoteDenormal(a);
        c.NoteDenormal(b);
        ulong high = Math.BigMul(a.Significand, b.Significand, out ulong low);
        int exponent = a.Exponent + b.Exponent - Float80.Bias + 1;
        UInt128 product = Rounder.Normalize(new UInt128(high, low), ref exponent);
        return Rounder.Extended(ref c, negative, exponent, product, c.Precision);
    }

    internal static Float80 Divide(in Unpacked a, in Unpacked b, ref FloatContext c)
    {
        bool negative = a.Negative ^ b.Negative;
        if (!(a.IsNumber && b.IsNumber))
            return DivideSpecial(a, b, negative, ref c);
        c.NoteDenormal(a);
        c.NoteDenormal(b);
        return Rounder.Extended(ref c, negative, Quotient(a, b, out UInt128 quotient), quotient, c.Precision);
    }

    private static Float80 DivideSpecial(in Unpacked a, in Unpacked b, bool negative, ref FloatContext c)
    {
        if (PropagateNaN(a, b, ref c, out Float80 nan))
            return nan;
        if (a.Kind == b.Kind)
            return c.Invalid(); // 0 / 0 or infinity / infinity
        if (b.Kind == FloatKind.Zero && a.Kind != FloatKind.Infinity)
        {
            c.Raised |= X87Exceptions.ZeroDivide;
            return Float80.Infinity(negative);
        }
        c.NoteDenormal(a);
        c.NoteDenormal(b);
        return a.Kind == FloatKind.Infinity ? Float80.Infinity(negative) : b.Kind == FloatKind.Zero ? Float80.Infinity(negative) : Float80.Zero(negative);
    }

    /// <summary>The quotient of two numbers with bit 127 set and bit 0 sticky; returns its exponent.</summary>
    internal static int Quotient(in Unpacked a, in Unpacked b, out UInt128 quotient)
    {
        int exponent = a.Exponent - b.Exponent + Float80.Bias;
        ulong high = a.Significand, low = 0;
        if (high >= b.Significand)
        {
            low = high << 63;
            high >>= 1;
        }
        else
        {
            exponent--;
        }
        ulong digits = Divide(high, low, b.Significand, out ulong remainder);
        // Below the last digit: nothing, less than half, half, or more.
        ulong rest = remainder == 0 ? 0 : (remainder >= b.Significand - remainder ? Float80.IntegerBit : 0) | (remainder == b.Significand - remainder ? 0UL : 1);
        quotient = new UInt128(digits, rest);
        return exponent;
    }

    /// <summary>128 by 64 bits; <paramref name="high"/> is less than the divisor, whose bit 63 is set.</summary>
    internal static ulong Divide(ulong high, ulong low, ulong divisor, out ulong remainder)
    {
        ulong d1 = divisor >> 32, d0 = (uint)divisor;
        ulong q1 = Digit(high, low >> 32, divisor, d1, d0, out ulong rest);
        ulong q0 = Digit(rest, (uint)low, divisor, d1, d0, out remainder);
        return q1 << 32 | q0;
    }

    /// <summary>One 32-bit digit of a quotient (Knuth vol 2, algorithm D).</summary>
    private static ulong Digit(ulong high, ulong next, ulong divisor, ulong d1, ulong d0, out ulong rest)
    {
        ulong q = high / d1, r = high - q * d1;
        while (q > uint.MaxValue || q * d0 > (r << 32 | next))
        {
            q--;
            r += d1;
            if (r > uint.MaxValue)
                break;
        }
        rest = (high << 32 | next) - q * divisor;
        return q;
    }

    internal static Float80 SquareRoot(in Unpacked a, ref FloatContext c)
    {
        if (a.Kind == FloatKind.Zero)
            return a.Pack();
        if (PropagateNaN(a, ref c, out Float80 nan))
            return nan;
        if (a.Negative)
            return c.Invalid();
        if (a.Kind == FloatKind.Infinity)
            return a.Pack();
        c.NoteDenormal(a);
        int exponent = a.Exponent - Float80.Bias;
        // An even power of two in front of 1 … 4, as a 128-bit integer of at least 2^126.
        UInt128 radicand = (UInt128)a.Significand << ((exponent & 1) != 0 ? 64 : 63);
        ulong root = Root(radicand);
        UInt128 rest = radicand - (UInt128)root * root;
        ulong below = rest == UInt128.Zero ? 0 : rest > root ? Float80.IntegerBit | 1 : 1;
        return Rounder.Extended(ref c, false, (exponent >> 1) + Float80.Bias, new UInt128(root, below), c.Precision);
    }

    /// <summary>The integer part of the square root of a number of at least 2^126.</summary>
    private static ulong Root(UInt128 radicand)
    {
        double estimate = Math.Sqrt((double)(ulong)(radicand >> 64)) * 4294967296.0;
        ulong root = estimate >= 18446744073709549568.0 ? ulong.MaxValue : (ulong)estimate;
        // One Newton step from 52 good bits, then at most a unit or two.
        var error = (Int128)(radicand - (UInt128)root * root);
        long step = (long)((double)error / (2.0 * root));
        root = step < 0 ? root - (ulong)-step : root > ulong.MaxValue - (ulong)step ? ulong.MaxValue : root + (ulong)step;
        while ((UInt128)root * root > radicand)
            root--;
        while (root != ulong.MaxValue && (UInt128)(root + 1) * (root + 1) <= radicand)
            root++;
        return root;
    }

    /// <summary>-1, 0, 1 for numbers, zeros and infinities.</summary>
    internal static int Compare(in Unpacked a, in Unpacked b)
    {
        if (a.Kind == FloatKind.Zero && b.Kind == FloatKind.Zero)
            return 0;
        if (a.Kind == FloatKind.Zero)
            return b.Negative ? 1 : -1;
        if (b.Kind == FloatKind.Zero)
            return a.Negative ? -1 : 1;
        if (a.Negative != b.Negative)
            return a.Negative ? -1 : 1;
        int magnitude = a.Exponent != b.Exponent ? a.Exponent.CompareTo(b.Exponent) : a.Significand.CompareTo(b.Significand);
        return a.Negative ? -magnitude : magnitude;
    }

    /// <summary>A number that precision control may shorten.</summary>
    private static Float80 Rounded(in Unpacked a, ref FloatContext c) =>
        Rounder.Extended(ref c, a.Negative, a.Exponent, new UInt128(a.Significand, 0), c.Precision);

    /// <summary>True: the operand is a NaN or unsupported, and <paramref name="result"/> is the masked response.</summary>
    internal static bool PropagateNaN(in Unpacked a, ref FloatContext c, out Float80 result)
    {
        result = default;
        switch (a.Kind)
        {
            case FloatKind.Unsupported:
                result = c.Invalid();
                return true;
            case FloatKind.SignalingNaN:
                c.Raised |= X87Exceptions.Invalid;
                result = a.Quieted();
                return true;
            case FloatKind.QuietNaN:
                result = a.Pack();
                return true;
            default:
                return false;
        }
    }

    /// <summary>The same for two operands: a quiet NaN is preferred to a signaling one, else the NaN with the larger fraction, else the positive one.</summary>
    internal static bool PropagateNaN(in Unpacked a, in Unpacked b, ref FloatContext c, out Float80 result)
    {
        result = default;
        if (a.Kind < FloatKind.QuietNaN && b.Kind < FloatKind.QuietNaN)
            return false;
        if (a.Kind == FloatKind.Unsupported || b.Kind == FloatKind.Unsupported)
        {
            result = c.Invalid();
            return true;
        }
        if (a.Kind == FloatKind.SignalingNaN || b.Kind == FloatKind.SignalingNaN)
            c.Raised |= X87Exceptions.Invalid;
        result = (First(a, b) ? a : b).Quieted();
        return true;
    }

    private static bool First(in Unpacked a, in Unpacked b)
    {
        if (!a.IsNaN || !b.IsNaN)
            return a.IsNaN;
        if (a.Kind != b.Kind)
            return a.Kind == FloatKind.QuietNaN;
        return a.Significand != b.Significand ? a.Significand > b.Significand : !a.Negative;
    }
}
