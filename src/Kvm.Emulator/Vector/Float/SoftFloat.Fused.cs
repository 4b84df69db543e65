using System.Numerics;

namespace Kvm.Emulator.Vector.Float;

internal static partial class SoftFloat
{
    /// <summary>a * b + addend, rounded once; each of product and addend is negated first where asked for. NaNs keep their sign.</summary>
    /// <remarks>SDM vol 1, "Fused-Multiply-ADD (FMA) Numeric Behavior": the first NaN in the order a, b, addend; infinity times zero is no exception beside a quiet NaN addend.</remarks>
    internal static ulong MultiplyAdd<F>(ulong a, ulong b, ulong addend, bool negateProduct, bool negateAddend, ref FloatContext c) where F : struct, IFloatFormat
    {
        a = Operand<F>(a, ref c);
        b = Operand<F>(b, ref c);
        addend = Operand<F>(addend, ref c);
        bool infinite = IsInfinite<F>(a) || IsInfinite<F>(b), zero = IsZero<F>(a) || IsZero<F>(b);
        if (IsNaN<F>(a) || IsNaN<F>(b) || IsNaN<F>(addend))
        {
            if (IsSignalingNaN<F>(addend))
                c.Raise(FloatContext.Invalid);
            return IsNaN<F>(a) || IsNaN<F>(b) ? Propagate<F>(a, b, ref c) : addend | QuietBit<F>();
        }
        ulong sign = (a ^ b) & SignBit<F>();
        if (negateProduct)
            sign ^= SignBit<F>();
        if (negateAddend)
            addend ^= SignBit<F>();
        if ((infinite && zero) || (infinite && IsInfinite<F>(addend) && sign != (addend & SignBit<F>())))
            return Indefinite<F>(ref c);
        NoteDenormal<F>(a, ref c);
        NoteDenormal<F>(b, ref c);
        NoteDenormal<F>(addend, ref c);
        if (infinite)
            return sign | Infinity<F>();
        if (IsInfinite<F>(addend))
            return addend;
        if (!zero)
            return AddProduct<F>(Unpack<F>(a), Unpack<F>(b), sign, addend, ref c);
        if (!IsZero<F>(addend))
            return RoundAndPack<F>(addend & SignBit<F>(), Unpack<F>(addend), ref c);
        return addend == sign ? addend : ZeroSum<F>(ref c);
    }

    private static ulong AddProduct<F>(Parts x, Parts y, ulong sign, ulong addend, ref FloatContext c) where F : struct, IFloatFormat
    {
        // Exact; the leading one goes to bit 126, below it are at least twenty zeros.
        var product = new UInt128(Math.BigMul(x.Significand, y.Significand, out ulong low), low);
        int exponent = x.Exponent + y.Exponent;
        if (product >> 127 != 0)
        {
            product >>= 1;
            exponent++;
        }
        if (!IsZero<F>(addend))
        {
            Parts z = Unpack<F>(addend);
            UInt128 other = (UInt128)z.Significand << 63;
            bool subtract = sign != (addend & SignBit<F>());
            if (exponent > z.Exponent || (exponent == z.Exponent && product >= other))
            {
                other = ShiftRight(other, exponent - z.Exponent);
            }
            else
            {
                (product, other) = (other, ShiftRight(product, z.Exponent - exponent));
                exponent = z.Exponent;
                sign = addend & SignBit<F>();
            }
            product = subtract ? product - other : product + other;
            if (product == 0)
                return ZeroSum<F>(ref c);
        }
        int shift = (int)UInt128.LeadingZeroCount(product);
        product <<= shift;
        return RoundAndPack<F>(sign, new Parts { Exponent = exponent + 1 - shift, Significand = (ulong)(product >> 64) | Sticky((ulong)product) }, ref c);
    }
}
