using System.Numerics;

namespace Kvm.Emulator.Vector.Float;

internal static partial class SoftFloat
{
    /// <summary>From one format to another; payloads of NaNs keep their leading bits.</summary>
    internal static ulong Convert<From, To>(ulong a, ref FloatContext c)
        where From : struct, IFloatFormat
        where To : struct, IFloatFormat
    {
        a = Operand<From>(a, ref c);
        ulong sign = IsNegative<From>(a) ? SignBit<To>() : 0;
        if (IsNaN<From>(a))
        {
            ulong payload = (Quiet<From>(a, ref c) & FractionMask<From>()) << (63 - From.FractionBits) >> (63 - To.FractionBits);
            return sign | Infinity<To>() | payload;
        }
        if (IsInfinite<From>(a))
            return sign | Infinity<To>();
        if (IsZero<From>(a))
            return sign;
        NoteDenormal<From>(a, ref c);
        return RoundAndPack<To>(sign, Unpack<From>(a), ref c);
    }

    internal static ulong FromInteger<F>(long value, ref FloatContext c) where F : struct, IFloatFormat
    {
        if (value == 0)
            return 0;
        ulong magnitude = value < 0 ? 0 - (ulong)value : (ulong)value;
        int shift = BitOperations.LeadingZeroCount(magnitude);
        return RoundAndPack<F>(value < 0 ? SignBit<F>() : 0, new Parts { Exponent = 63 - shift, Significand = magnitude << shift }, ref c);
    }

    /// <summary>
    /// To a signed integer of <paramref name="bits"/> (32 or 64), sign-extended. NaNs and what does not fit: invalid, and the integer indefinite,
    /// the most negative number. Denormal operands are not reported.
    /// </summary>
    internal static long ToInteger<F>(ulong a, int bits, Rounding rounding, ref FloatContext c) where F : struct, IFloatFormat
    {
        long indefinite = -1L << (bits - 1);
        a = Operand<F>(a, ref c);
        if (IsZero<F>(a))
            return 0;
        bool negative = IsNegative<F>(a);
        if (!IsNaN<F>(a) && !IsInfinite<F>(a) && Unpack<F>(a) is { Exponent: < 64 } x)
        {
            Split(x, out ulong kept, out ulong rest);
            if (RoundsUp(rounding, negative, kept, rest, 1UL << 63))
                kept++;
            ulong limit = 1UL << (bits - 1);
            if (kept < limit || (negative && kept == limit))
            {
                if (rest != 0)
                    c.Raise(FloatContext.Precision);
                return negative ? (long)(0 - kept) : (long)kept;
            }
        }
        c.Raise(FloatContext.Invalid);
        return indefinite;
    }

    /// <summary>The integer part, and the fraction with its first bit at bit 63 and the last one sticky.</summary>
    private static void Split(Parts x, out ulong kept, out ulong rest)
    {
        int shift = 63 - x.Exponent; // bits behind the binary point
        kept = shift >= 64 ? 0 : x.Significand >> shift;
        rest = shift == 0 ? 0 : shift <= 64 ? x.Significand << (64 - shift) : ShiftRight(x.Significand, shift - 64);
    }

    /// <summary>To an integral value of the same format; inexactness is reported unless <paramref name="quietly"/>. Denormal operands are not reported.</summary>
    internal static ulong RoundToIntegral<F>(ulong a, Rounding rounding, bool quietly, ref FloatContext c) where F : struct, IFloatFormat
    {
        a = Operand<F>(a, ref c);
        if (IsNaN<F>(a))
            return Quiet<F>(a, ref c);
        if (IsInfinite<F>(a) || IsZero<F>(a))
            return a;
        Parts x = Unpack<F>(a);
        if (x.Exponent >= F.FractionBits)
            return a;
        Split(x, out ulong kept, out ulong rest);
        if (rest == 0)
            return a;
        if (!quietly)
            c.Raise(FloatContext.Precision);
        ulong sign = a & SignBit<F>();
        if (RoundsUp(rounding, sign != 0, kept, rest, 1UL << 63))
            kept++;
        if (kept == 0)
            return sign;
        int shift = BitOperations.LeadingZeroCount(kept);
        return RoundAndPack<F>(sign, new Parts { Exponent = 63 - shift, Significand = kept << shift }, ref c);
    }
}
