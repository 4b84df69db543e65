using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.Integer;

/// <summary>Cores of the operand forms of MMX instructions: 64-bit operands as the low half of a lane.</summary>
/// <remarks>
/// SDM vol 1, "Transition Between x87 FPU and MMX Instructions": every MMX instruction but EMMS leaves TOP = 0 and all tags valid, and a register that it writes
/// has ones in bits 79:64. MMn is the *physical* register n, the FXSAVE image is relative to TOP: a TOP other than 0 turns the image round.
/// </remarks>
internal static unsafe class MmxLanes
{
    private const ushort top = 0x3800;

    /// <summary>Before anything else in every MMX core: afterwards MMn is slot n of the image.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void Enter(CpuState* s)
    {
        if ((*(ushort*)(s->Fx + VectorUnit.FxStatus) & top) != 0)
            VectorUnit.ResetTop(s);
        s->Fx[VectorUnit.FxTags] = 0xff;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static ref ulong Register(CpuState* s, int n) => ref *(ulong*)(s->Fx + VectorUnit.FxSt + (n << 4));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void Put(CpuState* s, int n, ulong value)
    {
        Register(s, n) = value;
        *(ushort*)(s->Fx + VectorUnit.FxSt + (n << 4) + 8) = 0xffff;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static ulong Rm(CpuState* s, Op* op, byte* m) => op->HasMemory ? *(ulong*)m : Register(s, op->Rm);

    /// <summary>op mm, mm/m64 [, imm8] on elements that stay where they are, and unpacking of low halves.</summary>
    internal static void Packed<T>(CpuState* s, Op* op, byte* m) where T : struct, ILane
    {
        Enter(s);
        Put(s, op->Reg, T.Of(Vector128.CreateScalar(Register(s, op->Reg)).AsByte(), Vector128.CreateScalar(Rm(s, op, m)).AsByte(), VectorOp.Immediate(op)).AsUInt64().ToScalar());
    }

    /// <summary>op mm, mm/m64 that makes each half of the result from one operand (packs, horizontal sums): both operands are one lane.</summary>
    internal static void Joined<T>(CpuState* s, Op* op, byte* m) where T : struct, ILane
    {
        Enter(s);
        Vector128<byte> both = Vector128.Create(Register(s, op->Reg), Rm(s, op, m)).AsByte();
        Put(s, op->Reg, T.Of(both, both, 0).AsUInt64().ToScalar());
    }

    /// <summary>Unpacking of high halves: what the unpacking of low halves of a lane leaves above the result of low halves.</summary>
    internal static void UnpackHigh<T>(CpuState* s, Op* op, byte* m) where T : struct, ILane
    {
        Enter(s);
        Put(s, op->Reg, T.Of(Vector128.CreateScalar(Register(s, op->Reg)).AsByte(), Vector128.CreateScalar(Rm(s, op, m)).AsByte(), 0).AsUInt64().GetElement(1));
    }

    /// <summary>op mm, mm/m64: shift by the whole operand.</summary>
    internal static void Shift<T>(CpuState* s, Op* op, byte* m) where T : struct, IShift
    {
        Enter(s);
        Put(s, op->Reg, T.Of(Vector128.CreateScalar(Register(s, op->Reg)).AsByte(), Rm(s, op, m)).AsUInt64().ToScalar());
    }

    /// <summary>op mm, imm8.</summary>
    internal static void ShiftImmediate<T>(CpuState* s, Op* op, byte* m) where T : struct, IShift
    {
        Enter(s);
        Put(s, op->Rm, T.Of(Vector128.CreateScalar(Register(s, op->Rm)).AsByte(), VectorOp.Immediate(op)).AsUInt64().ToScalar());
    }
}
