using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.X87;

/// <summary>FCOM, FUCOM, FICOM, FTST, FCOMI, FUCOMI in all forms, and FXAM.</summary>
/// <remarks>SDM vol 2A, FCOM/FCOMP/FCOMPP, FUCOM/FUCOMP/FUCOMPP, FCOMI/FCOMIP/FUCOMI/FUCOMIP, FTST, FXAM.</remarks>
internal static unsafe class X87Compare
{
    private const ulong arithmetic = (ulong)(Flags.CF | Flags.PF | Flags.AF | Flags.ZF | Flags.SF | Flags.OF);

    /// <summary>C3 C2 C0, or ZF PF CF.</summary>
    private enum Relation { Greater = 0, Less = 1, Equal = 4, Unordered = 7 }

    internal static void Memory<TSource>(CpuState* s, Op* op, byte* m) where TSource : struct, IX87Source => WithMemory(s, TSource.Load(m), 0);

    internal static void MemoryPop<TSource>(CpuState* s, Op* op, byte* m) where TSource : struct, IX87Source => WithMemory(s, TSource.Load(m), 1);

    internal static void Ftst(CpuState* s, Op* op, byte* m) => WithMemory(s, Unpacked.OfInteger(0), 0);

    internal static void Fcom(CpuState* s, Op* op, byte* m) => Registers(s, op->Reg, quiet: false, 0);

    internal static void Fcomp(CpuState* s, Op* op, byte* m) => Registers(s, op->Reg, quiet: false, 1);

    internal static void Fcompp(CpuState* s, Op* op, byte* m) => Registers(s, 1, quiet: false, 2);

    internal static void Fucom(CpuState* s, Op* op, byte* m) => Registers(s, op->Reg, quiet: true, 0);

    internal static void Fucomp(CpuState* s, Op* op, byte* m) => Registers(s, op->Reg, quiet: true, 1);

    internal static void Fucompp(CpuState* s, Op* op, byte* m) => Registers(s, 1, quiet: true, 2);

    internal static void Fcomi(CpuState* s, Op* op, byte* m) => Flagged(s, op->Reg, m, quiet: false, 0);

    internal static void Fcomip(CpuState* s, Op* op, byte* m) => Flagged(s, op->Reg, m, quiet: false, 1);

    internal static void Fucomi(CpuState* s, Op* op, byte* m) => Flagged(s, op->Reg, m, quiet: true, 0);

    internal static void Fucomip(CpuState* s, Op* op, byte* m) => Flagged(s, op->Reg, m, quiet: true, 1);

    private static void WithMemory(CpuState* s, in Unpacked source, int pops)
    {
        var x = new X87Stack(s);
        Relation relation = Relation.Unordered;
        bool done = x.IsEmpty(0) ? x.Underflow() : Compare(x, source, quiet: false, out relation);
        Report(x, relation, done ? pops : 0);
    }

    private static void Registers(CpuState* s, int i, bool quiet, int pops)
    {
        var x = new X87Stack(s);
        Relation relation = Relation.Unordered;
        bool done = x.IsEmpty(0) || x.IsEmpty(i) ? x.Underflow() : Compare(x, x.Operand(i), quiet, out relation);
        Report(x, relation, done ? pops : 0);
    }

    private static void Report(X87Stack x, Relation relation, int pops)
    {
        x.SetConditions(((int)relation & 4) != 0, ((int)relation & 2) != 0, false, ((int)relation & 1) != 0);
        x.Pop(pops);
    }

    private static void Flagged(CpuState* s, int i, byte* m, bool quiet, int pops)
    {
        var x = new X87Stack(s);
        Relation relation = Relation.Unordered;
        bool done;
        if (x.IsEmpty(0) || x.IsEmpty(i))
        {
            done = x.Underflow();
        }
        else
        {
            bool c1 = x.C1;
            done = Compare(x, x.Operand(i), quiet, out relation);
            x.SetC1(c1);
        }
        ref ulong rflags = ref *(ulong*)(m + VectorUnit.FlagsOffset);
        var bits = (ulong)relation;
        rflags = (rflags & ~arithmetic) | (bits & 4) << 4 | (bits & 2) << 1 | (bits & 1);
        x.Pop(done ? pops : 0);
    }

    /// <summary>False: an unmasked exception has stopped the comparison.</summary>
    private static bool Compare(X87Stack x, in Unpacked b, bool quiet, out Relation relation)
    {
        FloatContext c = x.Context;
        Unpacked a = x.Operand(0);
        relation = Relation.Unordered;
        if (a.Kind >= FloatKind.QuietNaN || b.Kind >= FloatKind.QuietNaN)
        {
            if (!quiet || a.Kind > FloatKind.QuietNaN || b.Kind > FloatKind.QuietNaN)
                c.Raised |= X87Exceptions.Invalid;
            return x.Commit(c);
        }
        c.NoteDenormal(a);
        c.NoteDenormal(b);
        int order = FloatArithmetic.Compare(a, b);
        relation = order < 0 ? Relation.Less : order > 0 ? Relation.Greater : Relation.Equal;
        return x.Commit(c);
    }

    /// <summary>C3 C2 C0: the class; C1: the sign, also of an empty register.</summary>
    internal static void Fxam(CpuState* s, Op* op, byte* m)
    {
        var x = new X87Stack(s);
        int kind = x.IsEmpty(0) ? 5 : x.Operand(0).Kind switch
        {
            FloatKind.Unsupported => 0,
            FloatKind.QuietNaN or FloatKind.SignalingNaN => 1,
            FloatKind.Normal => 2,
            FloatKind.Infinity => 3,
            FloatKind.Zero => 4,
            _ => 6,
        };
        x.SetConditions((kind & 4) != 0, (kind & 2) != 0, x[0].Negative, (kind & 1) != 0);
    }
}
