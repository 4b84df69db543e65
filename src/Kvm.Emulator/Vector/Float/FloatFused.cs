using System.Runtime.CompilerServices;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.Float;

/// <summary>Which of destination (1), VEX.vvvv (2) and r/m operand (3) are multiplied, and which is added.</summary>
internal interface IFusedOrder
{
    static abstract (ulong A, ulong B, ulong Addend) Arrange(ulong first, ulong second, ulong third);
}

internal readonly struct Order132 : IFusedOrder
{
    public static (ulong A, ulong B, ulong Addend) Arrange(ulong first, ulong second, ulong third) => (first, third, second);
}

internal readonly struct Order213 : IFusedOrder
{
    public static (ulong A, ulong B, ulong Addend) Arrange(ulong first, ulong second, ulong third) => (second, first, third);
}

internal readonly struct Order231 : IFusedOrder
{
    public static (ulong A, ulong B, ulong Addend) Arrange(ulong first, ulong second, ulong third) => (second, third, first);
}

/// <summary>Signs of a fused operation, for elements of even and odd index.</summary>
internal interface IFusedSigns
{
    static abstract bool NegateProduct { get; }
    static abstract bool SubtractEven { get; }
    static abstract bool SubtractOdd { get; }
}

internal readonly struct MultiplyAddSigns : IFusedSigns
{
    public static bool NegateProduct => false;
    public static bool SubtractEven => false;
    public static bool SubtractOdd => false;
}

internal readonly struct MultiplySubtractSigns : IFusedSigns
{
    public static bool NegateProduct => false;
    public static bool SubtractEven => true;
    public static bool SubtractOdd => true;
}

internal readonly struct NegativeMultiplyAddSigns : IFusedSigns
{
    public static bool NegateProduct => true;
    public static bool SubtractEven => false;
    public static bool SubtractOdd => false;
}

internal readonly struct NegativeMultiplySubtractSigns : IFusedSigns
{
    public static bool NegateProduct => true;
    public static bool SubtractEven => true;
    public static bool SubtractOdd => true;
}

internal readonly struct MultiplyAddSubtractSigns : IFusedSigns
{
    public static bool NegateProduct => false;
    public static bool SubtractEven => true;
    public static bool SubtractOdd => false;
}

internal readonly struct MultiplySubtractAddSigns : IFusedSigns
{
    public static bool NegateProduct => false;
    public static bool SubtractEven => false;
    public static bool SubtractOdd => true;
}

/// <summary>Cores of the FMA instructions.</summary>
internal static unsafe class FloatFused
{
    [SkipLocalsInit]
    internal static void Packed<N, G, F, S>(CpuState* s, Op* op, byte* m)
        where N : struct, IFusedOrder
        where G : struct, IFusedSigns
        where F : struct, INativeFormat
        where S : struct, IFloatShape
    {
        byte* scratch = stackalloc byte[FloatOperands.Scratch + 32];
        byte* first = FloatOperands.Register(s, op->Reg, S.Bytes, scratch + FloatOperands.Scratch), second = FloatOperands.First<S>(s, op, scratch);
        byte* third = FloatOperands.Second(s, op, m, S.Bytes, scratch), r = scratch + FloatOperands.Result;
        FloatContext c = FloatOperands.Begin(s);
        int size = FloatOperands.Size<F>();
        for (int i = 0; i < S.Bytes; i += size)
            F.Store(r + i, Apply<N, F>(F.Load(first + i), F.Load(second + i), F.Load(third + i), G.NegateProduct, (i & size) == 0 ? G.SubtractEven : G.SubtractOdd, ref c));
        FloatOperands.Write<S>(s, op->Reg, r);
        FloatOperands.End(s, ref c);
    }

    /// <summary>The rest of the destination's low half stays.</summary>
    internal static void Scalar<N, G, F>(CpuState* s, Op* op, byte* m)
        where N : struct, IFusedOrder
        where G : struct, IFusedSigns
        where F : struct, INativeFormat
    {
        FloatContext c = FloatOperands.Begin(s);
        byte* first = VectorUnit.Xmm(s, op->Reg);
        ulong third = F.Load(FloatOperands.Second(s, op, m, 16, null));
        F.Store(first, Apply<N, F>(F.Load(first), F.Load(VectorUnit.Xmm(s, op->Imm2)), third, G.NegateProduct, G.SubtractEven, ref c));
        FloatOperands.Write<Vex128>(s, op->Reg, first);
        FloatOperands.End(s, ref c);
    }

    private static ulong Apply<N, F>(ulong first, ulong second, ulong third, bool negateProduct, bool negateAddend, ref FloatContext c)
        where N : struct, IFusedOrder
        where F : struct, INativeFormat
    {
        (ulong a, ulong b, ulong addend) = N.Arrange(first, second, third);
        if (c.Native && NativeRange.NotDenormal<F>(a) && NativeRange.NotDenormal<F>(b) && NativeRange.NotDenormal<F>(addend))
        {
            ulong r = F.MultiplyAdd(negateProduct ? a ^ SoftFloat.SignBit<F>() : a, b, negateAddend ? addend ^ SoftFloat.SignBit<F>() : addend);
            if (NativeRange.Normal<F>(r))
                return r;
        }
        return SoftFloat.MultiplyAdd<F>(a, b, addend, negateProduct, negateAddend, ref c);
    }
}
