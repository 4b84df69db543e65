using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector;

/// <summary>Memory operands larger than a register: checked as a whole first, then moved a page at a time.</summary>
/// <remarks>False: a fault or an exit is pending.</remarks>
internal static unsafe class WideMemory
{
    /// <summary>
    /// Segment checks of the whole operand: limit, type, canonical form. <paramref name="alignment"/>: #GP(0) unless the linear address is a multiple;
    /// <paramref name="checkAlignment"/> is what alignment checks want, when they are on.
    /// </summary>
    internal static bool Linear(Processor cpu, Op* op, ulong offset, int size, AccessKind kind, out ulong linear, ulong alignment = 1, ulong checkAlignment = 1)
    {
        if (!cpu.Mmu.CheckedLinear(op->Segment, offset, 1, kind, out linear) || !cpu.Mmu.CheckedLinear(op->Segment, offset + (ulong)size - 1, 1, kind, out _))
            return false;
        if ((linear & (alignment - 1)) != 0)
        {
            cpu.RaiseGp();
            return false;
        }
        if ((cpu.State->Mode & (uint)CodeMode.AlignmentCheck) == 0 || (linear & (checkAlignment - 1)) == 0)
            return true;
        cpu.Raise(new Fault(Fault.AC, true));
        return false;
    }

    /// <summary>Nothing has been read when the second page faults.</summary>
    internal static bool Read(Processor cpu, ulong linear, byte* to, int size)
    {
        CpuState* s = cpu.State;
        for (int done = 0; done < size;)
        {
            ulong at = linear + (ulong)done;
            int piece = Math.Min(size - done, 0x1000 - (int)(at & 0xfff));
            TlbEntry* entry = Operand.Entry(s, at);
            if (entry->ReadTag == (at & Operand.PageMask))
                Buffer.MemoryCopy((byte*)(at + entry->Addend), to + done, piece, piece);
            else if (!ReadSlow(cpu, at, to + done, piece))
                return false;
            done += piece;
        }
        return true;
    }

    /// <summary>Whether the bytes can be written: faults before anything is.</summary>
    internal static bool CanWrite(Processor cpu, ulong linear, int size) => cpu.Mmu.ProbeWrite(linear, size);

    /// <summary>After <see cref="CanWrite"/>.</summary>
    internal static bool Write(Processor cpu, ulong linear, byte* from, int size)
    {
        CpuState* s = cpu.State;
        for (int done = 0; done < size;)
        {
            ulong at = linear + (ulong)done;
            int piece = Math.Min(size - done, 0x1000 - (int)(at & 0xfff));
            TlbEntry* entry = Operand.Entry(s, at);
            if (entry->WriteTag == (at & Operand.PageMask))
                Buffer.MemoryCopy(from + done, (byte*)(at + entry->Addend), piece, piece);
            else if (!WriteSlow(cpu, at, from + done, piece))
                return false;
            done += piece;
        }
        return true;
    }

    private static bool ReadSlow(Processor cpu, ulong linear, byte* to, int size)
    {
        for (int i = 0, part; i < size; i += part)
        {
            part = Part(size - i);
            if (!cpu.Mmu.Read(Seg.None, linear + (ulong)i, part, out ulong value))
                return false;
            Buffer.MemoryCopy(&value, to + i, part, part);
        }
        return true;
    }

    private static bool WriteSlow(Processor cpu, ulong linear, byte* from, int size)
    {
        for (int i = 0, part; i < size; i += part)
        {
            part = Part(size - i);
            ulong value = 0;
            Buffer.MemoryCopy(from + i, &value, part, part);
            if (!cpu.Mmu.Write(Seg.None, linear + (ulong)i, part, value))
                return false;
        }
        return true;
    }

    private static int Part(int left) => left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}
