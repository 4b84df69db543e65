using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.X87;

/// <summary>FADD, FSUB, FSUBR, FMUL, FDIV, FDIVR in all forms, and what computes on ST(0) and ST(1).</summary>
/// <remarks>SDM vol 2A, the instructions' pages; vol 1, "x87 FPU Floating-Point Exception Conditions".</remarks>
internal static unsafe class X87Arithmetic
{
    /// <summary>ST(0) and a memory operand.</summary>
    internal static void Memory<TOp, TSource>(CpuState* s, Op* op, byte* m)
        where TOp : struct, IX87Binary
        where TSource : struct, IX87Source
    {
        var x = new X87Stack(s);
        if (x.IsEmpty(0))
        {
            if (x.Underflow())
                x.Set(0, Float80.Indefinite);
            return;
        }
        FloatContext c = x.Context;
        Float80 result = TOp.Compute(x.Operand(0), TSource.Load(m), ref c);
        if (x.Commit(c))
            x[0] = result;
    }

    /// <summary>ST(0) = ST(0) op ST(i).</summary>
    internal static void Top<TOp>(CpuState* s, Op* op, byte* m) where TOp : struct, IX87Binary => Registers<TOp>(s, 0, op->Reg, pop: false);

    /// <summary>ST(i) = ST(i) op ST(0).</summary>
    internal static void Register<TOp>(CpuState* s, Op* op, byte* m) where TOp : struct, IX87Binary => Registers<TOp>(s, op->Reg, 0, pop: false);

    /// <summary>ST(i) = ST(i) op ST(0), then ST(0) is popped.</summary>
    internal static void Popping<TOp>(CpuState* s, Op* op, byte* m) where TOp : struct, IX87Binary => Registers<TOp>(s, op->Reg, 0, pop: true);

    /// <summary>ST(destination) = ST(destination) op ST(source); one of them is ST(0).</summary>
    internal static void Registers<TOp>(CpuState* s, int destination, int source, bool pop) where TOp : struct, IX87Binary
    {
        var x = new X87Stack(s);
        Float80 result = Float80.Indefinite;
        if (x.IsEmpty(0) || x.IsEmpty(destination | source))
        {
            if (!x.Underflow())
                return;
        }
        else
        {
            FloatContext c = x.Context;
            result = TOp.Compute(x.Operand(destination), x.Operand(source), ref c);
            if (!x.Commit(c))
                return;
        }
        x.Set(destination, result);
        if (pop)
            x.Pop();
    }

    /// <summary>ST(0) = op ST(0).</summary>
    internal static void Unary<TOp>(CpuState* s, Op* op, byte* m) where TOp : struct, IX87Unary
    {
        var x = new X87Stack(s);
        Float80 result = Float80.Indefinite;
        if (x.IsEmpty(0))
        {
            if (!x.Underflow())
                return;
        }
        else
        {
            FloatContext c = x.Context;
            result = TOp.Compute(x.Operand(0), ref c);
            if (!x.Commit(c))
                return;
        }
        x.Set(0, result);
    }

    internal static void Fchs(CpuState* s, Op* op, byte* m) => Sign(s, negate: true);

    internal static void Fabs(CpuState* s, Op* op, byte* m) => Sign(s, negate: false);

    private static void Sign(CpuState* s, bool negate)
    {
        var x = new X87Stack(s);
        if (x.IsEmpty(0))
        {
            if (x.Underflow())
                x.Set(0, Float80.Indefinite);
            return;
        }
        x.SetC1(false);
        x[0] = negate ? x[0].Negated : x[0].Absolute;
    }

    internal static void Fscale(CpuState* s, Op* op, byte* m)
    {
        var x = new X87Stack(s);
        Float80 result = Float80.Indefinite;
        if (x.IsEmpty(0) || x.IsEmpty(1))
        {
            if (!x.Underflow())
                return;
        }
        else
        {
            FloatContext c = x.Context;
            result = FloatRemainder.Scale(x.Operand(0), x.Operand(1), ref c);
            if (!x.Commit(c))
                return;
        }
        x.Set(0, result);
    }

    internal static void Fprem(CpuState* s, Op* op, byte* m) => Remainder(s, nearest: false);

    internal static void Fprem1(CpuState* s, Op* op, byte* m) => Remainder(s, nearest: true);

    private static void Remainder(CpuState* s, bool nearest)
    {
        var x = new X87Stack(s);
        x.SetC2(false);
        if (x.IsEmpty(0) || x.IsEmpty(1))
        {
            if (x.Underflow())
                x.Set(0, Float80.Indefinite);
            return;
        }
        FloatContext c = x.Context;
        Float80 result = FloatRemainder.Remainder(x.Operand(0), x.Operand(1), nearest, ref c, out ulong quotient, out bool partial);
        if (!x.Commit(c))
            return;
        x[0] = result;
        if (Unpacked.Of(result).IsFinite)
            x.SetConditions((quotient & 2) != 0, partial, (quotient & 1) != 0, (quotient & 4) != 0);
    }

    internal static void Fxtract(CpuState* s, Op* op, byte* m)
    {
        var x = new X87Stack(s);
        Float80 exponent = Float80.Indefinite, significand = Float80.Indefinite;
        if (x.IsEmpty(0))
        {
            if (!x.Underflow())
                return;
        }
        else if (x.IsFull)
        {
            if (!x.Overflow())
                return;
        }
        else
        {
            FloatContext c = x.Context;
            exponent = FloatRemainder.Extract(x.Operand(0), ref c, out significand);
            if (!x.Commit(c))
                return;
        }
        x.Set(0, exponent);
        x.Push(significand);
    }
}
