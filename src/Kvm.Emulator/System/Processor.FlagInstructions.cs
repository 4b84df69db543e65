using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

/// <summary>CLI, STI, POPF, CLAC, STAC, HLT.</summary>
public sealed unsafe partial class Processor
{
    /// <remarks>SDM vol 2A, CLI: virtual-8086 (VME) and protected-mode virtual interrupts (PVI) act on VIF.</remarks>
    internal static ExecStatus Cli(Processor cpu, Op* op)
    {
        CpuState* s = cpu.State;
        if (!cpu.ProtectedMode || s->Cpl <= cpu.Iopl)
        {
            if (cpu.Virtual8086 && cpu.Iopl < 3)
                return cpu.VirtualIf(false);
            s->Rflags &= ~Flags.IF;
            return ExecStatus.NextEndBlock;
        }
        return cpu.VirtualIf(false);
    }

    internal static ExecStatus Sti(Processor cpu, Op* op)
    {
        CpuState* s = cpu.State;
        bool allowed = !cpu.ProtectedMode || (cpu.Virtual8086 ? cpu.Iopl == 3 : s->Cpl <= cpu.Iopl);
        if (!allowed)
            return cpu.VirtualIf(true);
        if ((s->Rflags & Flags.IF) == 0)
        {
            s->Rflags |= Flags.IF;
            s->InterruptShadow = 1;
            cpu.Reevaluate();
        }
        else
        {
            s->InterruptShadow = 0;
        }
        return ExecStatus.NextEndBlock;
    }

    /// <summary>VIF and VIP are both set where the processor looks at them: #GP(0) at the beginning of the next instruction.</summary>
    /// <remarks>SDM vol 3B, "Class 2—Maskable Hardware Interrupt Handling in Virtual-8086 Mode Using the Virtual Interrupt Mechanism"; "Protected-Mode Virtual Interrupts".</remarks>
    private bool VirtualInterruptDue => (State->Rflags & (Flags.VIF | Flags.VIP)) == (Flags.VIF | Flags.VIP) && State->Cpl == 3
        && (State->Cr4 & (Virtual8086 ? Cr4.VME : Cr4.PVI)) != 0;

    private ExecStatus VirtualIf(bool set)
    {
        bool virtualInterrupts = Virtual8086 ? (State->Cr4 & Cr4.VME) != 0 : (State->Cr4 & Cr4.PVI) != 0 && State->Cpl == 3;
        if (!virtualInterrupts || (set && (State->Rflags & Flags.VIP) != 0))
            return RaiseGp();
        State->Rflags = set ? State->Rflags | Flags.VIF : State->Rflags & ~Flags.VIF;
        State->InterruptShadow = 0;
        return ExecStatus.NextEndBlock;
    }

    internal static ExecStatus Popf(Processor cpu, Op* op)
    {
        if (cpu.NonRoot is { } guest && guest.Simple(op->Length, SimpleIntercept.Popf))
            return ExecStatus.Switched;
        int width = op->Width;
        CpuState* s = cpu.State;
        bool vme = cpu.Virtual8086 && cpu.Iopl < 3;
        if (vme && ((s->Cr4 & Cr4.VME) == 0 || width != 2))
            return cpu.RaiseGp();
        ulong sp = s->Gpr[4];
        if (!cpu.PopAt(ref sp, width, out ulong flags))
            return ExecStatus.Fault;
        ulong old = cpu.Rflags;
        ulong mask;
        if (vme)
        {
            if ((flags & Flags.TF) != 0 || ((flags & Flags.IF) != 0 && (old & Flags.VIP) != 0))
                return cpu.RaiseGp();
            mask = Flags.Status | Flags.TF | Flags.DF | Flags.NT | Flags.VIF;
            flags = (flags & ~Flags.VIF) | ((flags & Flags.IF) != 0 ? Flags.VIF : 0);
        }
        else if (cpu.Virtual8086)
        {
            mask = (width == 2 ? 0xffff : Flags.All) & Flags.All & ~(Flags.IOPL | Flags.VM | Flags.RF | Flags.VIF | Flags.VIP);
        }
        else if (!cpu.ProtectedMode)
        {
            mask = (width == 2 ? 0xffff : Flags.All) & Flags.All & ~(Flags.VM | Flags.RF | Flags.VIF | Flags.VIP);
        }
        else
        {
            mask = cpu.FlagsMask(width) & ~(Flags.RF | Flags.VIF | Flags.VIP);
        }
        // RF is cleared by POPF; VM, and outside VME also VIF and VIP, stay as they are.
        ulong cleared = width == 2 || cpu.Virtual8086 ? 0 : Flags.RF;
        cpu.Rflags = (old & ~mask & ~cleared) | (flags & mask);
        s->Gpr[4] = sp;
        if (((old ^ s->Rflags) & (Flags.TF | Flags.AC | Flags.RF | Flags.VIF)) != 0)
            cpu.UpdateMode();
        if ((~old & s->Rflags & Flags.IF) != 0)
            cpu.Reevaluate();
        return ExecStatus.NextEndBlock;
    }

    internal static ExecStatus Clac(Processor cpu, Op* op) => cpu.SetAc(false);
    internal static ExecStatus Stac(Processor cpu, Op* op) => cpu.SetAc(true);

    private ExecStatus SetAc(bool value)
    {
        if (State->Cpl != 0 || !ProtectedMode)
            return RaiseUd();
        State->Rflags = value ? State->Rflags | Flags.AC : State->Rflags & ~Flags.AC;
        UpdateMode();
        return ExecStatus.NextEndBlock;
    }

    internal static ExecStatus Hlt(Processor cpu, Op* op)
    {
        if (cpu.State->Cpl != 0)
            return cpu.RaiseGp();
        if (cpu.NonRoot is { } guest && guest.Hlt(op->Length))
            return ExecStatus.Switched;
        cpu.EnterHalt(op);
        return ExecStatus.Halted;
    }

    private void EnterHalt(Op* op)
    {
        State->Rip = NextRip(op);
        State->InterruptShadow = 0;
        State->Activity = ActivityState.Hlt;
        monitorWait = false;
        Reevaluate();
    }
}
