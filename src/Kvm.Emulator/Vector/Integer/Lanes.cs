using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.Integer;

/// <summary>Cores of the operand forms that XMM and YMM instructions have, over what they do to a lane.</summary>
internal static unsafe class Lanes
{
    /// <summary>Low 16 bytes of the rm operand.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static byte* Rm(CpuState* s, Op* op, byte* m) => op->HasMemory ? m : VectorUnit.Xmm(s, op->Rm);

    /// <summary>High 16 bytes of a 256-bit rm operand.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static byte* RmHigh(CpuState* s, Op* op, byte* m) => op->HasMemory ? m + 16 : VectorUnit.YmmHigh(s, op->Rm);

    /// <summary>A VEX.128 result: the rest of the register becomes zero.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void Put(CpuState* s, int register, Vector128<byte> value)
    {
        value.Store(VectorUnit.Xmm(s, register));
        Vector128<byte>.Zero.Store(VectorUnit.YmmHigh(s, register));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void Put(CpuState* s, int register, Vector128<byte> low, Vector128<byte> high)
    {
        low.Store(VectorUnit.Xmm(s, register));
        high.Store(VectorUnit.YmmHigh(s, register));
    }

    /// <summary>op xmm, xmm/m128 [, imm8]: the destination is the first source; the rest of its register stays.</summary>
    internal static void Sse<T>(CpuState* s, Op* op, byte* m) where T : struct, ILane
    {
        byte* target = VectorUnit.Xmm(s, op->Reg);
        T.Of(Vector128.Load(target), Vector128.Load(Rm(s, op, m)), VectorOp.Immediate(op)).Store(target);
    }

    /// <summary>vop xmm, xmm, xmm/m128 [, imm8] and vop xmm, xmm/m128 [, imm8].</summary>
    internal static void Vex128<T>(CpuState* s, Op* op, byte* m) where T : struct, ILane
        => Put(s, op->Reg, T.Of(Vector128.Load(VectorUnit.Xmm(s, op->Imm2)), Vector128.Load(Rm(s, op, m)), VectorOp.Immediate(op)));

    /// <summary>vop ymm, ymm, ymm/m256 [, imm8] and vop ymm, ymm/m256 [, imm8].</summary>
    internal static void Vex256<T>(CpuState* s, Op* op, byte* m) where T : struct, ILane
    {
        int immediate = VectorOp.Immediate(op);
        Vector128<byte> low = T.Of(Vector128.Load(VectorUnit.Xmm(s, op->Imm2)), Vector128.Load(Rm(s, op, m)), immediate);
        Vector128<byte> high = T.Of(Vector128.Load(VectorUnit.YmmHigh(s, op->Imm2)), Vector128.Load(RmHigh(s, op, m)), immediate >> T.ImmediateBits);
        Put(s, op->Reg, low, high);
    }

    /// <summary>op xmm, xmm/m128, &lt;XMM0&gt;: the third source is implied.</summary>
    internal static void SseMasked<T>(CpuState* s, Op* op, byte* m) where T : struct, IMaskedLane
    {
        byte* target = VectorUnit.Xmm(s, op->Reg);
        T.Of(Vector128.Load(target), Vector128.Load(Rm(s, op, m)), Vector128.Load(VectorUnit.Xmm(s, 0))).Store(target);
    }

    /// <summary>vop xmm, xmm, xmm/m128, xmm.</summary>
    internal static void Vex128Masked<T>(CpuState* s, Op* op, byte* m) where T : struct, IMaskedLane
        => Put(s, op->Reg, T.Of(Vector128.Load(VectorUnit.Xmm(s, op->Imm2)), Vector128.Load(Rm(s, op, m)), Vector128.Load(VectorUnit.Xmm(s, VectorOp.Immediate(op)))));

    /// <summary>vop ymm, ymm, ymm/m256, ymm.</summary>
    internal static void Vex256Masked<T>(CpuState* s, Op* op, byte* m) where T : struct, IMaskedLane
    {
        int mask = VectorOp.Immediate(op);
        Vector128<byte> low = T.Of(Vector128.Load(VectorUnit.Xmm(s, op->Imm2)), Vector128.Load(Rm(s, op, m)), Vector128.Load(VectorUnit.Xmm(s, mask)));
        Vector128<byte> high = T.Of(Vector128.Load(VectorUnit.YmmHigh(s, op->Imm2)), Vector128.Load(RmHigh(s, op, m)), Vector128.Load(VectorUnit.YmmHigh(s, mask)));
        Put(s, op->Reg, low, high);
    }
}

/// <summary>What an instruction with a third vector source does to one lane.</summary>
internal interface IMaskedLane
{
    static abstract Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, Vector128<byte> mask);
}
