using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.X87;

/// <summary>Loads, stores, exchanges, constants, conditional moves, and the instructions that only move the top of the stack.</summary>
/// <remarks>SDM vol 2A, the instructions' pages.</remarks>
internal static unsafe class X87Transfers
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

    /// <summary>An alias of FSTP that does nothing with an empty register but to pop it.</summary>
    internal static void Fstpnce(CpuState* s, Op* op, byte* m)
    {
        var x = new X87Stack(s);
        x.SetC1(false);
        if (!x.IsEmpty(0))
            x.Set(op->Reg, x[0]);
        x.Pop();
    }

    internal static void FstSti(CpuState* s, Op* op, byte* m) => StoreRegister(s, op->Reg, pop: false);

    internal static void FstpSti(CpuState* s, Op* op, byte* m) => StoreRegister(s, op->Reg, pop: true);

    private static void StoreRegister(CpuState* s, int i, bool pop)
    {
        var x = new X87Stack(s);
        Float80 value = x[0];
        if (x.IsEmpty(0))
        {
            if (!x.Underflow())
                return;
            value = Float80.Indefinite;
        }
        else
        {
            x.SetC1(false);
        }
        x.Set(i, value);
        if (pop)
            x.Pop();
    }

    /// <summary>True: there is a value in ST(0) to store; false, with masked underflow: the format's indefinite is stored.</summary>
    private static bool Source(X87Stack x, out Unpacked value, out bool stopped)
    {
        bool full = !x.IsEmpty(0);
        stopped = !full && !x.Underflow();
        value = full ? x.Operand(0) : default;
        return full;
    }

    internal static void FstM32(CpuState* s, Op* op, byte* m) => StoreM32(new X87Stack(s), m, 0);

    internal static void FstpM32(CpuState* s, Op* op, byte* m) => StoreM32(new X87Stack(s), m, 1);

    private static void StoreM32(X87Stack x, byte* m, int pops)
    {
        FloatContext c = x.Context;
        uint value = FloatConversions.IndefiniteSingle;
        if (Source(x, out Unpacked a, out bool stopped))
        {
            value = FloatConversions.ToSingle(a, ref c);
            stopped = !x.CommitStore(c);
        }
        if (stopped)
            return;
        *(uint*)m = value;
        x.Pop(pops);
    }

    internal static void FstM64(CpuState* s, Op* op, byte* m) => StoreM64(new X87Stack(s), m, 0);

    internal static void FstpM64(CpuState* s, Op* op, byte* m) => StoreM64(new X87Stack(s), m, 1);

    private static void StoreM64(X87Stack x, byte* m, int pops)
    {
        FloatContext c = x.Context;
        ulong value = FloatConversions.IndefiniteDouble;
        if (Source(x, out Unpacked a, out bool stopped))
        {
            value = FloatConversions.ToDouble(a, ref c);
            stopped = !x.CommitStore(c);
        }
        if (stopped)
            return;
        *(ulong*)m = value;
        x.Pop(pops);
    }

    /// <summary>Stores whatever the register holds, without an exception but of the stack.</summary>
    internal static void FstpM80(CpuState* s, Op* op, byte* m)
    {
        var x = new X87Stack(s);
        Float80 value = x[0];
        if (x.IsEmpty(0))
        {
            if (!x.Underflow())
                return;
            value = Float80.Indefinite;
        }
        else
        {
            x.SetC1(false);
        }
        *(Float80*)m = value;
        x.Pop();
    }

    internal static void FistM16(CpuState* s, Op* op, byte* m) => StoreInteger(new X87Stack(s), m, 2, 0, truncate: false);

    internal static void FistM32(CpuState* s, Op* op, byte* m) => StoreInteger(new X87Stack(s), m, 4, 0, truncate: false);

    internal static void FistpM16(CpuState* s, Op* op, byte* m) => StoreInteger(new X87Stack(s), m, 2, 1, truncate: false);

    internal static void FistpM32(CpuState* s, Op* op, byte* m) => StoreInteger(new X87Stack(s), m, 4, 1, truncate: false);

    internal static void FistpM64(CpuState* s, Op* op, byte* m) => StoreInteger(new X87Stack(s), m, 8, 1, truncate: false);

    internal static void FisttpM16(CpuState* s, Op* op, byte* m) => StoreInteger(new X87Stack(s), m, 2, 1, truncate: true);

    internal static void FisttpM32(CpuState* s, Op* op, byte* m) => StoreInteger(new X87Stack(s), m, 4, 1, truncate: true);

    internal static void FisttpM64(CpuState* s, Op* op, byte* m) => StoreInteger(new X87Stack(s), m, 8, 1, truncate: true);

    private static void StoreInteger(X87Stack x, byte* m, int bytes, int pops, bool truncate)
    {
        FloatContext c = x.Context;
        long value = 1L << (bytes * 8 - 1);
        if (Source(x, out Unpacked a, out bool stopped))
        {
            value = FloatConversions.ToInteger(a, bytes * 8, truncate ? RoundingMode.Zero : c.Rounding, ref c);
            stopped = !x.CommitStore(c);
        }
        if (stopped)
            return;
        switch (bytes)
        {
            case 2: *(short*)m = (short)value; break;
            case 4: *(int*)m = (int)value; break;
            default: *(long*)m = value; break;
        }
        x.Pop(pops);
    }

    internal static void Fbstp(CpuState* s, Op* op, byte* m)
    {
        var x = new X87Stack(s);
        FloatContext c = x.Context;
        (ulong Low, ushort High) value = (FloatConversions.IndefiniteBcdLow, FloatConversions.IndefiniteBcdHigh);
        if (Source(x, out Unpacked a, out bool stopped))
        {
            value = FloatConversions.ToBcd(a, ref c);
            stopped = !x.CommitStore(c);
        }
        if (stopped)
            return;
        *(ulong*)m = value.Low;
        *(ushort*)(m + 8) = value.High;
        x.Pop();
    }

    /// <summary>Empty registers are filled with the indefinite first when the exception is masked.</summary>
    internal static void Fxch(CpuState* s, Op* op, byte* m)
    {
        var x = new X87Stack(s);
        int i = op->Reg;
        if (x.IsEmpty(0) || x.IsEmpty(i))
        {
            if (!x.Underflow())
                return;
            if (x.IsEmpty(0))
                x.Set(0, Float80.Indefinite);
            if (x.IsEmpty(i))
                x.Set(i, Float80.Indefinite);
        }
        else
        {
            x.SetC1(false);
        }
        (x[0], x[i]) = (x[i], x[0]);
    }

    internal static void Fcmovb(CpuState* s, Op* op, byte* m) => Move(s, op, m, Flags.CF, false);

    internal static void Fcmove(CpuState* s, Op* op, byte* m) => Move(s, op, m, Flags.ZF, false);

    internal static void Fcmovbe(CpuState* s, Op* op, byte* m) => Move(s, op, m, Flags.CF | Flags.ZF, false);

    internal static void Fcmovu(CpuState* s, Op* op, byte* m) => Move(s, op, m, Flags.PF, false);

    internal static void Fcmovnb(CpuState* s, Op* op, byte* m) => Move(s, op, m, Flags.CF, true);

    internal static void Fcmovne(CpuState* s, Op* op, byte* m) => Move(s, op, m, Flags.ZF, true);

    internal static void Fcmovnbe(CpuState* s, Op* op, byte* m) => Move(s, op, m, Flags.CF | Flags.ZF, true);

    internal static void Fcmovnu(CpuState* s, Op* op, byte* m) => Move(s, op, m, Flags.PF, true);

    /// <summary>The registers are looked at whether or not the condition holds.</summary>
    private static void Move(CpuState* s, Op* op, byte* m, ulong flags, bool clear)
    {
        var x = new X87Stack(s);
        if (x.IsEmpty(0) || x.IsEmpty(op->Reg))
        {
            if (x.Underflow())
                x.Set(0, Float80.Indefinite);
            return;
        }
        if ((*(ulong*)(m + VectorUnit.FlagsOffset) & flags) != 0 != clear)
            x[0] = x[op->Reg];
    }

    internal static void Ffree(CpuState* s, Op* op, byte* m)
    {
        var x = new X87Stack(s);
        x.SetC1(false);
        x.Free(op->Reg);
    }

    /// <summary>FFREE, then a pop.</summary>
    internal static void Ffreep(CpuState* s, Op* op, byte* m)
    {
        var x = new X87Stack(s);
        x.SetC1(false);
        x.Free(op->Reg);
        x.Pop();
    }

    internal static void Fincstp(CpuState* s, Op* op, byte* m)
    {
        var x = new X87Stack(s);
        x.SetC1(false);
        x.Increment();
    }

    internal static void Fdecstp(CpuState* s, Op* op, byte* m)
    {
        var x = new X87Stack(s);
        x.SetC1(false);
        x.Decrement();
    }

    /// <summary>FNOP, and FENI, FDISI and FSETPM, which mean nothing since the 387.</summary>
    internal static void Nothing(CpuState* s, Op* op, byte* m)
    {
    }
}
