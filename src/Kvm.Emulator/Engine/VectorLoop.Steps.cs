using System.Runtime.CompilerServices;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Engine;

internal static unsafe partial class VectorLoop
{
    /// <summary>Conditions that hold, as a branch after a comparison in this loop has it in place of a register: bits of <see cref="IVectorArithmetic.ComiSd"/>.</summary>
    internal static byte Relations(OpKind branch)
    {
        // Three bits for each condition.
        const ulong holds = 0x3470_7070_1634_5270UL;
        return (byte)(holds >> ((branch - OpKind.JO) << 2) & 7);
    }

    /// <summary>RFLAGS after a comparison.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void RecordComparison(CpuState* s, uint relation)
    {
        s->LazyOp = LazyOp.None;
        s->Rflags = (s->Rflags & ~LazyFlags.All) | relation >> 8;
    }

    /// <summary>All exceptions are masked: no core can end in one.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool Masked(CpuState* s) => (VectorUnit.Mxcsr(s) & VectorUnit.MxcsrMasks) == VectorUnit.MxcsrMasks;

    /// <summary>Any instruction that has a core. Host functions leave the host's MXCSR as it was; those in C# may do anything to its flags.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Compute(CpuState* s, Op* op, byte* area) => VectorUnit.Compute(s, op, VectorOp.Of(op), area);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool ComputeFromMemory(CpuState* s, Op* op, byte* area)
    {
        VectorOp* v = VectorOp.Of(op);
        if ((v->Flags & VectorFlags.Float) != 0 && !Masked(s))
            return false;
        byte* p = Operand.FastRead(s, op, v->MemoryBytes);
        if (p == null || ((nuint)p & (v->Alignment - 1u)) != 0)
            return false;
        VectorUnit.Copy(p, area, v->MemoryBytes);
        VectorUnit.Compute(s, op, v, area);
        return true;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool ComputeToMemory(CpuState* s, Op* op, byte* area)
    {
        VectorOp* v = VectorOp.Of(op);
        byte* p = Operand.FastWrite(s, op, v->MemoryBytes);
        if (p == null || ((nuint)p & (v->Alignment - 1u)) != 0)
            return false;
        VectorUnit.Compute(s, op, v, area);
        VectorUnit.Copy(area, p, v->MemoryBytes);
        return true;
    }
}
