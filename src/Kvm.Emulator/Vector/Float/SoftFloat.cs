using System.Numerics;
using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Vector.Float;

/// <summary>
/// Binary floating-point arithmetic on integers, for any format up to 64 bits: operands are taken apart into sign, exponent and a significand whose leading
/// one is bit 63, the exact result (what is lost below it kept as a sticky bit) is rounded and put together in one place.
/// </summary>
/// <remarks>
/// IEEE 754-2019, with x86's choices: SDM vol 1, "Floating-Point Exceptions" and "SIMD Floating-Point Exceptions" (tininess after rounding, the first NaN
/// operand made quiet, the negative quiet NaN as the default, an exception of higher priority hides the denormal operand).
/// </remarks>
internal static partial class SoftFloat
{
    // value = Significand * 2^(Exponent - 63)
    private struct Parts
    {
        internal int Exponent;
        internal ulong Significand;
    }

    internal static int Width<F>() where F : struct, IFloatFormat => F.ExponentBits + F.FractionBits + 1;
    internal static int Bias<F>() where F : struct, IFloatFormat => (1 << (F.ExponentBits - 1)) - 1;
    internal static ulong SignBit<F>() where F : struct, IFloatFormat => 1UL << (F.ExponentBits + F.FractionBits);
    internal static ulong Infinity<F>() where F : struct, IFloatFormat => ((1UL << F.ExponentBits) - 1) << F.FractionBits;
    internal static ulong FractionMask<F>() where F : struct, IFloatFormat => (1UL << F.FractionBits) - 1;
    internal static ulong QuietBit<F>() where F : struct, IFloatFormat => 1UL << (F.FractionBits - 1);
    internal static ulong DefaultNaN<F>() where F : struct, IFloatFormat => SignBit<F>() | Infinity<F>() | QuietBit<F>();

    internal static bool IsNaN<F>(ulong a) where F : struct, IFloatFormat => (a & ~SignBit<F>()) > Infinity<F>();
    internal static bool IsSignalingNaN<F>(ulong a) where F : struct, IFloatFormat => IsNaN<F>(a) && (a & QuietBit<F>()) == 0;
    internal static bool IsInfinite<F>(ulong a) where F : struct, IFloatFormat => (a & ~SignBit<F>()) == Infinity<F>();
    internal static bool IsZero<F>(ulong a) where F : struct, IFloatFormat => (a & ~SignBit<F>()) == 0;
    internal static bool IsDenormal<F>(ulong a) where F : struct, IFloatFormat => (a & Infinity<F>()) == 0 && (a & FractionMask<F>()) != 0;
    internal static bool IsNegative<F>(ulong a) where F : struct, IFloatFormat => (a & SignBit<F>()) != 0;

    /// <summary>The operand as MXCSR.DAZ wants it.</summary>
    internal static ulong Operand<F>(ulong a, ref FloatContext c) where F : struct, IFloatFormat
        => c.DenormalsAreZeros && IsDenormal<F>(a) ? a & SignBit<F>() : a;

    internal static ulong Quiet<F>(ulong a, ref FloatContext c) where F : struct, IFloatFormat
    {
        if (IsSignalingNaN<F>(a))
            c.Raise(FloatContext.Invalid);
        return a | QuietBit<F>();
    }

    /// <summary>The result when <paramref name="a"/> or <paramref name="b"/> is a NaN: the first that is.</summary>
    private static ulong Propagate<F>(ulong a, ulong b, ref FloatContext c) where F : struct, IFloatFormat
    {
        if (IsSignalingNaN<F>(a) || IsSignalingNaN<F>(b))
            c.Raise(FloatContext.Invalid);
        return (IsNaN<F>(a) ? a : b) | QuietBit<F>();
    }

    private static ulong Indefinite<F>(ref FloatContext c) where F : struct, IFloatFormat
    {
        c.Raise(FloatContext.Invalid);
        return DefaultNaN<F>();
    }

    private static void NoteDenormal<F>(ulong a, ref FloatContext c) where F : struct, IFloatFormat
    {
        if (IsDenormal<F>(a))
            c.Raise(FloatContext.Denormal);
    }

    /// <summary>a + b, or a - b when <paramref name="subtract"/> says so.</summary>
    internal static ulong Add<F>(ulong a, ulong b, bool subtract, ref FloatContext c) where F : struct, IFloatFormat
    {
        a = Operand<F>(a, ref c);
        b = Operand<F>(b, ref c);
        if (IsNaN<F>(a) || IsNaN<F>(b))
            return Propagate<F>(a, b, ref c);
        if (subtract)
            b ^= SignBit<F>();
        if (IsInfinite<F>(a) && IsInfinite<F>(b) && a != b)
            return Indefinite<F>(ref c);
        NoteDenormal<F>(a, ref c);
        NoteDenormal<F>(b, ref c);
        if (IsInfinite<F>(a))
            return a;
        if (IsInfinite<F>(b))
            return b;
        return AddFinite<F>(a, b, ref c);
    }

    private static ulong AddFinite<F>(ulong a, ulong b, ref FloatContext c) where F : struct, IFloatFormat
    {
        if (IsZero<F>(a) && IsZero<F>(b))
            return a == b ? a : ZeroSum<F>(ref c);
        if ((a & ~SignBit<F>()) < (b & ~SignBit<F>()))
            (a, b) = (b, a);
        ulong sign = a & SignBit<F>();
        Parts x = Unpack<F>(a);
        if (IsZero<F>(b))
            return RoundAndPack<F>(sign, x, ref c);
        Parts y = Unpack<F>(b);
        // One bit of room for the carry; below, the format leaves ten or more for what is shifted out.
        ulong large = x.Significand >> 1;
        ulong small = ShiftRight(y.Significand >> 1, x.Exponent - y.Exponent);
        ulong sum = ((a ^ b) & SignBit<F>()) == 0 ? large + small : large - small;
        if (sum == 0)
            return ZeroSum<F>(ref c);
        int shift = BitOperations.LeadingZeroCount(sum);
        return RoundAndPack<F>(sign, new Parts { Exponent = x.Exponent + 1 - shift, Significand = sum << shift }, ref c);
    }

    /// <summary>Two terms that cancel.</summary>
    private static ulong ZeroSum<F>(ref FloatContext c) where F : struct, IFloatFormat => c.Rounding == Rounding.Down ? SignBit<F>() : 0;

    internal static ulong Multiply<F>(ulong a, ulong b, ref FloatContext c) where F : struct, IFloatFormat
    {
        a = Operand<F>(a, ref c);
        b = Operand<F>(b, ref c);
        if (IsNaN<F>(a) || IsNaN<F>(b))
            return Propagate<F>(a, b, ref c);
        bool infinite = IsInfinite<F>(a) || IsInfinite<F>(b), zero = IsZero<F>(a) || IsZero<F>(b);
        if (infinite && zero)
            return Indefinite<F>(ref c);
        NoteDenormal<F>(a, ref c);
        NoteDenormal<F>(b, ref c);
        ulong sign = (a ^ b) & SignBit<F>();
        if (infinite)
            return sign | Infinity<F>();
        if (zero)
            return sign;
        Parts x = Unpack<F>(a), y = Unpack<F>(b);
        ulong high = Math.BigMul(x.Significand, y.Significand, out ulong low);
        var product = new Parts { Exponent = x.Exponent + y.Exponent + 1, Significand = high | Sticky(low) };
        if ((long)high >= 0)
            product = new Parts { Exponent = product.Exponent - 1, Significand = high << 1 | low >> 63 | Sticky(low << 1) };
        return RoundAndPack<F>(sign, product, ref c);
    }

    internal static ulong Divide<F>(ulong a, ulong b, ref FloatContext c) where F : struct, IFloatFormat
    {
        a = Operand<F>(a, ref c);
        b = Operand<F>(b, ref c);
        if (IsNaN<F>(a) || IsNaN<F>(b))
            return Propagate<F>(a, b, ref c);
        ulong sign = (a ^ b) & SignBit<F>();
        if ((IsInfinite<F>(a) && IsInfinite<F>(b)) || (IsZero<F>(a) && IsZero<F>(b)))
            return Indefinite<F>(ref c);
        if (IsZero<F>(b) && !IsInfinite<F>(a))
        {
            c.Raise(FloatContext.ZeroDivide);
            return sign | Infinity<F>();
        }
        NoteDenormal<F>(a, ref c);
        NoteDenormal<F>(b, ref c);
        if (IsInfinite<F>(a))
            return sign | Infinity<F>();
        if (IsInfinite<F>(b) || IsZero<F>(a))
            return sign;
        Parts x = Unpack<F>(a), y = Unpack<F>(b);
        // Scaled so that the quotient has exactly 64 bits.
        bool below = x.Significand < y.Significand;
        UInt128 dividend = (UInt128)x.Significand << (below ? 64 : 63);
        ulong quotient = (ulong)(dividend / y.Significand);
        ulong remainder = (ulong)dividend - quotient * y.Significand;
        return RoundAndPack<F>(sign, new Parts { Exponent = x.Exponent - y.Exponent - (below ? 1 : 0), Significand = quotient | Sticky(remainder) }, ref c);
    }

    internal static ulong SquareRoot<F>(ulong a, ref FloatContext c) where F : struct, IFloatFormat
    {
        a = Operand<F>(a, ref c);
        if (IsNaN<F>(a))
            return Quiet<F>(a, ref c);
        if (IsZero<F>(a))
            return a;
        if (IsNegative<F>(a))
            return Indefinite<F>(ref c);
        NoteDenormal<F>(a, ref c);
        if (IsInfinite<F>(a))
            return a;
        Parts x = Unpack<F>(a);
        UInt128 radicand = (UInt128)x.Significand << ((x.Exponent & 1) != 0 ? 64 : 63);
        ulong root = IntegerRoot(radicand);
        return RoundAndPack<F>(0, new Parts { Exponent = x.Exponent >> 1, Significand = root | ((UInt128)root * root == radicand ? 0UL : 1) }, ref c);
    }

    /// <summary>The integer part of the square root of a number of 127 or 128 bits: 64 bits.</summary>
    private static ulong IntegerRoot(UInt128 radicand)
    {
        // 53 good bits to begin with, one step of Newton's method more than doubles them; from there it is off by one at most.
        double estimate = Math.Sqrt((double)radicand);
        ulong root = estimate >= 18446744073709551615.0 ? ulong.MaxValue : (ulong)estimate;
        UInt128 refined = (root + radicand / root) >> 1;
        root = refined > ulong.MaxValue ? ulong.MaxValue : (ulong)refined;
        while ((UInt128)root * root > radicand)
            root--;
        while (root != ulong.MaxValue && (UInt128)(root + 1) * (root + 1) <= radicand)
            root++;
        return root;
    }

    private static Parts Unpack<F>(ulong a) where F : struct, IFloatFormat
    {
        ulong fraction = a & FractionMask<F>();
        int exponent = (int)(a >> F.FractionBits) & ((1 << F.ExponentBits) - 1);
        if (exponent != 0)
            return new Parts { Exponent = exponent - Bias<F>(), Significand = (fraction | FractionMask<F>() + 1) << (63 - F.FractionBits) };
        int shift = BitOperations.LeadingZeroCount(fraction);
        return new Parts { Exponent = 64 - shift - Bias<F>() - F.FractionBits, Significand = fraction << shift };
    }

    private static ulong Sticky(ulong lost) => lost != 0 ? 1UL : 0;

    /// <summary>What is shifted out is remembered in bit 0.</summary>
    private static ulong ShiftRight(ulong value, int count)
        => count == 0 ? value : count >= 64 ? Sticky(value) : value >> count | Sticky(value << (64 - count));

    private static UInt128 ShiftRight(UInt128 value, int count)
        => count == 0 ? value : count >= 128 ? (value != 0 ? UInt128.One : 0) : value >> count | (value << (128 - count) != 0 ? UInt128.One : 0);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool RoundsUp(Rounding rounding, bool negative, ulong kept, ulong rest, ulong half) => rounding switch
    {
        Rounding.Nearest => rest > half || (rest == half && (kept & 1) != 0),
        Rounding.Down => negative && rest != 0,
        Rounding.Up => !negative && rest != 0,
        _ => false,
    };

    /// <summary>
    /// The one place where results are rounded, and where overflow, underflow and inexactness are found. <paramref name="sign"/> is the sign bit in its place,
    /// <paramref name="parts"/> not zero; bit 0 of its significand stands for everything below it.
    /// </summary>
    private static ulong RoundAndPack<F>(ulong sign, Parts parts, ref FloatContext c) where F : struct, IFloatFormat
    {
        int drop = 63 - F.FractionBits;
        ulong half = 1UL << (drop - 1), mask = 2 * half - 1;
        int exponent = parts.Exponent + Bias<F>();
        ulong kept = parts.Significand >> drop, rest = parts.Significand & mask;
        bool up = RoundsUp(c.Rounding, sign != 0, kept, rest, half);
        if (exponent <= 0)
        {
            // Tiny: also with an exponent without bounds, the rounded result would be below the smallest normal number.
            bool tiny = exponent < 0 || !up || kept != 2 * FractionMask<F>() + 1;
            if (tiny && !c.UnderflowMasked)
            {
                c.Raise(FloatContext.Underflow | (rest != 0 ? FloatContext.Precision : 0));
                return sign;
            }
            if (tiny && F.Flushes && c.FlushesToZero)
            {
                c.Raise(FloatContext.Underflow | FloatContext.Precision);
                return sign;
            }
            ulong shifted = ShiftRight(parts.Significand, 1 - exponent);
            kept = shifted >> drop;
            rest = shifted & mask;
            if (rest != 0)
                c.Raise(FloatContext.Precision | (tiny ? FloatContext.Underflow : 0));
            return sign | kept + (RoundsUp(c.Rounding, sign != 0, kept, rest, half) ? 1UL : 0);
        }
        if (rest != 0)
            c.Raise(FloatContext.Precision);
        if (exponent < 1 << F.ExponentBits)
        {
            ulong result = ((ulong)(exponent - 1) << F.FractionBits) + kept + (up ? 1UL : 0);
            if (result < Infinity<F>())
                return sign | result;
        }
        c.Raise(c.OverflowMasked ? FloatContext.Overflow | FloatContext.Precision : FloatContext.Overflow);
        bool toInfinity = c.Rounding == Rounding.Nearest || c.Rounding == (sign != 0 ? Rounding.Down : Rounding.Up);
        return sign | (toInfinity ? Infinity<F>() : Infinity<F>() - 1);
    }
}
