namespace Kvm.Emulator.Vector.X87;

/// <summary>Trigonometric, logarithmic and exponential functions with their special cases.</summary>
/// <remarks>
/// SDM vol 2A, F2XM1, FYL2X, FYL2XP1, FPATAN, FPTAN, FSIN, FCOS, FSINCOS; vol 1, "Approximation of Pi", "Transcendental Instruction Accuracy".
/// Results are computed to about 120 bits and rounded once. Processors promise less, an error below one unit in the last place, and differ from each other in it:
/// the last bit here is not necessarily that of a given processor, and neither is C1 (DIVERGES: D-ENGINE-6). Angles are reduced by the 66-bit π that processors use, so that the sine of
/// a large number is the number processors give and not the mathematical one.
/// </remarks>
internal static class FloatTranscendentals
{
    /// <summary>π × 2^64, all the bits that processors reduce angles by.</summary>
    private static readonly UInt128 pi66 = new(3, 0x243f6a8885a308d3);

    /// <summary>The precision exception comes with every result, even an exact one; so does underflow with a tiny one.</summary>
    private static Float80 Rounded(in Wide value, ref FloatContext c, bool exact = false)
    {
        c.Raised |= X87Exceptions.Precision;
        if (exact && value.Exponent + Float80.Bias <= 0)
            c.Raised |= X87Exceptions.Underflow;
        return Rounder.Extended(ref c, value.Negative, value.Exponent + Float80.Bias, exact ? value.Significand : value.Significand | 1);
    }

    /// <summary>The angle is out of range: |x| ≥ 2^63.</summary>
    internal static bool TooLarge(in Unpacked a) => a.Kind == FloatKind.Normal && a.Exponent >= Float80.Bias + 63;

    /// <summary>x - quadrant × π / 2, at most π / 4 in magnitude and not zero.</summary>
    private static Wide Reduce(in Unpacked a, out int quadrant)
    {
        quadrant = 0;
        int exponent = a.Exponent - Float80.Bias;
        if (exponent < -1)
            return Wide.Of(a);
        // In units of 2^-65, π / 2 is pi66.
        UInt128 x = (UInt128)a.Significand << (exponent + 2);
        (UInt128 turns, UInt128 rest) = UInt128.DivRem(x, pi66);
        bool negative = a.Negative;
        if (rest > pi66 >> 1)
        {
            turns++;
            rest = pi66 - rest;
            negative = !negative;
        }
        quadrant = (int)(turns & 3);
        if (a.Negative)
            quadrant = -quadrant & 3;
        return Wide.Normal(negative, 62, rest);
    }

    private static bool SpecialAngle(in Unpacked a, ref FloatContext c, out Float80 result)
    {
        if (FloatArithmetic.PropagateNaN(a, ref c, out result))
            return true;
        if (a.Kind == FloatKind.Infinity)
        {
            result = c.Invalid();
            return true;
        }
        c.NoteDenormal(a);
        return false;
    }

    internal static Float80 Sine(in Unpacked a, ref FloatContext c)
    {
        if (SpecialAngle(a, ref c, out Float80 special))
            return special;
        if (a.Kind == FloatKind.Zero)
            return a.Pack();
        Wide r = Reduce(a, out int quadrant);
        return Rounded(Quadrant(r, quadrant), ref c);
    }

    internal static Float80 Cosine(in Unpacked a, ref FloatContext c)
    {
        if (SpecialAngle(a, ref c, out Float80 special))
            return special;
        if (a.Kind == FloatKind.Zero)
            return Float80.One;
        Wide r = Reduce(a, out int quadrant);
        return Rounded(Quadrant(r, quadrant + 1), ref c);
    }

    /// <summary>sin(r + quadrant × π / 2).</summary>
    private static Wide Quadrant(in Wide r, int quadrant)
    {
        Wide value = (quadrant & 1) == 0 ? WideFunctions.Sine(r) : WideFunctions.Cosine(r);
        return value.WithSign(value.Negative ^ (quadrant & 2) != 0);
    }

    internal static Float80 Tangent(in Unpacked a, ref FloatContext c)
    {
        if (SpecialAngle(a, ref c, out Float80 special))
            return special;
        if (a.Kind == FloatKind.Zero)
            return a.Pack();
        Wide r = Reduce(a, out int quadrant);
        Wide value = (quadrant & 1) == 0 ? WideFunctions.Tangent(r) : WideFunctions.Cosine(r) / WideFunctions.Sine(r);
        return Rounded(value.WithSign(value.Negative ^ (quadrant & 1) != 0), ref c);
    }

    /// <summary>The angle of the point (x, y), from -π to π.</summary>
    internal static Float80 Angle(in Unpacked y, in Unpacked x, ref FloatContext c)
    {
        if (FloatArithmetic.PropagateNaN(y, x, ref c, out Float80 nan))
            return nan;
        c.NoteDenormal(y);
        c.NoteDenormal(x);
        if (y.Kind == FloatKind.Zero || (x.Kind == FloatKind.Infinity && y.Kind != FloatKind.Infinity))
            return x.Negative ? Rounded(WideFunctions.Pi.WithSign(y.Negative), ref c) : Float80.Zero(y.Negative);
        Wide angle;
        if (y.Kind == FloatKind.Infinity && x.Kind == FloatKind.Infinity)
            angle = WideFunctions.Pi.Halved.Halved;
        else if (y.Kind == FloatKind.Infinity || x.Kind == FloatKind.Zero)
            angle = WideFunctions.Pi.Halved;
        else
            angle = WideFunctions.Angle(Wide.Of(y).WithSign(false), Wide.Of(x).WithSign(false));
        if (x.Negative && x.Kind != FloatKind.Zero)
            angle = WideFunctions.Pi - angle;
        return Rounded(angle.WithSign(y.Negative), ref c);
    }

    /// <summary>2^x - 1; without a defined result outside -1 … 1, where x is returned.</summary>
    internal static Float80 PowerOfTwoLessOne(in Unpacked a, ref FloatContext c)
    {
        if (FloatArithmetic.PropagateNaN(a, ref c, out Float80 nan))
            return nan;
        c.NoteDenormal(a);
        if (a.Kind == FloatKind.Infinity)
            return a.Negative ? Float80.One.Negated : a.Pack();
        if (a.Kind == FloatKind.Zero)
            return a.Pack();
        c.Raised |= X87Exceptions.Precision;
        if (a.Exponent > Float80.Bias || (a.Exponent == Float80.Bias && a.Significand != Float80.IntegerBit))
            return a.Pack();
        if (a.Exponent == Float80.Bias)
            return a.Negative ? new Float80(true, Float80.Bias - 1, Float80.IntegerBit) : Float80.One;
        return Rounded(WideFunctions.PowerOfTwoLessOne(Wide.Of(a)), ref c);
    }

    /// <summary>y × log2(x).</summary>
    internal static Float80 Logarithm(in Unpacked y, in Unpacked x, ref FloatContext c)
    {
        if (FloatArithmetic.PropagateNaN(y, x, ref c, out Float80 nan))
            return nan;
        if (x.Negative && x.Kind != FloatKind.Zero)
            return c.Invalid();
        if (x.Kind == FloatKind.Zero)
        {
            if (y.Kind == FloatKind.Zero)
                return c.Invalid();
            if (y.Kind != FloatKind.Infinity)
                c.Raised |= X87Exceptions.ZeroDivide;
            return Float80.Infinity(!y.Negative);
        }
        bool one = x.Exponent == Float80.Bias && x.Significand == Float80.IntegerBit, below = x.Exponent < Float80.Bias;
        if ((y.Kind == FloatKind.Infinity && one) || (x.Kind == FloatKind.Infinity && y.Kind == FloatKind.Zero))
            return c.Invalid();
        c.NoteDenormal(y);
        c.NoteDenormal(x);
        if (x.Kind == FloatKind.Infinity || y.Kind == FloatKind.Infinity)
            return Float80.Infinity(y.Negative ^ below);
        if (y.Kind == FloatKind.Zero || one)
            return Float80.Zero(y.Negative ^ below);
        return Rounded(WideFunctions.Log2(Wide.Of(x)) * Wide.Of(y), ref c, exact: x.Significand == Float80.IntegerBit);
    }

    /// <summary>y × log2(x + 1), defined for x between √½ - 1 and √2 - 1 only; for -1 and less, x is returned.</summary>
    internal static Float80 LogarithmOfOnePlus(in Unpacked y, in Unpacked x, ref FloatContext c)
    {
        if (FloatArithmetic.PropagateNaN(y, x, ref c, out Float80 nan))
            return nan;
        bool negative = y.Negative ^ x.Negative;
        if ((x.Kind == FloatKind.Zero && y.Kind == FloatKind.Infinity) || (x.Kind == FloatKind.Infinity && (x.Negative || y.Kind == FloatKind.Zero)))
            return c.Invalid();
        c.NoteDenormal(y);
        c.NoteDenormal(x);
        if (x.Kind == FloatKind.Infinity || y.Kind == FloatKind.Infinity)
            return Float80.Infinity(negative);
        if (y.Kind == FloatKind.Zero || x.Kind == FloatKind.Zero)
            return Float80.Zero(negative);
        if (x.Negative && x.Exponent >= Float80.Bias)
        {
            c.Raised |= X87Exceptions.Precision;
            return x.Pack();
        }
        return Rounded(WideFunctions.Log2OfOnePlus(Wide.Of(x)) * Wide.Of(y), ref c);
    }
}
