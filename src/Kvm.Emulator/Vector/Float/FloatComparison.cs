using System.Runtime.CompilerServices;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.Float;

/// <summary>Cores of CMPxx, COMISx and UCOMISx.</summary>
internal static unsafe class FloatComparison
{
    // Predicates 0-15: the relations for which they hold; 16-31 are the same with the other behaviour on quiet NaNs.
    private static ReadOnlySpan<byte> Holds => [2, 1, 3, 8, 13, 14, 12, 7, 10, 9, 11, 0, 5, 6, 4, 15];
    private const uint signalling = 0b0110_0110_0110_0110;

    /// <summary>All ones where the predicate holds, zero where not. Legacy encodings have 8 predicates, VEX 32 (SDM vol 2, CMPPD, "Comparison Predicate").</summary>
    private static ulong Test<F>(ulong a, ulong b, int predicate, ref FloatContext c) where F : struct, INativeFormat
    {
        bool signals = ((signalling >> (predicate & 15) ^ (uint)predicate >> 4) & 1) != 0;
        return ((uint)SoftFloat.Compare<F>(a, b, signals, ref c) & Holds[predicate & 15]) != 0 ? ulong.MaxValue : 0;
    }

    private static int Predicate<S>(Op* op) where S : struct, IFloatShape => VectorOp.Immediate(op) & (S.Vex ? 31 : 7);

    [SkipLocalsInit]
    internal static void Packed<F, S>(CpuState* s, Op* op, byte* m)
        where F : struct, INativeFormat
        where S : struct, IFloatShape
    {
        byte* scratch = stackalloc byte[FloatOperands.Scratch];
        byte* a = FloatOperands.First<S>(s, op, scratch), b = FloatOperands.Second(s, op, m, S.Bytes, scratch), r = scratch + FloatOperands.Result;
        FloatContext c = FloatOperands.Begin(s);
        for (int i = 0; i < S.Bytes; i += FloatOperands.Size<F>())
            F.Store(r + i, Test<F>(F.Load(a + i), F.Load(b + i), Predicate<S>(op), ref c));
        FloatOperands.Write<S>(s, op->Reg, r);
        FloatOperands.End(s, ref c);
    }

    internal static void Scalar<F, S>(CpuState* s, Op* op, byte* m)
        where F : struct, INativeFormat
        where S : struct, IFloatShape
    {
        FloatContext c = FloatOperands.Begin(s);
        ulong a = F.Load(VectorUnit.Xmm(s, FloatOperands.FirstNumber<S>(op))), b = F.Load(FloatOperands.Second(s, op, m, 16, null));
        FloatOperands.WriteScalar<F, S>(s, op, Test<F>(a, b, Predicate<S>(op), ref c));
        FloatOperands.End(s, ref c);
    }

    internal static void Ordered<F>(CpuState* s, Op* op, byte* m) where F : struct, INativeFormat => ToFlags<F>(s, op, m, signalling: true);

    internal static void Unordered<F>(CpuState* s, Op* op, byte* m) where F : struct, INativeFormat => ToFlags<F>(s, op, m, signalling: false);

    private static void ToFlags<F>(CpuState* s, Op* op, byte* m, bool signalling) where F : struct, INativeFormat
    {
        FloatContext c = FloatOperands.Begin(s);
        Relation relation = SoftFloat.Compare<F>(F.Load(VectorUnit.Xmm(s, op->Reg)), F.Load(FloatOperands.Second(s, op, m, 16, null)), signalling, ref c);
        *(ulong*)(m + VectorUnit.FlagsOffset) = relation switch
        {
            Relation.Unordered => Flags.ZF | Flags.PF | Flags.CF,
            Relation.Less => Flags.CF,
            Relation.Equal => Flags.ZF,
            _ => 0,
        };
        FloatOperands.End(s, ref c);
    }
}
