namespace Kvm.Emulator;

/// <summary>Delivery of one event through the interrupt vector table or the interrupt descriptor table.</summary>
/// <remarks>SDM vol 3A, chapter "Interrupt and Exception Handling"; vol 2A, "INT n/INTO/INT3/INT1" (pseudo code). Nothing but memory changes before everything is checked.</remarks>
public sealed unsafe partial class Processor
{
    /// <summary>Jumped: done, State->Rip is the handler's. Fault: PendingFault or a memory exit is pending. Switched: a task-switch exit was taken.</summary>
    private ExecStatus Deliver(in EventInfo info, bool setRf)
    {
        delivering = info;
        isDelivering = true;
        NonRoot?.EventDelivery(true, info);
        PendingMemoryExit = false;
        ulong returnRip = State->Rip + (info.Type >= 4 ? (ulong)info.InstructionLength : 0);
        if (!Code64)
            returnRip = (uint)returnRip;
        ulong flags = Rflags, from = State->Rip;
        if (setRf)
            flags |= Flags.RF;
        else if (info.Type >= 4)
            flags &= ~Flags.RF;
        ExecStatus status = !ProtectedMode ? DeliverReal(info, returnRip, flags)
            : LongMode ? DeliverLong(info, returnRip, flags)
            : DeliverProtected(info, returnRip, flags);
        if (status == ExecStatus.Fault)
            return status;
        isDelivering = false;
        if (status == ExecStatus.Jumped)
        {
            NonRoot?.EventDelivery(false, info);
            if (RecordsBranches)
                msrs.RecordInterrupt(from, State->Rip);
            if (info.Type == 0)
                CodeMayHaveChanged(); // a device that has something to tell may have written memory
            State->InterruptShadow = 0;
            State->Activity = ActivityState.Active;
            DisarmStep();
            DisarmMonitor();
        }
        return status;
    }

    /// <summary>EXT bit of error codes: the event is external to the program.</summary>
    private static uint ExtBit(in EventInfo info) => info.Type is 4 or 6 ? 0u : 1u;

    private ExecStatus DeliverReal(in EventInfo info, ulong returnRip, ulong flags)
    {
        CpuState* s = State;
        uint offset = (uint)info.Vector * 4;
        if (offset + 3 > s->Idtr.Limit)
            return Raise(new Fault(Fault.GP, true, offset + 2 + ExtBit(info)));
        if (!Mmu.ReadLinear(s->Idtr.Base + offset, 4, out ulong entry, supervisor: true))
            return ExecStatus.Fault;
        var stack = new StackWriter(this);
        if (!stack.Push(flags & 0xffff, 2) || !stack.Push(Segment(Seg.CS).Selector, 2) || !stack.Push(returnRip, 2))
            return ExecStatus.Fault;
        stack.Commit();
        LoadRealSegment(Seg.CS, (ushort)(entry >> 16));
        s->Rip = entry & 0xffff;
        Rflags = Rflags & ~(Flags.IF | Flags.TF | Flags.AC | Flags.RF);
        UpdateMode();
        return ExecStatus.Jumped;
    }

    /// <summary>Software-interrupt in virtual-8086 mode redirected to the program's own IVT (CR4.VME).</summary>
    private ExecStatus DeliverVme(byte vector, ulong returnRip)
    {
        CpuState* s = State;
        if (!Mmu.ReadLinear((ulong)vector * 4, 4, out ulong entry, supervisor: false))
            return ExecStatus.Fault;
        ulong flags = Rflags;
        ulong image = flags & 0xffff;
        if (Iopl < 3)
            image = (image & ~Flags.IF) | Flags.IOPL | ((flags & Flags.VIF) != 0 ? Flags.IF : 0);
        var stack = new StackWriter(this);
        if (!stack.Push(image, 2) || !stack.Push(Segment(Seg.CS).Selector, 2) || !stack.Push(returnRip, 2))
            return ExecStatus.Fault;
        stack.Commit();
        LoadRealSegment(Seg.CS, (ushort)(entry >> 16));
        s->Rip = entry & 0xffff;
        Rflags = flags & ~(Flags.TF | Flags.RF | (Iopl < 3 ? Flags.VIF : Flags.IF));
        UpdateMode();
        return ExecStatus.Jumped;
    }

    private ExecStatus DeliverProtected(in EventInfo info, ulong returnRip, ulong flags)
    {
        CpuState* s = State;
        uint ext = ExtBit(info);
        uint gateError = ((uint)info.Vector * 8) + 2 + ext;
        if (((uint)info.Vector * 8) + 7 > s->Idtr.Limit)
            return Raise(Fault.Gp(gateError));
        Descriptor gate = default;
        if (!Mmu.ReadLinear(s->Idtr.Base + ((uint)info.Vector * 8), 8, out gate.Low, supervisor: true))
            return ExecStatus.Fault;
        if (gate.S || gate.Type is not (SegmentRights.TaskGate or SegmentRights.InterruptGate16 or SegmentRights.TrapGate16 or SegmentRights.InterruptGate32 or SegmentRights.TrapGate32))
            return Raise(Fault.Gp(gateError));
        if (info.Type is 4 or 6 && gate.Dpl < s->Cpl)
            return Raise(Fault.Gp(gateError));
        if (!gate.Present)
            return Raise(new Fault(Fault.NP, true, gateError));
        if (gate.Type == SegmentRights.TaskGate)
            return SwitchTask(gate.GateSelector, TaskSwitchSource.Gate, returnRip, info.InstructionLength, ext, info.HasErrorCode, info.ErrorCode, flags & Flags.RF);

        bool gate32 = gate.Type >= SegmentRights.InterruptGate32;
        ulong offset = gate32 ? gate.GateOffset32 : gate.GateOffset16;
        if (!ReadHandlerSegment(gate.GateSelector, ext, out Descriptor code, out int newCpl))
            return ExecStatus.Fault;
        bool vm86 = (flags & Flags.VM) != 0;
        if (vm86 && newCpl != 0)
            return Raise(Fault.Gp((uint)(gate.GateSelector & 0xfffc) | ext));
        SegmentCache cs = CodeSegment(code, gate.GateSelector, newCpl);

        int width = gate32 ? 4 : 2;
        StackWriter stack;
        if (newCpl < s->Cpl)
        {
            if (!ReadInnerStack(newCpl, ext, out SegmentCache ss, out ulong sp))
                return ExecStatus.Fault;
            stack = new StackWriter(this, ss, sp, newCpl, (uint)(ss.Selector & 0xfffc) | ext);
            if (!stack.HasRoom((vm86 ? 9 : 5) + (info.HasErrorCode ? 1 : 0), width) || !CheckTargetRip(cs, offset, ext) || !SetAccessed(gate.GateSelector, ref code))
                return ExecStatus.Fault;
            if (vm86 && (!stack.Push(Segment(Seg.GS).Selector, width) || !stack.Push(Segment(Seg.FS).Selector, width)
                || !stack.Push(Segment(Seg.DS).Selector, width) || !stack.Push(Segment(Seg.ES).Selector, width)))
                return ExecStatus.Fault;
            if (!stack.Push(Segment(Seg.SS).Selector, width) || !stack.Push(s->Gpr[4], width))
                return ExecStatus.Fault;
        }
        else
        {
            stack = new StackWriter(this) { FaultCode = ext };
            if (!stack.HasRoom(info.HasErrorCode ? 4 : 3, width) || !CheckTargetRip(cs, offset, ext) || !SetAccessed(gate.GateSelector, ref code))
                return ExecStatus.Fault;
        }
        if (!stack.Push(flags, width) || !stack.Push(Segment(Seg.CS).Selector, width) || !stack.Push(returnRip, width)
            || (info.HasErrorCode && !stack.Push(info.ErrorCode, width)))
            return ExecStatus.Fault;
        stack.Commit();
        if (vm86)
        {
            foreach (Seg seg in (ReadOnlySpan<Seg>)[Seg.ES, Seg.DS, Seg.FS, Seg.GS])
                Segment(seg) = NullSegment(0, 0);
        }
        bool interrupt = gate.Type is SegmentRights.InterruptGate16 or SegmentRights.InterruptGate32;
        EnterHandler(cs, offset, newCpl, interrupt);
        return ExecStatus.Jumped;
    }

    private ExecStatus DeliverLong(in EventInfo info, ulong returnRip, ulong flags)
    {
        CpuState* s = State;
        uint ext = ExtBit(info);
        uint gateError = ((uint)info.Vector * 8) + 2 + ext;
        if (((uint)info.Vector * 16) + 15 > s->Idtr.Limit)
            return Raise(Fault.Gp(gateError));
        Descriptor gate = default;
        ulong address = s->Idtr.Base + ((uint)info.Vector * 16);
        if (!Mmu.ReadLinear(address, 8, out gate.Low, supervisor: true) || !Mmu.ReadLinear(address + 8, 8, out gate.High, supervisor: true))
            return ExecStatus.Fault;
        if (gate.S || gate.Type is not (SegmentRights.InterruptGate32 or SegmentRights.TrapGate32) || (info.Type is 4 or 6 && gate.Dpl < s->Cpl))
            return Raise(Fault.Gp(gateError));
        if (!gate.Present)
            return Raise(new Fault(Fault.NP, true, gateError));
        if (!ReadHandlerSegment(gate.GateSelector, ext, out Descriptor code, out int newCpl))
            return ExecStatus.Fault;
        SegmentCache cs = CodeSegment(code, gate.GateSelector, newCpl);
        ulong offset = gate.GateOffset32 | gate.High << 32;

        SegmentCache ss = Segment(Seg.SS);
        ulong sp = s->Gpr[4];
        if (newCpl < s->Cpl || gate.GateIst != 0)
        {
            uint slot = gate.GateIst != 0 ? (uint)(36 + ((gate.GateIst - 1) * 8)) : (uint)(4 + (newCpl * 8));
            if (!ReadTssField(slot, 8, ext, out sp))
                return ExecStatus.Fault;
            if (!Mmu.Canonical(sp))
                return Raise(new Fault(Fault.SS, true, ext));
        }
        if (newCpl < s->Cpl)
            ss = NullSegment((ushort)newCpl, newCpl);
        sp &= ~0xfUL;
        var stack = new StackWriter(this, ss, sp, newCpl, ext) { Long = true };
        if (!stack.HasRoom(info.HasErrorCode ? 6 : 5, 8))
            return ExecStatus.Fault;
        if (!Mmu.Canonical(offset))
            return Raise(Fault.Gp(ext));
        if (!SetAccessed(gate.GateSelector, ref code) || !stack.Push(Segment(Seg.SS).Selector, 8) || !stack.Push(s->Gpr[4], 8) || !stack.Push(flags, 8) || !stack.Push(Segment(Seg.CS).Selector, 8)
            || !stack.Push(returnRip, 8) || (info.HasErrorCode && !stack.Push(info.ErrorCode, 8)))
            return ExecStatus.Fault;
        stack.Commit();
        EnterHandler(cs, offset, newCpl, gate.Type == SegmentRights.InterruptGate32);
        return ExecStatus.Jumped;
    }

    /// <summary>The code segment of an interrupt or trap gate: reads it, decides the new privilege level.</summary>
    private bool ReadHandlerSegment(ushort selector, uint ext, out Descriptor code, out int newCpl)
    {
        code = default;
        newCpl = 0;
        if (IsNull(selector))
            return Fail(Fault.GP, 0, ext);
        if (!ReadDescriptor(selector, Fault.GP, ext, out code))
            return false;
        if (!code.IsCode || code.Dpl > State->Cpl)
            return Fail(Fault.GP, selector, ext);
        // In IA-32e mode gates lead to 64-bit code only.
        if (LongMode && (!code.L || code.Db))
            return Fail(Fault.GP, selector, ext);
        if (!code.Present)
            return Fail(Fault.NP, selector, ext);
        newCpl = code.IsConforming ? State->Cpl : code.Dpl;
        return true;
    }

    private void EnterHandler(in SegmentCache cs, ulong rip, int cpl, bool interruptGate)
    {
        Segment(Seg.CS) = cs;
        State->Rip = rip;
        State->Cpl = (byte)cpl;
        Rflags = Rflags & ~(Flags.TF | Flags.VM | Flags.RF | Flags.NT | (interruptGate ? Flags.IF : 0));
        UpdateMode();
    }

    /// <summary>Reads a field of the current TSS; #TS(TR) beyond its limit.</summary>
    private bool ReadTssField(uint offset, int size, uint ext, out ulong value)
    {
        ref SegmentCache tr = ref Segment(Seg.TR);
        if (tr.Unusable || offset + (uint)size - 1 > tr.Limit)
        {
            value = 0;
            return Fail(Fault.TS, tr.Selector, ext);
        }
        return Mmu.ReadLinear(tr.Base + offset, size, out value, supervisor: true);
    }

    /// <summary>SS:ESP for a more privileged level from a 16- or 32-bit TSS, checked.</summary>
    private bool ReadInnerStack(int cpl, uint ext, out SegmentCache ss, out ulong sp)
    {
        ss = default;
        sp = 0;
        bool tss32 = (Segment(Seg.TR).Type & 8) != 0;
        ulong selector;
        if (tss32)
        {
            uint offset = (uint)(4 + (cpl * 8));
            if (!ReadTssField(offset, 4, ext, out sp) || !ReadTssField(offset + 4, 2, ext, out selector))
                return false;
        }
        else
        {
            uint offset = (uint)(2 + (cpl * 4));
            if (!ReadTssField(offset, 2, ext, out sp) || !ReadTssField(offset + 2, 2, ext, out selector))
                return false;
        }
        if (IsNull((ushort)selector))
            return Fail(Fault.TS, 0, ext);
        return CheckDataSegment(Seg.SS, (ushort)selector, cpl, Fault.TS, ext, out ss);
    }
}
