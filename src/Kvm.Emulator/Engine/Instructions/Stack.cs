namespace Kvm.Emulator.Engine;

/// <summary>PUSH POP PUSHA POPA PUSHF ENTER LEAVE. The stack pointer moves only when every access has succeeded.</summary>
internal static unsafe class Stack
{
    /// <summary>All ones, 32 or 16 bits: the part of RSP that addresses the stack.</summary>
    internal static ulong PointerMask(CpuState* s)
    {
        uint mode = s->Mode;
        return (mode & (uint)CodeMode.SizeMask) == (uint)CodeMode.Code64 ? ulong.MaxValue : (mode & (uint)CodeMode.Stack32) != 0 ? uint.MaxValue : (ulong)ushort.MaxValue;
    }

    internal static void SetPointer(CpuState* s, ulong mask, ulong value)
    {
        if (mask == ushort.MaxValue)
            *(ushort*)&s->Gpr[4] = (ushort)value;
        else
            s->Gpr[4] = value & mask;
    }

    private static void SetFrame(CpuState* s, int width, ulong value)
    {
        if (width == 2)
            *(ushort*)&s->Gpr[5] = (ushort)value;
        else
            s->Gpr[5] = width == 4 ? (uint)value : value;
    }

    internal static bool Push(Processor cpu, int size, ulong value)
    {
        CpuState* s = cpu.State;
        ulong mask = PointerMask(s);
        ulong sp = (s->Gpr[4] - (ulong)size) & mask;
        if (!cpu.Mmu.Write(Seg.SS, sp, size, value))
            return false;
        SetPointer(s, mask, sp);
        return true;
    }

    /// <summary>Reads what a POP would give, <paramref name="skip"/> bytes above the top; moves nothing.</summary>
    internal static bool Peek(Processor cpu, int size, ulong skip, out ulong value)
    {
        CpuState* s = cpu.State;
        return cpu.Mmu.Read(Seg.SS, (s->Gpr[4] + skip) & PointerMask(s), size, out value);
    }

    internal static void Drop(CpuState* s, ulong bytes) => SetPointer(s, PointerMask(s), s->Gpr[4] + bytes);

    internal static ExecStatus PushRm<TW>(Processor cpu, Op* op) where TW : struct, IWidth
        => Operand.ReadRm<TW>(cpu, op, out ulong value) && Push(cpu, TW.Size, value) ? ExecStatus.Next : ExecStatus.Fault;

    internal static ExecStatus PushImm<TW>(Processor cpu, Op* op) where TW : struct, IWidth
        => Push(cpu, TW.Size, TW.Zero(op->Imm)) ? ExecStatus.Next : ExecStatus.Fault;

    internal static ExecStatus PopReg<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        if (!Peek(cpu, TW.Size, 0, out ulong value))
            return ExecStatus.Fault;
        Drop(cpu.State, (ulong)TW.Size);
        TW.StoreRegister(Operand.Rm(cpu.State, op), value);
        return ExecStatus.Next;
    }

    /// <summary>POP r/m: an address that uses RSP uses the value after the pop.</summary>
    internal static ExecStatus PopRm<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        if (!op->HasMemory)
            return PopReg<TW>(cpu, op);
        if (!Peek(cpu, TW.Size, 0, out ulong value))
            return ExecStatus.Fault;
        ulong sp = cpu.State->Gpr[4];
        Drop(cpu.State, (ulong)TW.Size);
        if (cpu.Mmu.Write(op->Segment, cpu.EffectiveAddress(op), TW.Size, value))
            return ExecStatus.Next;
        cpu.State->Gpr[4] = sp;
        return ExecStatus.Fault;
    }

    internal static ExecStatus PushAll<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        CpuState* s = cpu.State;
        ulong mask = PointerMask(s), sp = s->Gpr[4];
        for (int i = 0; i < 8; i++)
            if (!cpu.Mmu.Write(Seg.SS, (sp - (ulong)((i + 1) * TW.Size)) & mask, TW.Size, TW.Zero(s->Gpr[i])))
                return ExecStatus.Fault;
        SetPointer(s, mask, sp - (ulong)(8 * TW.Size));
        return ExecStatus.Next;
    }

    internal static ExecStatus PopAll<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        CpuState* s = cpu.State;
        ulong mask = PointerMask(s), sp = s->Gpr[4];
        ulong* values = stackalloc ulong[8];
        for (int i = 0; i < 8; i++)
            if (!cpu.Mmu.Read(Seg.SS, (sp + (ulong)(i * TW.Size)) & mask, TW.Size, out values[i]))
                return ExecStatus.Fault;
        for (int i = 0; i < 8; i++)
            if (7 - i != 4)
                TW.StoreRegister(&s->Gpr[7 - i], values[i]);
        SetPointer(s, mask, sp + (ulong)(8 * TW.Size));
        return ExecStatus.Next;
    }

    /// <summary>PUSHF: VM and RF read as zero; in virtual-8086 mode IOPL 3 or, for the 16-bit form, CR4.VME is needed.</summary>
    internal static ExecStatus Pushf<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        const ulong iopl = 3UL << 12, interrupt = 1UL << 9, vif = 1UL << 19;
        CpuState* s = cpu.State;
        ulong image = cpu.Rflags & 0xfcffff;
        if (cpu.Virtual8086 && cpu.Iopl < 3)
        {
            if ((s->Cr4 & 1) == 0 || TW.Size != 2)
                return cpu.RaiseGp();
            image = image & ~interrupt | iopl | ((s->Rflags & vif) != 0 ? interrupt : 0);
        }
        if (cpu.NonRoot is { } guest && guest.Simple(op->Length, SimpleIntercept.Pushf))
            return ExecStatus.Switched;
        return Push(cpu, TW.Size, TW.Zero(image)) ? ExecStatus.Next : ExecStatus.Fault;
    }

    internal static ExecStatus Leave<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        CpuState* s = cpu.State;
        ulong mask = PointerMask(s), sp = s->Gpr[5] & mask;
        if (!cpu.Mmu.Read(Seg.SS, sp, TW.Size, out ulong value))
            return ExecStatus.Fault;
        SetPointer(s, mask, sp + (ulong)TW.Size);
        SetFrame(s, TW.Size, value);
        return ExecStatus.Next;
    }

    /// <summary>ENTER size, level: builds a frame with copies of up to 31 outer frame pointers.</summary>
    internal static ExecStatus Enter<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        CpuState* s = cpu.State;
        int level = op->Imm2 & 31;
        ulong mask = PointerMask(s), size = (ulong)TW.Size;
        ulong sp = s->Gpr[4] - size, bp = s->Gpr[5];
        if (!cpu.Mmu.Write(Seg.SS, sp & mask, TW.Size, TW.Zero(bp)))
            return ExecStatus.Fault;
        ulong frame = sp;
        for (int i = 1; i < level; i++)
        {
            bp -= size;
            sp -= size;
            if (!cpu.Mmu.Read(Seg.SS, bp & mask, TW.Size, out ulong link) || !cpu.Mmu.Write(Seg.SS, sp & mask, TW.Size, link))
                return ExecStatus.Fault;
        }
        if (level > 0)
        {
            sp -= size;
            if (!cpu.Mmu.Write(Seg.SS, sp & mask, TW.Size, TW.Zero(frame)))
                return ExecStatus.Fault;
        }
        sp -= (ushort)op->Imm;
        // The new top of stack must be writable: a page fault belongs to ENTER, not to the next push.
        if (cpu.Mmu.TranslateForRmw(Seg.SS, sp & mask, 1, out RmwFailure failure) == null && failure == RmwFailure.Fault)
            return ExecStatus.Fault;
        SetPointer(s, mask, sp);
        SetFrame(s, TW.Size, frame & mask);
        return ExecStatus.Next;
    }
}
