using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

/// <summary>LGDT LIDT SGDT SIDT LLDT LTR SLDT STR, LMSW SMSW CLTS, MOV CR.</summary>
public sealed unsafe partial class Processor
{
    /// <summary>The memory operand of an instruction, for exit instruction information.</summary>
    internal MemoryOperand OperandOf(Op* op) => new(op->HasMemory, op->Segment, op->Base, op->Index, op->Scale, op->AddressWidth, op->Disp,
        op->HasMemory ? EffectiveAddress(op) : 0, op->Width);

    private bool UmipBlocked => (State->Cr4 & Cr4.UMIP) != 0 && State->Cpl != 0;

    private bool ExitsOnTable(Op* op, DescriptorTableInstruction which)
        => NonRoot is { } guest && guest.DescriptorTable(op->Length, which, OperandOf(op), op->HasMemory ? Op.NoRegister : op->Rm);

    private static ExecStatus StoreTable(Processor cpu, Op* op, DescriptorTableInstruction which)
    {
        if (cpu.UmipBlocked)
            return cpu.RaiseGp();
        if (cpu.ExitsOnTable(op, which))
            return ExecStatus.Switched;
        DescriptorTableRegister table = which == DescriptorTableInstruction.Sgdt ? cpu.State->Gdtr : cpu.State->Idtr;
        ulong address = cpu.EffectiveAddress(op);
        int width = cpu.Code64 ? 8 : 4;
        if (!cpu.Mmu.CheckedLinear(op->Segment, address, 2 + width, AccessKind.Write, out ulong linear) || !cpu.Mmu.ProbeWrite(linear, 2 + width))
            return ExecStatus.Fault;
        return cpu.Mmu.Write(op->Segment, address, 2, table.Limit) && cpu.Mmu.Write(op->Segment, address + 2, width, table.Base)
            ? ExecStatus.Next : ExecStatus.Fault;
    }

    internal static ExecStatus Sgdt(Processor cpu, Op* op) => StoreTable(cpu, op, DescriptorTableInstruction.Sgdt);
    internal static ExecStatus Sidt(Processor cpu, Op* op) => StoreTable(cpu, op, DescriptorTableInstruction.Sidt);

    private static ExecStatus LoadTable(Processor cpu, Op* op, DescriptorTableInstruction which)
    {
        if (cpu.State->Cpl != 0)
            return cpu.RaiseGp();
        if (cpu.ExitsOnTable(op, which))
            return ExecStatus.Switched;
        ulong address = cpu.EffectiveAddress(op);
        int width = cpu.Code64 ? 8 : 4;
        if (!cpu.Mmu.Read(op->Segment, address, 2, out ulong limit) || !cpu.Mmu.Read(op->Segment, address + 2, width, out ulong linear))
            return ExecStatus.Fault;
        if (width == 8 && !cpu.Mmu.Canonical(linear))
            return cpu.RaiseGp();
        // A 16-bit operand size loads 24 bits of base.
        if (width == 4 && op->Width == 2)
            linear &= 0xff_ffff;
        var table = new DescriptorTableRegister { Base = linear, Limit = (uint)limit };
        if (which == DescriptorTableInstruction.Lgdt)
            cpu.State->Gdtr = table;
        else
            cpu.State->Idtr = table;
        return ExecStatus.Next;
    }

    internal static ExecStatus LgdtW(Processor cpu, Op* op) => LoadTable16(cpu, op, DescriptorTableInstruction.Lgdt);
    internal static ExecStatus LidtW(Processor cpu, Op* op) => LoadTable16(cpu, op, DescriptorTableInstruction.Lidt);
    internal static ExecStatus Lgdt(Processor cpu, Op* op) => LoadTable(cpu, op, DescriptorTableInstruction.Lgdt);
    internal static ExecStatus Lidt(Processor cpu, Op* op) => LoadTable(cpu, op, DescriptorTableInstruction.Lidt);

    private static ExecStatus LoadTable16(Processor cpu, Op* op, DescriptorTableInstruction which)
    {
        ExecStatus status = LoadTable(cpu, op, which);
        if (status == ExecStatus.Next)
        {
            if (which == DescriptorTableInstruction.Lgdt)
                cpu.State->Gdtr.Base &= 0xff_ffff;
            else
                cpu.State->Idtr.Base &= 0xff_ffff;
        }
        return status;
    }

    internal static ExecStatus Sldt(Processor cpu, Op* op)
    {
        if (!cpu.ProtectedOnly)
            return cpu.RaiseUd();
        if (cpu.UmipBlocked)
            return cpu.RaiseGp();
        return cpu.ExitsOnTable(op, DescriptorTableInstruction.Sldt) ? ExecStatus.Switched : cpu.WriteSelectorOperand(op, cpu.Segment(Seg.LDTR).Selector);
    }

    internal static ExecStatus Str(Processor cpu, Op* op)
    {
        if (!cpu.ProtectedOnly)
            return cpu.RaiseUd();
        if (cpu.UmipBlocked)
            return cpu.RaiseGp();
        return cpu.ExitsOnTable(op, DescriptorTableInstruction.Str) ? ExecStatus.Switched : cpu.WriteSelectorOperand(op, cpu.Segment(Seg.TR).Selector);
    }

    internal static ExecStatus Lldt(Processor cpu, Op* op)
    {
        if (!cpu.ProtectedOnly)
            return cpu.RaiseUd();
        if (cpu.State->Cpl != 0)
            return cpu.RaiseGp();
        if (cpu.ExitsOnTable(op, DescriptorTableInstruction.Lldt))
            return ExecStatus.Switched;
        return cpu.ReadSelectorOperand(op, out ushort selector) && cpu.LoadLdt(selector, Fault.GP, 0) ? ExecStatus.Next : ExecStatus.Fault;
    }

    internal static ExecStatus Ltr(Processor cpu, Op* op)
    {
        if (!cpu.ProtectedOnly)
            return cpu.RaiseUd();
        if (cpu.State->Cpl != 0)
            return cpu.RaiseGp();
        if (cpu.ExitsOnTable(op, DescriptorTableInstruction.Ltr))
            return ExecStatus.Switched;
        return cpu.ReadSelectorOperand(op, out ushort selector) && cpu.LoadTr(selector) ? ExecStatus.Next : ExecStatus.Fault;
    }

    internal static ExecStatus Smsw(Processor cpu, Op* op)
    {
        if (cpu.UmipBlocked)
            return cpu.RaiseGp();
        ulong value = cpu.State->Cr0;
        if (cpu.NonRoot is { } guest)
        {
            if (guest.Simple(op->Length, SimpleIntercept.ReadCr0Smsw))
                return ExecStatus.Switched;
            value = guest.VisibleCr0(value);
        }
        return cpu.WriteSelectorOperand(op, value);
    }

    /// <summary>LMSW changes PE (only to 1), MP, EM and TS.</summary>
    internal static ExecStatus Lmsw(Processor cpu, Op* op)
    {
        if (cpu.State->Cpl != 0)
            return cpu.RaiseGp();
        if (!cpu.ReadSelectorOperand(op, out ushort source))
            return ExecStatus.Fault;
        if (cpu.NonRoot is { } guest)
        {
            ulong linear = 0;
            if (op->HasMemory && !cpu.Mmu.CheckedLinear(op->Segment, cpu.EffectiveAddress(op), 2, AccessKind.Read, out linear))
                return ExecStatus.Fault;
            if (guest.Lmsw(op->Length, ref source, op->HasMemory, linear))
                return ExecStatus.Switched;
        }
        ulong value = (cpu.State->Cr0 & ~0xeUL) | ((ulong)source & 0xf);
        return cpu.CompleteCrWrite(0, value);
    }

    internal static ExecStatus Clts(Processor cpu, Op* op)
    {
        if (cpu.State->Cpl != 0)
            return cpu.RaiseGp();
        if (cpu.NonRoot is { } guest)
        {
            if (guest.Clts(op->Length, out bool handled))
                return ExecStatus.Switched;
            if (handled)
                return ExecStatus.NextEndBlock;
        }
        cpu.State->Cr0 &= ~Cr0.TS;
        cpu.UpdateMode();
        return ExecStatus.NextEndBlock;
    }

    // ---- MOV CR ----

    private static bool ValidCr(int register) => register is 0 or 2 or 3 or 4 or 8;

    internal static ExecStatus MoveFromCr(Processor cpu, Op* op)
    {
        int register = cpu.CrNumber(op);
        if (!ValidCr(register))
            return cpu.RaiseUd();
        if (cpu.State->Cpl != 0)
            return cpu.RaiseGp();
        ulong value = cpu.ReadCr(register);
        if (cpu.NonRoot is { } guest && guest.ReadCr(op->Length, register, op->Rm, ref value))
            return ExecStatus.Switched;
        cpu.State->Gpr[op->Rm] = cpu.Code64 ? value : (uint)value;
        return ExecStatus.Next;
    }

    internal static ExecStatus MoveToCr(Processor cpu, Op* op)
    {
        int register = cpu.CrNumber(op);
        if (!ValidCr(register))
            return cpu.RaiseUd();
        if (cpu.State->Cpl != 0)
            return cpu.RaiseGp();
        ulong value = cpu.Code64 ? cpu.State->Gpr[op->Rm] : (uint)cpu.State->Gpr[op->Rm];
        if (cpu.NonRoot is { } guest)
        {
            if (guest.WriteCr(op->Length, register, op->Rm, ref value, out bool handled))
                return ExecStatus.Switched;
            if (handled)
                return ExecStatus.NextEndBlock;
        }
        return cpu.CompleteCrWrite(register, value);
    }

    /// <summary>LOCK MOV CR0 is CR8 on AMD outside 64-bit mode (AltMovCr8).</summary>
    private int CrNumber(Op* op) => (op->Prefixes & OpPrefixes.Lock) != 0 && op->Reg == 0 ? Model.FeatureExtEcx(4) ? 8 : -1 : op->Reg;

    private ExecStatus CompleteCrWrite(int register, ulong value)
    {
        InstructionResult result = WriteCr(register, value);
        if (!result.IsFault)
            return ExecStatus.NextEndBlock;
        return PendingMemoryExit ? ExecStatus.Fault : Raise(result.Fault);
    }
}
