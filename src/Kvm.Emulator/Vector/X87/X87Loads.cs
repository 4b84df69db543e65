using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.X87;

/// <summary>FLD, FILD, FBLD and the constants.</summary>
/// <remarks>SDM vol 2A, the instructions' pages.</remarks>
internal static unsafe class X87Loads
{
    /// <summary>FLD m32, FLD m64, FILD: an exact conversion that can meet a signaling NaN or a denormal.</summary>
    internal static void Load<TSource>(CpuState* s, Op* op, byte* m) where TSource : struct, IX87Source
    {
        var x = new X87Stack(s);
        Float80 value = Float80.Indefinite;
        if (x.IsFull)
        {
            if (!x.Overflow())
                return;
        }
        else
        {
            FloatContext c = x.Context;
            Unpacked operand = TSource.Load(m);
            c.NoteDenormal(operand);
            if (!FloatArithmetic.PropagateNaN(operand, ref c, out value))
                value = operand.Pack();
            if (!x.Commit(c) && operand.Kind != FloatKind.Denormal)
                return;
        }
        x.Push(value);
    }

    private static void Push(CpuState* s, Float80 value)
    {
        var x = new X87Stack(s);
        if (x.IsFull)
        {
            if (x.Overflow())
                x.Push(Float80.Indefinite);
            return;
        }
        x.SetC1(false);
        x.Push(value);
    }

    internal static void FldM80(CpuState* s, Op* op, byte* m) => Push(s, *(Float80*)m);

    internal static void Fbld(CpuState* s, Op* op, byte* m) => Push(s, FloatConversions.OfBcd(*(ulong*)m, *(ushort*)(m + 8)));

    internal static void Fld1(CpuState* s, Op* op, byte* m) => Push(s, Float80.One);

    internal static void Fldz(CpuState* s, Op* op, byte* m) => Push(s, Float80.Zero());

    internal static void Fldl2t(CpuState* s, Op* op, byte* m) => Constant(s, X87Constants.Log2Of10);

    internal static void Fldl2e(CpuState* s, Op* op, byte* m) => Constant(s, X87Constants.Log2OfE);

    internal static void Fldpi(CpuState* s, Op* op, byte* m) => Constant(s, X87Constants.Pi);

    internal static void Fldlg2(CpuState* s, Op* op, byte* m) => Constant(s, X87Constants.Log10Of2);

    internal static void Fldln2(CpuState* s, Op* op, byte* m) => Constant(s, X87Constants.LnOf2);

    /// <summary>Irrational constants are kept with more bits and rounded as rounding control says, without an exception.</summary>
    private static void Constant(CpuState* s, in WideConstant constant)
    {
        FloatContext c = new X87Stack(s).Context;
        Push(s, Rounder.Extended(ref c, false, constant.Exponent, constant.Significand));
    }

    internal static void FldSti(CpuState* s, Op* op, byte* m)
    {
        var x = new X87Stack(s);
        if (x.IsEmpty(op->Reg))
        {
            if (x.Underflow())
                x.Push(Float80.Indefinite);
            return;
        }
        Push(s, x[op->Reg]);
    }
}
