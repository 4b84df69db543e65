using System.Runtime.Intrinsics;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.Integer;

/// <summary>SSE4A EXTRQ and INSERTQ. APM vol 4; lengths and indexes have six bits, length 0 is 64.</summary>
/// <remarks>The manual leaves the high quadword undefined, and the low one where the field goes beyond bit 63: processors clear the one and take what there is of the other.</remarks>
internal static unsafe class BitFields
{
    private static ulong Ones(int length) => (length & 63) == 0 ? ulong.MaxValue : (1UL << length) - 1;

    private static void Extract(byte* target, int length, int index)
        => Vector128.CreateScalar(*(ulong*)target >> index & Ones(length & 63)).Store((ulong*)target);

    private static void Insert(byte* target, ulong source, int length, int index)
    {
        ulong mask = Ones(length & 63) << index;
        Vector128.CreateScalar((*(ulong*)target & ~mask) | (source << index & mask)).Store((ulong*)target);
    }

    /// <summary>EXTRQ xmm, imm8, imm8.</summary>
    internal static void ExtractImmediate(CpuState* s, Op* op, byte* m) => Extract(VectorUnit.Xmm(s, op->Rm), VectorOp.Immediate(op) & 63, VectorOp.SecondImmediate(op) & 63);

    /// <summary>EXTRQ xmm, xmm: length in bits 5:0, index in bits 13:8.</summary>
    internal static void Extract(CpuState* s, Op* op, byte* m)
    {
        byte* control = VectorUnit.Xmm(s, op->Rm);
        Extract(VectorUnit.Xmm(s, op->Reg), control[0] & 63, control[1] & 63);
    }

    /// <summary>INSERTQ xmm, xmm, imm8, imm8.</summary>
    internal static void InsertImmediate(CpuState* s, Op* op, byte* m)
        => Insert(VectorUnit.Xmm(s, op->Reg), *(ulong*)VectorUnit.Xmm(s, op->Rm), VectorOp.Immediate(op) & 63, VectorOp.SecondImmediate(op) & 63);

    /// <summary>INSERTQ xmm, xmm: length in bits 69:64 of the source, index in bits 77:72.</summary>
    internal static void Insert(CpuState* s, Op* op, byte* m)
    {
        byte* source = VectorUnit.Xmm(s, op->Rm);
        Insert(VectorUnit.Xmm(s, op->Reg), *(ulong*)source, source[8] & 63, source[9] & 63);
    }
}
