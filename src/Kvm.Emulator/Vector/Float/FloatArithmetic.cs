using System.Runtime.CompilerServices;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.Float;

/// <summary>Cores of arithmetic instructions: elements one by one, the exceptions of all of them together.</summary>
internal static unsafe class FloatArithmetic
{
    /// <summary>Each element of the first source with the same of the second.</summary>
    [SkipLocalsInit]
    internal static void Packed<O, F, S>(CpuState* s, Op* op, byte* m)
        where O : struct, IFloatBinary
        where F : struct, INativeFormat
        where S : struct, IFloatShape
    {
        byte* scratch = stackalloc byte[FloatOperands.Scratch];
        byte* a = FloatOperands.First<S>(s, op, scratch), b = FloatOperands.Second(s, op, m, S.Bytes, scratch), r = scratch + FloatOperands.Result;
        FloatContext c = FloatOperands.Begin(s);
        for (int i = 0; i < S.Bytes; i += FloatOperands.Size<F>())
            F.Store(r + i, O.Apply<F>(F.Load(a + i), F.Load(b + i), ref c));
        FloatOperands.Write<S>(s, op->Reg, r);
        FloatOperands.End(s, ref c);
    }

    [SkipLocalsInit]
    internal static void Scalar<O, F, S>(CpuState* s, Op* op, byte* m)
        where O : struct, IFloatBinary
        where F : struct, INativeFormat
        where S : struct, IFloatShape
    {
        FloatContext c = FloatOperands.Begin(s);
        ulong a = F.Load(VectorUnit.Xmm(s, FloatOperands.FirstNumber<S>(op))), b = F.Load(FloatOperands.Second(s, op, m, 16, null));
        FloatOperands.WriteScalar<F, S>(s, op, O.Apply<F>(a, b, ref c));
        FloatOperands.End(s, ref c);
    }

    [SkipLocalsInit]
    internal static void PackedUnary<O, F, S>(CpuState* s, Op* op, byte* m)
        where O : struct, IFloatUnary
        where F : struct, INativeFormat
        where S : struct, IFloatShape
    {
        byte* scratch = stackalloc byte[FloatOperands.Scratch];
        byte* a = FloatOperands.Second(s, op, m, S.Bytes, scratch), r = scratch + FloatOperands.Result;
        FloatContext c = FloatOperands.Begin(s);
        for (int i = 0; i < S.Bytes; i += FloatOperands.Size<F>())
            F.Store(r + i, O.Apply<F>(F.Load(a + i), VectorOp.Immediate(op), ref c));
        FloatOperands.Write<S>(s, op->Reg, r);
        FloatOperands.End(s, ref c);
    }

    internal static void ScalarUnary<O, F, S>(CpuState* s, Op* op, byte* m)
        where O : struct, IFloatUnary
        where F : struct, INativeFormat
        where S : struct, IFloatShape
    {
        FloatContext c = FloatOperands.Begin(s);
        ulong a = F.Load(FloatOperands.Second(s, op, m, 16, null));
        FloatOperands.WriteScalar<F, S>(s, op, O.Apply<F>(a, VectorOp.Immediate(op), ref c));
        FloatOperands.End(s, ref c);
    }

    /// <summary>HADDxx, HSUBxx: neighbours within a source, in each 128 bits first those of the first source, then those of the second.</summary>
    [SkipLocalsInit]
    internal static void Horizontal<O, F, S>(CpuState* s, Op* op, byte* m)
        where O : struct, IFloatBinary
        where F : struct, INativeFormat
        where S : struct, IFloatShape
    {
        byte* scratch = stackalloc byte[FloatOperands.Scratch];
        byte* a = FloatOperands.First<S>(s, op, scratch), b = FloatOperands.Second(s, op, m, S.Bytes, scratch), r = scratch + FloatOperands.Result;
        FloatContext c = FloatOperands.Begin(s);
        int size = FloatOperands.Size<F>();
        for (int i = 0; i < S.Bytes; i += size)
        {
            byte* pair = ((i & 8) == 0 ? a : b) + (i & 16) + (i & 7) * 2;
            F.Store(r + i, O.Apply<F>(F.Load(pair), F.Load(pair + size), ref c));
        }
        FloatOperands.Write<S>(s, op->Reg, r);
        FloatOperands.End(s, ref c);
    }

    /// <summary>ADDSUBxx: even elements are subtracted, odd ones added.</summary>
    [SkipLocalsInit]
    internal static void Alternating<F, S>(CpuState* s, Op* op, byte* m)
        where F : struct, INativeFormat
        where S : struct, IFloatShape
    {
        byte* scratch = stackalloc byte[FloatOperands.Scratch];
        byte* a = FloatOperands.First<S>(s, op, scratch), b = FloatOperands.Second(s, op, m, S.Bytes, scratch), r = scratch + FloatOperands.Result;
        FloatContext c = FloatOperands.Begin(s);
        int size = FloatOperands.Size<F>();
        for (int i = 0; i < S.Bytes; i += size)
        {
            ulong x = F.Load(a + i), y = F.Load(b + i);
            F.Store(r + i, (i & size) == 0 ? SubtractOperation.Apply<F>(x, y, ref c) : AddOperation.Apply<F>(x, y, ref c));
        }
        FloatOperands.Write<S>(s, op->Reg, r);
        FloatOperands.End(s, ref c);
    }
}
