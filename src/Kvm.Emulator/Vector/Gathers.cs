using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector;

/// <summary>VGATHERDPS/DPD/QPS/QPD, VPGATHERDD/DQ/QD/QQ.</summary>
/// <remarks>
/// SDM vol 2C. Elements are loaded from the lowest up; each one that is done has its mask element cleared, so that after a fault the instruction goes on where it
/// stopped. Mask elements not reached yet are spread over their whole element first on Intel's processors and left as they are on AMD's.
/// </remarks>
internal static unsafe class Gathers
{
    /// <typeparam name="TIndex">Width of the indices.</typeparam>
    /// <typeparam name="TElement">Width of what is loaded.</typeparam>
    /// <typeparam name="TLength">The vector length, which the wider of the two fills.</typeparam>
    internal static ExecStatus Gather<TIndex, TElement, TLength>(Processor cpu, Op* op) where TIndex : struct, IWidth where TElement : struct, IWidth where TLength : struct, IVectorLength
    {
        CpuState* s = cpu.State;
        if (op->Reg == op->Index || op->Reg == op->Imm2 || op->Index == op->Imm2)
            return cpu.RaiseUd();
        if (!VectorUnit.Available(cpu, s, VectorFlags.Avx))
            return ExecStatus.Fault;
        int count = TLength.Bytes / Math.Max(TIndex.Size, TElement.Size), mask = op->Imm2;
        if (!cpu.Fpu.Amd)
            Spread<TElement>(s, mask, count);
        for (int i = 0; i < count; i++)
        {
            int at = i * TElement.Size;
            byte* selector = MaskedMoves.Part(s, mask, at);
            if ((selector[TElement.Size - 1] & 0x80) != 0)
            {
                if (!cpu.Mmu.Read(op->Segment, Address<TIndex>(s, op, i), TElement.Size, out ulong value))
                    return ExecStatus.Fault;
                TElement.Store(MaskedMoves.Part(s, op->Reg, at), value);
            }
            TElement.Store(selector, 0);
        }
        Clear(s, op->Reg, count * TElement.Size);
        Clear(s, mask, 0);
        return ExecStatus.Next;
    }

    private static void Spread<TElement>(CpuState* s, int mask, int count) where TElement : struct, IWidth
    {
        for (int i = 0; i < count; i++)
        {
            byte* selector = MaskedMoves.Part(s, mask, i * TElement.Size);
            TElement.Store(selector, (selector[TElement.Size - 1] & 0x80) != 0 ? ulong.MaxValue : 0);
        }
    }

    private static ulong Address<TIndex>(CpuState* s, Op* op, int i) where TIndex : struct, IWidth
    {
        ulong address = (ulong)op->Disp + (TIndex.LoadSigned(MaskedMoves.Part(s, op->Index, i * TIndex.Size)) << op->Scale);
        if (op->Base != Op.NoRegister)
            address += s->Gpr[op->Base];
        return Processor.WrapAddress(op, address);
    }

    /// <summary>The register from byte <paramref name="from"/> up.</summary>
    private static void Clear(CpuState* s, int register, int from)
    {
        for (int at = from; at < 32; at += 4)
            *(uint*)MaskedMoves.Part(s, register, at) = 0;
    }
}
