using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector;

/// <summary>MASKMOVQ, MASKMOVDQU, VMASKMOVPS/PD, VPMASKMOVD/Q.</summary>
internal static unsafe class MaskedMoves
{
    internal static ExecStatus Maskmovq(Processor cpu, Op* op)
    {
        CpuState* s = cpu.State;
        if (!VectorUnit.Available(cpu, s, VectorFlags.Mmx | VectorFlags.Waits))
            return ExecStatus.Fault;
        // The registers of MMX instructions are those of a stack whose top is 0.
        int top = X87State.Top(s);
        ulong data = *(ulong*)X87State.St(s, (op->Reg - top) & 7), mask = *(ulong*)X87State.St(s, (op->Rm - top) & 7);
        if (!StoreBytes(cpu, op, (byte*)&data, (byte*)&mask, 8))
            return ExecStatus.Fault;
        VectorUnit.BeginMmx(s);
        return ExecStatus.Next;
    }

    internal static ExecStatus Maskmovdqu(Processor cpu, Op* op) => Maskmovdqu(cpu, op, VectorFlags.Sse);
    internal static ExecStatus Vmaskmovdqu(Processor cpu, Op* op) => Maskmovdqu(cpu, op, VectorFlags.Avx);

    private static ExecStatus Maskmovdqu(Processor cpu, Op* op, VectorFlags unit)
    {
        CpuState* s = cpu.State;
        return VectorUnit.Available(cpu, s, unit) && StoreBytes(cpu, op, VectorUnit.Xmm(s, op->Reg), VectorUnit.Xmm(s, op->Rm), 16) ? ExecStatus.Next : ExecStatus.Fault;
    }

    /// <summary>
    /// Bytes whose mask byte has bit 7 set, at DS:rDI. The whole operand must be writable, also for a mask of zeros: the manuals leave that to the implementation,
    /// and processors that were tried fault. DIVERGES: D-HW-8.
    /// </summary>
    private static bool StoreBytes(Processor cpu, Op* op, byte* data, byte* mask, int size)
    {
        ulong offset = Processor.WrapAddress(op, cpu.State->Gpr[7]);
        if (!WideMemory.Linear(cpu, op, offset, size, AccessKind.Write, out ulong linear) || !WideMemory.CanWrite(cpu, linear, size))
            return false;
        for (int i = 0; i < size; i++)
        {
            if ((mask[i] & 0x80) != 0 && !WideMemory.Write(cpu, linear + (ulong)i, data + i, 1))
                return false;
        }
        return true;
    }

    /// <summary>VMASKMOVPS xmm, xmm, m128 and its like: elements that are not selected read as zero and can't fault.</summary>
    internal static ExecStatus Load<TElement, TLength>(Processor cpu, Op* op) where TElement : struct, IWidth where TLength : struct, IVectorLength
    {
        CpuState* s = cpu.State;
        if (!VectorUnit.Available(cpu, s, VectorFlags.Avx))
            return ExecStatus.Fault;
        byte* result = stackalloc byte[32];
        new Span<byte>(result, 32).Clear();
        byte* whole = Operand.FastRead(s, op, (uint)TLength.Bytes);
        ulong address = cpu.EffectiveAddress(op);
        for (int i = 0; i < TLength.Bytes; i += TElement.Size)
        {
            if (!Selected<TElement>(s, op, i))
                continue;
            ulong value;
            if (whole != null)
                value = TElement.Load(whole + i);
            else if (!cpu.Mmu.Read(op->Segment, Processor.WrapAddress(op, address + (ulong)i), TElement.Size, out value))
                return ExecStatus.Fault;
            TElement.Store(result + i, value);
        }
        Buffer.MemoryCopy(result, VectorUnit.Xmm(s, op->Reg), 16, 16);
        Buffer.MemoryCopy(result + 16, VectorUnit.YmmHigh(s, op->Reg), 16, 16);
        return ExecStatus.Next;
    }

    /// <summary>VMASKMOVPS m128, xmm, xmm and its like: all selected elements are written, or none.</summary>
    internal static ExecStatus Store<TElement, TLength>(Processor cpu, Op* op) where TElement : struct, IWidth where TLength : struct, IVectorLength
    {
        CpuState* s = cpu.State;
        if (!VectorUnit.Available(cpu, s, VectorFlags.Avx))
            return ExecStatus.Fault;
        byte* whole = Operand.FastWrite(s, op, (uint)TLength.Bytes);
        ulong address = cpu.EffectiveAddress(op);
        for (int i = 0; whole == null && i < TLength.Bytes; i += TElement.Size)
        {
            if (Selected<TElement>(s, op, i)
                && (!cpu.Mmu.CheckedLinear(op->Segment, Processor.WrapAddress(op, address + (ulong)i), TElement.Size, AccessKind.Write, out ulong linear) || !cpu.Mmu.ProbeWrite(linear, TElement.Size)))
                return ExecStatus.Fault;
        }
        for (int i = 0; i < TLength.Bytes; i += TElement.Size)
        {
            if (!Selected<TElement>(s, op, i))
                continue;
            ulong value = TElement.Load(Part(s, op->Reg, i));
            if (whole != null)
                TElement.Store(whole + i, value);
            else if (!cpu.Mmu.Write(op->Segment, Processor.WrapAddress(op, address + (ulong)i), TElement.Size, value))
                return ExecStatus.Fault;
        }
        return ExecStatus.Next;
    }

    /// <summary>The sign bit of the mask element (in the VEX.vvvv register) at byte <paramref name="at"/>.</summary>
    private static bool Selected<TElement>(CpuState* s, Op* op, int at) where TElement : struct, IWidth => (Part(s, op->Imm2, at)[TElement.Size - 1] & 0x80) != 0;

    /// <summary>Byte <paramref name="at"/> of YMM<paramref name="register"/>.</summary>
    internal static byte* Part(CpuState* s, int register, int at) => at < 16 ? VectorUnit.Xmm(s, register) + at : VectorUnit.YmmHigh(s, register) + (at - 16);
}
