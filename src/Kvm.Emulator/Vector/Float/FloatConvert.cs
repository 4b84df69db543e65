using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.Float;

/// <summary>Cores of conversions.</summary>
internal static unsafe class FloatConvert
{
    /// <summary>As many elements as the wider side has room for; where results are narrower than sources, zeros fill the register.</summary>
    [SkipLocalsInit]
    internal static void Packed<V, S>(CpuState* s, Op* op, byte* m)
        where V : struct, IFloatConversion
        where S : struct, IFloatShape
    {
        byte* scratch = stackalloc byte[FloatOperands.Scratch];
        byte* from = FloatOperands.Second(s, op, m, S.Bytes, scratch), r = scratch + FloatOperands.Result;
        Vector256<byte>.Zero.Store(r);
        FloatContext c = FloatOperands.Begin(s);
        int count = S.Bytes / Math.Max(V.FromBytes, V.ToBytes);
        for (int i = 0; i < count; i++)
            V.Apply(from + i * V.FromBytes, r + i * V.ToBytes, ref c);
        FloatOperands.Write<S>(s, op->Reg, r);
        FloatOperands.End(s, ref c);
    }

    /// <summary>CVTSS2SD, CVTSD2SS.</summary>
    internal static void Scalar<From, To, S>(CpuState* s, Op* op, byte* m)
        where From : struct, INativeFormat
        where To : struct, INativeFormat
        where S : struct, IFloatShape
    {
        FloatContext c = FloatOperands.Begin(s);
        ulong value = SoftFloat.Convert<From, To>(From.Load(FloatOperands.Second(s, op, m, 16, null)), ref c);
        FloatOperands.WriteScalar<To, S>(s, op, value);
        FloatOperands.End(s, ref c);
    }

    /// <summary>CVTSI2SS, CVTSI2SD.</summary>
    internal static void FromGeneral<V, F, S>(CpuState* s, Op* op, byte* m)
        where V : struct, IFloatConversion
        where F : struct, INativeFormat
        where S : struct, IFloatShape
    {
        FloatContext c = FloatOperands.Begin(s);
        ulong value = 0;
        V.Apply(op->HasMemory ? m : (byte*)&s->Gpr[op->Rm], (byte*)&value, ref c);
        FloatOperands.WriteScalar<F, S>(s, op, value);
        FloatOperands.End(s, ref c);
    }

    /// <summary>CVTSS2SI, CVTSD2SI and the truncating ones.</summary>
    internal static void ToGeneral<V>(CpuState* s, Op* op, byte* m) where V : struct, IFloatConversion
    {
        FloatContext c = FloatOperands.Begin(s);
        ulong value = 0; // 32-bit results clear the upper half
        V.Apply(FloatOperands.Second(s, op, m, 16, null), (byte*)&value, ref c);
        s->Gpr[op->Reg] = value;
        FloatOperands.End(s, ref c);
    }

    private static byte* Mmx(CpuState* s, int number) => s->Fx + VectorUnit.FxSt + (number << 4);

    /// <summary>CVTPI2PS, CVTPI2PD: two integers from an MMX register or memory; the rest of the destination stays.</summary>
    internal static void FromMmx<V>(CpuState* s, Op* op, byte* m) where V : struct, IFloatConversion
    {
        FloatContext c = FloatOperands.Begin(s);
        byte* from = m, to = VectorUnit.Xmm(s, op->Reg);
        if (!op->HasMemory)
        {
            VectorUnit.BeginMmx(s);
            from = Mmx(s, op->Rm);
        }
        for (int i = 0; i < 2; i++)
            V.Apply(from + i * 4, to + i * V.ToBytes, ref c);
        FloatOperands.End(s, ref c);
    }

    /// <summary>CVTPS2PI, CVTPD2PI and the truncating ones: two integers into an MMX register.</summary>
    internal static void ToMmx<V>(CpuState* s, Op* op, byte* m) where V : struct, IFloatConversion
    {
        FloatContext c = FloatOperands.Begin(s);
        byte* from = FloatOperands.Second(s, op, m, 16, null);
        ulong value = 0;
        for (int i = 0; i < 2; i++)
            V.Apply(from + i * V.FromBytes, (byte*)&value + i * 4, ref c);
        VectorUnit.BeginMmx(s);
        byte* to = Mmx(s, op->Reg);
        *(ulong*)to = value;
        *(ushort*)(to + 8) = 0xffff;
        FloatOperands.End(s, ref c);
    }

    /// <summary>VCVTPS2PH: to the r/m operand; bits 1:0 of the immediate are the rounding mode unless bit 2 says to take MXCSR's.</summary>
    [SkipLocalsInit]
    internal static void SingleToHalf<S>(CpuState* s, Op* op, byte* m) where S : struct, IFloatShape
    {
        byte* scratch = stackalloc byte[FloatOperands.Scratch];
        byte* from = FloatOperands.Register(s, op->Reg, S.Bytes, scratch), r = scratch + FloatOperands.Result;
        Vector128<byte>.Zero.Store(r);
        FloatContext c = FloatOperands.Begin(s);
        byte immediate = VectorOp.Immediate(op);
        if ((immediate & 4) == 0)
            c.Rounding = (Rounding)(immediate & 3);
        for (int i = 0; i < S.Bytes / 4; i++)
            ((ushort*)r)[i] = (ushort)SoftFloat.Convert<Binary32, Binary16>(((uint*)from)[i], ref c);
        if (op->HasMemory)
            Unsafe.CopyBlockUnaligned(m, r, (uint)S.Bytes / 2);
        else
            FloatOperands.Write<Vex128>(s, op->Rm, r);
        FloatOperands.End(s, ref c);
    }
}
