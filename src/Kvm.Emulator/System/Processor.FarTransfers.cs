using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

/// <summary>Far JMP, CALL and RET: code segments, call gates, task gates and TSSs.</summary>
/// <remarks>SDM vol 2A/2B, JMP, CALL, RET (pseudo code); vol 3A, "Calling Procedures at Different Privilege Levels".</remarks>
public sealed unsafe partial class Processor
{
    internal static ExecStatus FarJumpImmediate(Processor cpu, Op* op) => cpu.FarTransfer((ushort)op->Imm2, op->Imm, op, call: false);
    internal static ExecStatus FarCallImmediate(Processor cpu, Op* op) => cpu.FarTransfer((ushort)op->Imm2, op->Imm, op, call: true);
    internal static ExecStatus FarJumpMemory(Processor cpu, Op* op) => cpu.ReadFarPointer(op, out ushort s, out ulong o) ? cpu.FarTransfer(s, o, op, call: false) : ExecStatus.Fault;
    internal static ExecStatus FarCallMemory(Processor cpu, Op* op) => cpu.ReadFarPointer(op, out ushort s, out ulong o) ? cpu.FarTransfer(s, o, op, call: true) : ExecStatus.Fault;

    private bool ReadFarPointer(Op* op, out ushort selector, out ulong offset)
    {
        selector = 0;
        ulong address = EffectiveAddress(op);
        if (!Mmu.Read(op->Segment, address, op->Width, out offset))
            return false;
        ulong next = address + op->Width;
        next = op->AddressWidth switch { 2 => (ushort)next, 4 => (uint)next, _ => next };
        if (!Mmu.Read(op->Segment, next, 2, out ulong value))
            return false;
        selector = (ushort)value;
        return true;
    }

    private ulong NextRip(Op* op) => Code64 ? State->Rip + op->Length : (State->Mode & (uint)CodeMode.SizeMask) == 0 && !ProtectedMode ? (ushort)(State->Rip + op->Length) : (uint)(State->Rip + op->Length);

    private static ulong Truncate(ulong value, int width) => width switch { 2 => (ushort)value, 4 => (uint)value, _ => value };

    private ExecStatus FarTransfer(ushort selector, ulong offset, Op* op, bool call)
    {
        ulong next = NextRip(op);
        offset = Truncate(offset, op->Width);
        if (!ProtectedMode || Virtual8086)
            return FarTransferReal(selector, offset, next, op->Width, call);
        if (IsNull(selector))
            return RaiseGp();
        if (!ReadDescriptor(selector, Fault.GP, 0, out Descriptor d))
            return ExecStatus.Fault;
        if (d.S)
            return FarTransferCode(selector, offset, next, d, op->Width, call);
        if (LongMode)
            return d.Type == SegmentRights.CallGate32 ? ThroughCallGate64(selector, d, next, call) : FailGp(selector);
        switch (d.Type)
        {
            case SegmentRights.CallGate16 or SegmentRights.CallGate32:
                return ThroughCallGate(selector, d, next, call);
            case SegmentRights.TaskGate:
                if (d.Dpl < State->Cpl || d.Dpl < (selector & 3))
                    return FailGp(selector);
                if (!d.Present)
                    return FailNp(selector);
                return FarTask(d.GateSelector, next, call, op->Length);
            case SegmentRights.TssAvailable16 or SegmentRights.TssAvailable32:
                if (d.Dpl < State->Cpl || d.Dpl < (selector & 3))
                    return FailGp(selector);
                return FarTask(selector, next, call, op->Length);
            default:
                return FailGp(selector);
        }
    }

    private ExecStatus FailGp(ushort selector) => Raise(Fault.Gp((uint)selector & 0xfffc));
    private ExecStatus FailNp(ushort selector) => Raise(new Fault(Fault.NP, true, (uint)selector & 0xfffc));

    private ExecStatus FarTransferReal(ushort selector, ulong offset, ulong next, int width, bool call)
    {
        if (call)
        {
            var stack = new StackWriter(this);
            if (!stack.HasRoom(2, width))
                return ExecStatus.Fault;
            if (offset > Segment(Seg.CS).Limit)
                return RaiseGp();
            if (!stack.Push(Segment(Seg.CS).Selector, width) || !stack.Push(next, width))
                return ExecStatus.Fault;
            stack.Commit();
        }
        else if (offset > Segment(Seg.CS).Limit)
        {
            return RaiseGp();
        }
        LoadRealSegment(Seg.CS, selector);
        State->Rip = offset;
        UpdateMode();
        return ExecStatus.Jumped;
    }

    private ExecStatus FarTransferCode(ushort selector, ulong offset, ulong next, Descriptor d, int width, bool call)
    {
        int cpl = State->Cpl;
        if (!d.IsCode || BadCodeBits(d))
            return FailGp(selector);
        if (d.IsConforming ? d.Dpl > cpl : (selector & 3) > cpl || d.Dpl != cpl)
            return FailGp(selector);
        if (!d.Present)
            return FailNp(selector);
        SegmentCache cs = CodeSegment(d, selector, cpl);
        if (!(LongMode && cs.L) && width == 8)
            offset = (uint)offset;
        if (call)
        {
            var stack = new StackWriter(this);
            if (!stack.HasRoom(2, width) || !CheckTargetRip(cs, offset) || !stack.Push(Segment(Seg.CS).Selector, width) || !stack.Push(next, width)
                || !SetAccessed(selector, ref d))
                return ExecStatus.Fault;
            stack.Commit();
        }
        else if (!CheckTargetRip(cs, offset) || !SetAccessed(selector, ref d))
        {
            return ExecStatus.Fault;
        }
        Segment(Seg.CS) = cs;
        State->Rip = offset;
        UpdateMode();
        return ExecStatus.Jumped;
    }

    private ExecStatus ThroughCallGate(ushort gateSelector, Descriptor gate, ulong next, bool call)
    {
        if (!CheckGate(gateSelector, gate, call, out Descriptor code, out ushort selector, out int newCpl))
            return ExecStatus.Fault;
        bool gate32 = gate.Type == SegmentRights.CallGate32;
        int width = gate32 ? 4 : 2;
        ulong offset = gate32 ? gate.GateOffset32 : gate.GateOffset16;
        SegmentCache cs = CodeSegment(code, selector, newCpl);
        if (call)
        {
            StackWriter stack;
            if (newCpl < State->Cpl)
            {
                if (!ReadInnerStack(newCpl, 0, out SegmentCache ss, out ulong sp))
                    return ExecStatus.Fault;
                stack = new StackWriter(this, ss, sp, newCpl, (uint)ss.Selector & 0xfffc);
                if (!stack.HasRoom(4 + gate.GateParameters, width) || !CheckTargetRip(cs, offset) || !SetAccessed(selector, ref code)
                    || !stack.Push(Segment(Seg.SS).Selector, width) || !stack.Push(State->Gpr[4], width) || !CopyParameters(ref stack, gate.GateParameters, width))
                    return ExecStatus.Fault;
            }
            else
            {
                stack = new StackWriter(this);
                if (!stack.HasRoom(2, width) || !CheckTargetRip(cs, offset) || !SetAccessed(selector, ref code))
                    return ExecStatus.Fault;
            }
            if (!stack.Push(Segment(Seg.CS).Selector, width) || !stack.Push(next, width))
                return ExecStatus.Fault;
            stack.Commit();
        }
        else if (!CheckTargetRip(cs, offset) || !SetAccessed(selector, ref code))
        {
            return ExecStatus.Fault;
        }
        EnterCode(cs, offset, newCpl);
        return ExecStatus.Jumped;
    }

    private bool CopyParameters(ref StackWriter stack, int count, int width)
    {
        ulong mask = Segment(Seg.SS).Db ? uint.MaxValue : 0xffffUL;
        for (int i = count - 1; i >= 0; i--)
        {
            ulong from = (State->Gpr[4] + (ulong)(i * width)) & mask;
            if (!Mmu.Read(Seg.SS, from, width, out ulong value) || !stack.Push(value, width))
                return false;
        }
        return true;
    }

    private ExecStatus ThroughCallGate64(ushort gateSelector, Descriptor gate, ulong next, bool call)
    {
        if (!ReadDescriptorHigh(gateSelector, Fault.GP, 0, ref gate)
            || !CheckGate(gateSelector, gate, call, out Descriptor code, out ushort selector, out int newCpl))
            return ExecStatus.Fault;
        ulong offset = gate.GateOffset32 | gate.High << 32;
        SegmentCache cs = CodeSegment(code, selector, newCpl);
        if (call)
        {
            StackWriter stack;
            if (newCpl < State->Cpl)
            {
                if (!ReadTssField((uint)(4 + (newCpl * 8)), 8, 0, out ulong sp))
                    return ExecStatus.Fault;
                stack = new StackWriter(this, NullSegment((ushort)newCpl, newCpl), sp, newCpl, 0) { Long = true };
                if (!stack.HasRoom(4, 8) || !CheckTargetRip(cs, offset) || !SetAccessed(selector, ref code) || !stack.Push(Segment(Seg.SS).Selector, 8) || !stack.Push(State->Gpr[4], 8))
                    return ExecStatus.Fault;
            }
            else
            {
                stack = new StackWriter(this) { Long = true };
                if (!stack.HasRoom(2, 8) || !CheckTargetRip(cs, offset) || !SetAccessed(selector, ref code))
                    return ExecStatus.Fault;
            }
            if (!stack.Push(Segment(Seg.CS).Selector, 8) || !stack.Push(next, 8))
                return ExecStatus.Fault;
            stack.Commit();
        }
        else if (!CheckTargetRip(cs, offset) || !SetAccessed(selector, ref code))
        {
            return ExecStatus.Fault;
        }
        EnterCode(cs, offset, newCpl);
        return ExecStatus.Jumped;
    }

    private bool CheckGate(ushort gateSelector, Descriptor gate, bool call, out Descriptor code, out ushort selector, out int newCpl)
    {
        code = default;
        newCpl = State->Cpl;
        selector = gate.GateSelector;
        if (gate.Dpl < State->Cpl || gate.Dpl < (gateSelector & 3))
            return Fail(Fault.GP, gateSelector, 0);
        if (!gate.Present)
            return Fail(Fault.NP, gateSelector, 0);
        if (IsNull(selector))
            return Fail(Fault.GP, 0, 0);
        if (!ReadDescriptor(selector, Fault.GP, 0, out code))
            return false;
        // A CALL may go to a more privileged non-conforming segment, a JMP only to an equal one.
        bool allowed = code.IsCode && code.Dpl <= State->Cpl && (call || code.IsConforming || code.Dpl == State->Cpl);
        // In IA-32e mode gates lead to 64-bit code only.
        if (!allowed || (LongMode && (!code.L || code.Db)))
            return Fail(Fault.GP, selector, 0);
        if (!code.Present)
            return Fail(Fault.NP, selector, 0);
        newCpl = code.IsConforming ? State->Cpl : code.Dpl;
        return true;
    }

    private void EnterCode(in SegmentCache cs, ulong rip, int cpl)
    {
        Segment(Seg.CS) = cs;
        State->Rip = rip;
        State->Cpl = (byte)cpl;
        UpdateMode();
    }

    private ExecStatus FarTask(ushort selector, ulong next, bool call, int length)
        => SwitchTask(selector, call ? TaskSwitchSource.Call : TaskSwitchSource.Jump, next, length);

    // ---- RET far ----

    internal static ExecStatus FarReturn(Processor cpu, Op* op) => cpu.FarReturn(op->Width, 0);
    internal static ExecStatus FarReturnImmediate(Processor cpu, Op* op) => cpu.FarReturn(op->Width, (ushort)op->Imm);

    private ulong StackMask => Code64 ? ulong.MaxValue : Segment(Seg.SS).Db ? uint.MaxValue : 0xffffUL;

    private bool PopAt(ref ulong sp, int width, out ulong value)
    {
        ulong mask = StackMask;
        if (!Mmu.Read(Seg.SS, sp & mask, width, out value))
            return false;
        sp = (sp & ~mask) | ((sp + (ulong)width) & mask);
        return true;
    }

    private ExecStatus FarReturn(int width, int release)
    {
        CpuState* s = State;
        ulong sp = s->Gpr[4];
        if (!PopAt(ref sp, width, out ulong rip) || !PopAt(ref sp, width, out ulong popped))
            return ExecStatus.Fault;
        ushort selector = (ushort)popped;
        if (!ProtectedMode || Virtual8086)
        {
            if (rip > Segment(Seg.CS).Limit)
                return RaiseGp();
            s->Gpr[4] = Release(sp, release, StackMask);
            LoadRealSegment(Seg.CS, selector);
            s->Rip = rip;
            UpdateMode();
            return ExecStatus.Jumped;
        }
        int newCpl = selector & 3;
        if (newCpl < s->Cpl)
            return FailGp(selector);
        if (!ReadReturnCode(selector, out Descriptor d))
            return ExecStatus.Fault;
        SegmentCache cs = CodeSegment(d, selector, newCpl);
        if (newCpl == s->Cpl)
        {
            if (!CheckTargetRip(cs, rip) || !SetAccessed(selector, ref d))
                return ExecStatus.Fault;
            s->Gpr[4] = Release(sp, release, StackMask);
            EnterCode(cs, rip, newCpl);
            return ExecStatus.Jumped;
        }
        sp = Release(sp, release, StackMask);
        if (!PopAt(ref sp, width, out ulong newSp) || !PopAt(ref sp, width, out ulong ssPopped))
            return ExecStatus.Fault;
        if (!CheckReturnStack((ushort)ssPopped, newCpl, cs.L && LongMode, out SegmentCache ss) || !CheckTargetRip(cs, rip) || !SetAccessed(selector, ref d))
            return ExecStatus.Fault;
        LoadOuterStack(ss, newSp, cs);
        s->Gpr[4] = Release(s->Gpr[4], release, LongMode && cs.L ? ulong.MaxValue : ss.Db ? uint.MaxValue : 0xffffUL);
        EnterCode(cs, rip, newCpl);
        DropInaccessibleSegments();
        UpdateMode();
        return ExecStatus.Jumped;
    }

    private static ulong Release(ulong sp, int bytes, ulong mask) => (sp & ~mask) | ((sp + (ulong)bytes) & mask);

    /// <summary>A return to an outer 16-bit stack loads SP only: the upper half of ESP stays the inner level's, whatever the operand size.</summary>
    private void LoadOuterStack(in SegmentCache ss, ulong sp, in SegmentCache cs)
    {
        Segment(Seg.SS) = ss;
        if (LongMode && cs.L)
            State->Gpr[4] = sp;
        else if (ss.Db)
            State->Gpr[4] = (uint)sp;
        else
            State->Gpr[4] = (State->Gpr[4] & ~0xffffUL) | (ushort)sp;
    }

    /// <summary>Code segment of a far return or IRET: RPL becomes CPL.</summary>
    private bool ReadReturnCode(ushort selector, out Descriptor d)
    {
        d = default;
        if (IsNull(selector))
            return Fail(Fault.GP, 0, 0);
        if (!ReadDescriptor(selector, Fault.GP, 0, out d))
            return false;
        int rpl = selector & 3;
        if (!d.IsCode || BadCodeBits(d) || (d.IsConforming ? d.Dpl > rpl : d.Dpl != rpl))
            return Fail(Fault.GP, selector, 0);
        return d.Present || Fail(Fault.NP, selector, 0);
    }

    /// <summary>Stack segment of a return to an outer level; null is allowed when returning to 64-bit code below CPL 3.</summary>
    private bool CheckReturnStack(ushort selector, int newCpl, bool to64, out SegmentCache ss)
    {
        ss = default;
        if (IsNull(selector))
        {
            if (!to64 || newCpl == 3 || (selector & 3) != newCpl)
                return Fail(Fault.GP, 0, 0);
            ss = NullSegment(selector, newCpl);
            return true;
        }
        return CheckDataSegment(Seg.SS, selector, newCpl, Fault.GP, 0, out ss);
    }
}
