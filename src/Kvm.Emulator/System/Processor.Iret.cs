using Kvm.Emulator.Engine;
using Kvm.Emulator.Svm;

namespace Kvm.Emulator;

/// <summary>IRET in every mode.</summary>
/// <remarks>SDM vol 2A, IRET/IRETD/IRETQ (pseudo code).</remarks>
public sealed unsafe partial class Processor
{
    internal static ExecStatus IretHandler(Processor cpu, Op* op)
    {
        if (cpu.NonRoot is { } guest && guest.Simple(op->Length, SimpleIntercept.Iret))
            return ExecStatus.Switched;
        return cpu.Iret(op->Width, op->Length);
    }

    private ExecStatus Iret(int width, int length)
    {
        // Also when it faults: the fault's handler can be interrupted by an NMI (SDM vol 3A, "Handling Multiple NMIs"). VMX has seen to it before.
        if (State->NmiBlocked != 0 && NonRoot is null or SvmGuest)
        {
            State->NmiBlocked = 0;
            Reevaluate();
        }
        ExecStatus status = !ProtectedMode ? IretReal(width)
            : Virtual8086 ? IretVirtual8086(width)
            : (State->Rflags & Flags.NT) != 0 ? IretTask(length)
            : IretProtected(width);
        if (status == ExecStatus.Jumped)
        {
            // NMIs are open again, IF may be set, TF may have to step.
            if (NonRoot is not { } guest || guest.IretCompleted())
                State->NmiBlocked = 0;
            resumeFlagArmed = false;
            Reevaluate();
        }
        return status;
    }

    private ExecStatus IretReal(int width)
    {
        CpuState* s = State;
        ulong sp = s->Gpr[4];
        if (!PopAt(ref sp, width, out ulong rip) || !PopAt(ref sp, width, out ulong cs) || !PopAt(ref sp, width, out ulong flags))
            return ExecStatus.Fault;
        if (rip > Segment(Seg.CS).Limit)
            return RaiseGp();
        s->Gpr[4] = sp;
        LoadRealSegment(Seg.CS, (ushort)cs);
        s->Rip = rip;
        ulong keep = width == 4 ? Flags.VM | Flags.VIF | Flags.VIP : ~0xffffUL;
        Rflags = (Rflags & keep) | (flags & Flags.All & ~keep);
        UpdateMode();
        // A serializing instruction, and the end of a BIOS call that polled a device until code was loaded: no interrupt tells of it.
        CodeMayHaveChanged();
        return ExecStatus.Jumped;
    }

    private ExecStatus IretVirtual8086(int width)
    {
        CpuState* s = State;
        bool vme = (s->Cr4 & Cr4.VME) != 0 && width == 2;
        if (Iopl < 3 && !vme)
            return RaiseGp();
        ulong sp = s->Gpr[4];
        if (!PopAt(ref sp, width, out ulong rip) || !PopAt(ref sp, width, out ulong cs) || !PopAt(ref sp, width, out ulong flags))
            return ExecStatus.Fault;
        if (rip > 0xffff)
            return RaiseGp();
        ulong old = Rflags;
        ulong mask;
        if (Iopl < 3)
        {
            if ((flags & Flags.TF) != 0 || ((flags & Flags.IF) != 0 && (old & Flags.VIP) != 0))
                return RaiseGp();
            mask = Flags.Status | Flags.TF | Flags.DF | Flags.NT | Flags.VIF;
            flags = (flags & ~Flags.VIF) | ((flags & Flags.IF) != 0 ? Flags.VIF : 0);
        }
        else
        {
            mask = (width == 4 ? Flags.All : 0xffff) & ~(Flags.VM | Flags.IOPL | Flags.VIF | Flags.VIP);
        }
        s->Gpr[4] = sp;
        LoadRealSegment(Seg.CS, (ushort)cs);
        s->Rip = rip;
        Rflags = (old & ~mask) | (flags & mask);
        UpdateMode();
        return ExecStatus.Jumped;
    }

    private ExecStatus IretTask(int length)
    {
        if (LongMode)
            return RaiseGp();
        ref SegmentCache tr = ref Segment(Seg.TR);
        if (!Mmu.ReadLinear(tr.Base, 2, out ulong link, supervisor: true))
            return ExecStatus.Fault;
        return SwitchTask((ushort)link, TaskSwitchSource.Iret, State->Rip + (ulong)length, length);
    }

    private ExecStatus IretProtected(int width)
    {
        CpuState* s = State;
        ulong sp = s->Gpr[4];
        bool from64 = Code64;
        if (!PopAt(ref sp, width, out ulong rip) || !PopAt(ref sp, width, out ulong csPopped) || !PopAt(ref sp, width, out ulong flags))
            return ExecStatus.Fault;
        ushort selector = (ushort)csPopped;
        if ((flags & Flags.VM) != 0 && s->Cpl == 0 && !LongMode && width == 4)
            return IretToVirtual8086(rip, selector, flags, sp);
        int newCpl = selector & 3;
        if (!IsNull(selector) && newCpl < s->Cpl)
            return FailGp(selector);
        if (!ReadReturnCode(selector, out Descriptor d))
            return ExecStatus.Fault;
        SegmentCache cs = CodeSegment(d, selector, newCpl);
        bool to64 = LongMode && cs.L;
        // 64-bit mode always pops SS:RSP.
        bool outer = newCpl > s->Cpl || from64;
        ulong newSp = 0;
        SegmentCache ss = default;
        if (outer)
        {
            if (!PopAt(ref sp, width, out newSp) || !PopAt(ref sp, width, out ulong ssPopped)
                || !CheckReturnStack((ushort)ssPopped, newCpl, to64, out ss))
                return ExecStatus.Fault;
        }
        if (!CheckTargetRip(cs, rip) || !SetAccessed(selector, ref d))
            return ExecStatus.Fault;

        ulong mask = FlagsMask(width);
        Rflags = (Rflags & ~mask) | (flags & mask);
        if (outer)
            LoadOuterStack(ss, newSp, cs);
        else
            s->Gpr[4] = sp;
        bool lower = newCpl > s->Cpl;
        EnterCode(cs, rip, newCpl);
        if (lower)
        {
            DropInaccessibleSegments();
            UpdateMode();
        }
        return ExecStatus.Jumped;
    }

    /// <summary>RFLAGS bits that POPF and IRET may change at the current CPL and IOPL (protected mode).</summary>
    private ulong FlagsMask(int width)
    {
        ulong mask = Flags.Status | Flags.TF | Flags.DF | Flags.NT;
        if (width >= 4)
            mask |= Flags.RF | Flags.AC | Flags.ID;
        if (State->Cpl <= Iopl)
            mask |= Flags.IF;
        if (State->Cpl == 0)
            mask |= Flags.IOPL | (width >= 4 ? Flags.VIF | Flags.VIP : 0);
        return mask;
    }

    private ExecStatus IretToVirtual8086(ulong rip, ushort cs, ulong flags, ulong sp)
    {
        CpuState* s = State;
        ulong* values = stackalloc ulong[6];
        for (int i = 0; i < 6; i++)
            if (!PopAt(ref sp, 4, out values[i]))
                return ExecStatus.Fault;
        if (rip > 0xffff)
            return RaiseGp();
        Rflags = flags & Flags.All;
        s->Cpl = 3;
        s->Gpr[4] = (uint)values[0];
        s->Rip = rip;
        LoadRealSegment(Seg.CS, cs);
        LoadRealSegment(Seg.SS, (ushort)values[1]);
        LoadRealSegment(Seg.ES, (ushort)values[2]);
        LoadRealSegment(Seg.DS, (ushort)values[3]);
        LoadRealSegment(Seg.FS, (ushort)values[4]);
        LoadRealSegment(Seg.GS, (ushort)values[5]);
        UpdateMode();
        return ExecStatus.Jumped;
    }

    // ---- software interrupts ----

    internal static ExecStatus IntHandler(Processor cpu, Op* op)
    {
        byte vector = (byte)op->Imm;
        // The intercept comes before the vm86 IOPL check on AMD and there is none on Intel.
        if (cpu.NonRoot is { } guest && guest.Simple(op->Length, SimpleIntercept.IntN, vector))
            return ExecStatus.Switched;
        if (cpu.Virtual8086 && (cpu.State->Cr4 & Cr4.VME) != 0)
        {
            if (!cpu.RedirectionBit(vector, out bool redirected))
                return ExecStatus.Fault;
            if (redirected)
                return cpu.DeliverVme(vector, (ushort)(cpu.State->Rip + op->Length));
        }
        if (cpu.Virtual8086 && cpu.Iopl < 3)
            return cpu.RaiseGp();
        cpu.State->Rflags &= ~Flags.RF;
        return cpu.Deliver(new EventInfo(vector, 4, false, 0, op->Length), setRf: false);
    }

    /// <summary>Bit of the software-interrupt redirection bitmap, 32 bytes below the I/O map; 0 sends the interrupt to the program's own IVT.</summary>
    private bool RedirectionBit(byte vector, out bool redirected)
    {
        redirected = false;
        ref SegmentCache tr = ref Segment(Seg.TR);
        if (!Mmu.ReadLinear(tr.Base + 0x66, 2, out ulong map, supervisor: true))
            return false;
        ulong offset = map - 32 + (ulong)(vector >> 3);
        if (offset > tr.Limit)
            return true;
        if (!Mmu.ReadLinear(tr.Base + offset, 1, out ulong bits, supervisor: true))
            return false;
        redirected = (bits >> (vector & 7) & 1) == 0;
        return true;
    }

    internal static ExecStatus Int3Handler(Processor cpu, Op* op) => cpu.SoftwareException(Fault.BP, 6, op->Length);
    internal static ExecStatus IntoHandler(Processor cpu, Op* op)
        => (cpu.Rflags & Flags.OF) != 0 ? cpu.SoftwareException(Fault.OF, 6, op->Length) : ExecStatus.Next;

    internal static ExecStatus Int1Handler(Processor cpu, Op* op)
    {
        if (cpu.NonRoot is { } guest && guest.Simple(op->Length, SimpleIntercept.Icebp))
            return ExecStatus.Switched;
        return cpu.SoftwareException(Fault.DB, 5, op->Length);
    }

    /// <remarks>RF goes off at the start of a software interrupt: neither its image nor an exit instead of it shows it (SDM vol. 3B, "Instruction-Breakpoint Exception Condition").</remarks>
    private ExecStatus SoftwareException(byte vector, byte type, int length)
    {
        State->Rflags &= ~Flags.RF;
        if (NonRoot is { } guest && guest.Exception(new Fault(vector), length))
            return ExecStatus.Switched;
        return Deliver(new EventInfo(vector, type, false, 0, length), setRf: false);
    }
}
