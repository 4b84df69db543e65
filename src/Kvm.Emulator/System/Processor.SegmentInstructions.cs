using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

/// <summary>Instructions that move or load segment registers, and those that only look at descriptors.</summary>
public sealed unsafe partial class Processor
{
    /// <summary>Reads a 16-bit source operand (selector).</summary>
    private bool ReadSelectorOperand(Op* op, out ushort selector)
    {
        ulong value;
        if (op->HasMemory)
        {
            if (!Mmu.Read(op->Segment, EffectiveAddress(op), 2, out value))
            {
                selector = 0;
                return false;
            }
        }
        else
        {
            value = State->Gpr[op->Rm];
        }
        selector = (ushort)value;
        return true;
    }

    /// <summary>Stores a 16-bit result: memory takes 16 bits, registers the operand size, zero-extended.</summary>
    private ExecStatus WriteSelectorOperand(Op* op, ulong value)
    {
        if (op->HasMemory)
            return Mmu.Write(op->Segment, EffectiveAddress(op), 2, value) ? ExecStatus.Next : ExecStatus.Fault;
        WriteRegister(op->Rm, op->Width, value);
        return ExecStatus.Next;
    }

    internal static ExecStatus MoveFromSegment(Processor cpu, Op* op)
        => op->Reg > (byte)Seg.GS ? cpu.RaiseUd() : cpu.WriteSelectorOperand(op, cpu.Segment((Seg)op->Reg).Selector);

    internal static ExecStatus MoveToSegment(Processor cpu, Op* op)
    {
        var seg = (Seg)op->Reg;
        if (seg is Seg.CS or > Seg.GS)
            return cpu.RaiseUd();
        if (!cpu.ReadSelectorOperand(op, out ushort selector) || !cpu.LoadSegment(seg, selector))
            return ExecStatus.Fault;
        return cpu.AfterSegmentLoad(seg);
    }

    /// <summary>Loading SS holds interrupts and debug traps for one instruction.</summary>
    private ExecStatus AfterSegmentLoad(Seg seg)
    {
        State->InterruptShadow = seg == Seg.SS ? (byte)2 : (byte)0;
        return ExecStatus.NextEndBlock;
    }

    internal static ExecStatus PushSegment(Processor cpu, Op* op)
    {
        // The whole slot is written, zero-extended, as AMD processors and older Intel ones do.
        var stack = new StackWriter(cpu);
        if (!stack.Push(cpu.Segment((Seg)op->Reg).Selector, op->Width))
            return ExecStatus.Fault;
        stack.Commit();
        return ExecStatus.Next;
    }

    internal static ExecStatus PopSegment(Processor cpu, Op* op)
    {
        var seg = (Seg)op->Reg;
        ulong sp = cpu.State->Gpr[4];
        ulong mask = cpu.StackMask;
        if (!cpu.Mmu.Read(Seg.SS, sp & mask, 2, out ulong selector) || !cpu.LoadSegment(seg, (ushort)selector))
            return ExecStatus.Fault;
        cpu.State->Gpr[4] = Release(sp, op->Width, mask);
        return cpu.AfterSegmentLoad(seg);
    }

    /// <summary>LES, LDS, LSS, LFS, LGS: the segment is loaded before the register.</summary>
    private static ExecStatus LoadFarPointer(Processor cpu, Op* op, Seg seg)
    {
        if (!cpu.ReadFarPointer(op, out ushort selector, out ulong offset) || !cpu.LoadSegment(seg, selector))
            return ExecStatus.Fault;
        cpu.WriteRegister(op->Reg, op->Width, offset);
        cpu.State->InterruptShadow = 0;
        return ExecStatus.NextEndBlock;
    }

    internal static ExecStatus Les(Processor cpu, Op* op) => LoadFarPointer(cpu, op, Seg.ES);
    internal static ExecStatus Lds(Processor cpu, Op* op) => LoadFarPointer(cpu, op, Seg.DS);
    internal static ExecStatus Lss(Processor cpu, Op* op) => LoadFarPointer(cpu, op, Seg.SS);
    internal static ExecStatus Lfs(Processor cpu, Op* op) => LoadFarPointer(cpu, op, Seg.FS);
    internal static ExecStatus Lgs(Processor cpu, Op* op) => LoadFarPointer(cpu, op, Seg.GS);

    // ---- LAR, LSL, VERR, VERW, ARPL: ZF says whether ----

    private void SetZf(bool value) => Rflags = value ? Rflags | Flags.ZF : Rflags & ~Flags.ZF;

    /// <summary>Reads a descriptor for LAR, LSL, VERR, VERW; valid is false where these instructions clear ZF. False: a fault is pending.</summary>
    private bool Look(ushort selector, out Descriptor descriptor, out bool valid)
    {
        descriptor = default;
        valid = false;
        if (IsNull(selector) || !DescriptorAddress(selector, 8, out ulong address))
            return true;
        if (!Mmu.ReadLinear(address, 8, out descriptor.Low, supervisor: true))
            return false;
        valid = true;
        return true;
    }

    private bool Visible(in Descriptor d, ushort selector) => d.IsConforming || (State->Cpl <= d.Dpl && (selector & 3) <= d.Dpl);

    private bool ProtectedOnly => ProtectedMode && !Virtual8086;

    /// <remarks>Bits 19:16 are undefined in the manual; processors return those of the limit.</remarks>
    internal static ExecStatus Lar(Processor cpu, Op* op)
    {
        if (!cpu.ProtectedOnly)
            return cpu.RaiseUd();
        if (!cpu.ReadSelectorOperand(op, out ushort selector) || !cpu.Look(selector, out Descriptor d, out bool valid))
            return ExecStatus.Fault;
        if (valid && !d.S)
        {
            valid = cpu.LongMode
                ? d.Type is SegmentRights.Ldt or SegmentRights.TssAvailable32 or SegmentRights.TssBusy32 or SegmentRights.CallGate32
                : d.Type is SegmentRights.TssAvailable16 or SegmentRights.Ldt or SegmentRights.TssBusy16 or SegmentRights.CallGate16 or SegmentRights.TaskGate
                    or SegmentRights.TssAvailable32 or SegmentRights.TssBusy32 or SegmentRights.CallGate32;
        }
        valid = valid && cpu.Visible(d, selector);
        cpu.SetZf(valid);
        if (valid)
            cpu.WriteRegister(op->Reg, op->Width, d.Low >> 32 & (op->Width == 2 ? 0xff00u : 0x00ff_ff00u));
        return ExecStatus.Next;
    }

    internal static ExecStatus Lsl(Processor cpu, Op* op)
    {
        if (!cpu.ProtectedOnly)
            return cpu.RaiseUd();
        if (!cpu.ReadSelectorOperand(op, out ushort selector) || !cpu.Look(selector, out Descriptor d, out bool valid))
            return ExecStatus.Fault;
        if (valid && !d.S)
        {
            valid = cpu.LongMode
                ? d.Type is SegmentRights.Ldt or SegmentRights.TssAvailable32 or SegmentRights.TssBusy32
                : d.Type is SegmentRights.TssAvailable16 or SegmentRights.Ldt or SegmentRights.TssBusy16 or SegmentRights.TssAvailable32 or SegmentRights.TssBusy32;
        }
        valid = valid && cpu.Visible(d, selector);
        cpu.SetZf(valid);
        if (valid)
            cpu.WriteRegister(op->Reg, op->Width, d.Limit);
        return ExecStatus.Next;
    }

    internal static ExecStatus Verr(Processor cpu, Op* op)
    {
        if (!cpu.ProtectedOnly)
            return cpu.RaiseUd();
        if (!cpu.ReadSelectorOperand(op, out ushort selector) || !cpu.Look(selector, out Descriptor d, out bool valid))
            return ExecStatus.Fault;
        cpu.SetZf(valid && d.S && d.IsReadable && cpu.Visible(d, selector));
        return ExecStatus.Next;
    }

    internal static ExecStatus Verw(Processor cpu, Op* op)
    {
        if (!cpu.ProtectedOnly)
            return cpu.RaiseUd();
        if (!cpu.ReadSelectorOperand(op, out ushort selector) || !cpu.Look(selector, out Descriptor d, out bool valid))
            return ExecStatus.Fault;
        cpu.SetZf(valid && d.IsWritableData && cpu.Visible(d, selector));
        return ExecStatus.Next;
    }

    internal static ExecStatus Arpl(Processor cpu, Op* op)
    {
        if (!cpu.ProtectedOnly)
            return cpu.RaiseUd();
        if (!cpu.ReadSelectorOperand(op, out ushort destination))
            return ExecStatus.Fault;
        ushort source = (ushort)cpu.State->Gpr[op->Reg];
        bool adjust = (destination & 3) < (source & 3);
        if (adjust)
        {
            ulong value = (ulong)((destination & ~3) | (source & 3));
            if (op->HasMemory)
            {
                if (!cpu.Mmu.Write(op->Segment, cpu.EffectiveAddress(op), 2, value))
                    return ExecStatus.Fault;
            }
            else
            {
                cpu.WriteRegister(op->Rm, 2, value);
            }
        }
        cpu.SetZf(adjust);
        return ExecStatus.Next;
    }
}
