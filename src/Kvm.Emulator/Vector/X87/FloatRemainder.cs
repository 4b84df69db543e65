namespace Kvm.Emulator.Vector.X87;

/// <summary>Remainders, scaling and taking apart: exact operations on whole exponents.</summary>
/// <remarks>SDM vol 2A, FPREM, FPREM1, FSCALE, FXTRACT.</remarks>
internal static class FloatRemainder
{
    /// <summary>
    /// a - b × Q, Q being a / b truncated (or, for FPREM1, rounded to the nearest integer). <paramref name="partial"/>: the exponents were too far apart for one step
    /// and the remainder has only become smaller; how much is the processor's choice.
    /// </summary>
    internal static Float80 Remainder(in Unpacked a, in Unpacked b, bool nearest, ref FloatContext c, out ulong quotient, out bool partial)
    {
        quotient = 0;
        partial = false;
        if (FloatArithmetic.PropagateNaN(a, b, ref c, out Float80 nan))
            return nan;
        if (a.Kind == FloatKind.Infinity || b.Kind == FloatKind.Zero)
            return c.Invalid();
        c.NoteDenormal(a);
        c.NoteDenormal(b);
        if (a.Kind == FloatKind.Zero)
            return a.Pack();
        int distance = a.Exponent - b.Exponent;
        if (b.Kind == FloatKind.Infinity || distance < -1 || (distance < 0 && !nearest))
            return Exact(a.Negative, a.Exponent, a.Significand, ref c);
        if (distance >= 64)
        {
            partial = true;
            return Reduce(a, b, distance, ref c);
        }
        bool negative = a.Negative;
        if (distance < 0)
        {
            // Half of b at most, or one b: the same unit for both.
            if (a.Significand <= b.Significand)
                return Exact(negative, a.Exponent, a.Significand, ref c);
            quotient = 1;
            UInt128 difference = ((UInt128)b.Significand << 1) - a.Significand;
            return Exact(!negative, a.Exponent, difference, ref c);
        }
        ulong rest = Divide(a.Significand, distance, b.Significand, out quotient);
        ulong other = b.Significand - rest;
        if (nearest && (rest > other || (rest == other && (quotient & 1) != 0)))
        {
            quotient++;
            rest = other;
            negative = !negative;
        }
        return rest == 0 ? Float80.Zero(a.Negative) : Exact(negative, b.Exponent, rest, ref c);
    }

    /// <summary>The exponent's distance becomes less than 64 in steps that leave it a multiple of 32 nearer.</summary>
    private static Float80 Reduce(in Unpacked a, in Unpacked b, int distance, ref FloatContext c)
    {
        int step = (distance & 31) | 32;
        ulong rest = Divide(a.Significand, step, b.Significand, out _);
        return rest == 0 ? Float80.Zero(a.Negative) : Exact(a.Negative, b.Exponent + distance - step, rest, ref c);
    }

    /// <summary>a × 2^<paramref name="shift"/> (0 … 63) divided by a significand.</summary>
    private static ulong Divide(ulong a, int shift, ulong b, out ulong quotient)
    {
        UInt128 value = (UInt128)a << shift;
        ulong high = (ulong)(value >> 64), carry = 0;
        if (shift == 0 && a >= b)
        {
            value -= b;
            carry = 1;
        }
        quotient = FloatArithmetic.Divide(high, (ulong)value, b, out ulong rest) + carry;
        return rest;
    }

    private static Float80 Exact(bool negative, int exponent, UInt128 significand, ref FloatContext c)
    {
        exponent += 64;
        significand = Rounder.Normalize(significand, ref exponent);
        return Rounder.Extended(ref c, negative, exponent, significand);
    }

    /// <summary>a × 2^trunc(b).</summary>
    internal static Float80 Scale(in Unpacked a, in Unpacked b, ref FloatContext c)
    {
        const int far = 0x10000; // out of range whatever is scaled by it
        if (FloatArithmetic.PropagateNaN(a, b, ref c, out Float80 nan))
            return nan;
        if (b.Kind == FloatKind.Infinity)
        {
            if (b.Negative ? a.Kind == FloatKind.Infinity : a.Kind == FloatKind.Zero)
                return c.Invalid();
            c.NoteDenormal(a);
            return b.Negative ? Float80.Zero(a.Negative) : Float80.Infinity(a.Negative);
        }
        c.NoteDenormal(a);
        c.NoteDenormal(b);
        if (!a.IsNumber)
            return a.Pack();
        int scale = !b.IsNumber || b.Exponent < Float80.Bias ? 0
            : b.Exponent > Float80.Bias + 15 ? far
            : (int)(b.Significand >> (Float80.Bias + 63 - b.Exponent));
        return Rounder.Extended(ref c, a.Negative, a.Exponent + (b.Negative ? -scale : scale), new UInt128(a.Significand, 0));
    }

    /// <summary>Exponent (the result) and significand of a.</summary>
    internal static Float80 Extract(in Unpacked a, ref FloatContext c, out Float80 significand)
    {
        if (FloatArithmetic.PropagateNaN(a, ref c, out significand))
            return significand;
        significand = a.Pack();
        if (a.Kind == FloatKind.Infinity)
            return Float80.Infinity();
        if (a.Kind == FloatKind.Zero)
        {
            c.Raised |= X87Exceptions.ZeroDivide;
            return Float80.Infinity(negative: true);
        }
        c.NoteDenormal(a);
        significand = new Float80(a.Negative, Float80.Bias, a.Significand);
        return Unpacked.OfInteger(a.Exponent - Float80.Bias).Pack();
    }
}
