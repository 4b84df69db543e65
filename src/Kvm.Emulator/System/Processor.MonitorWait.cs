using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

/// <summary>MONITOR, MWAIT and AMD's MONITORX, MWAITX.</summary>
/// <remarks>
/// MONITOR keeps a copy of the line. A waiting processor compares it with memory whenever it looks up, so a store by anybody (another processor, a device, kernel code)
/// ends the wait, unless it changes nothing: then there is nothing for the waiting program to see either. Events, VM entries and VM exits disarm the monitor, so the MWAIT
/// after them falls through, as the manuals allow.
/// SDM vol 2B, MONITOR, MWAIT; vol 3A, "MONITOR/MWAIT Instruction"; APM vol 3, MONITORX, MWAITX.
/// </remarks>
public sealed unsafe partial class Processor
{
    private const int MonitorLine = 64;
    private const uint BreakOnMaskedInterrupt = 1, WaitWithTimer = 2;

    private readonly byte[] monitorCopy = new byte[MonitorLine];
    private bool monitorArmed;
    private byte* monitorLine;
    private uint monitorEpoch;

    /// <summary>The processor is in the wait of MWAIT; its activity state is HLT meanwhile.</summary>
    private bool monitorWait;
    private bool monitorBreaksOnInterrupt;
    private ulong monitorDeadline;

    /// <summary>Activity state as VMX shows it: MWAIT's wait never appears there.</summary>
    internal ActivityState VisibleActivity => monitorWait ? ActivityState.Active : State->Activity;

    internal static ExecStatus Monitor(Processor cpu, Op* op)
        => cpu.State->Cpl != 0 || !cpu.MonitorEnabled ? cpu.RaiseUd() : cpu.ArmMonitor(op);

    internal static ExecStatus Monitorx(Processor cpu, Op* op) => cpu.ArmMonitor(op);

    /// <summary>IA32_MISC_ENABLE[18], where the processor has it.</summary>
    private bool MonitorEnabled => Model.Vendor != CpuVendor.Intel || !msrs.Read(Msr.IA32_MISC_ENABLE, out ulong misc) || (misc & 1 << 18) != 0;

    /// <summary>The exit comes first, then ECX (no extensions exist: #GP(0)), then the address is checked as a byte load.</summary>
    private ExecStatus ArmMonitor(Op* op)
    {
        if (NonRoot is { } guest && guest.Monitor(op->Length))
            return ExecStatus.Switched;
        if ((uint)State->Gpr[1] != 0)
            return RaiseGp();
        ulong offset = op->AddressWidth switch { 2 => (ushort)State->Gpr[0], 4 => (uint)State->Gpr[0], _ => State->Gpr[0] };
        if (!Mmu.Read(op->Segment, offset, 1, out _) || !Mmu.FindHost(op->Segment, offset, out byte* host))
            return ExecStatus.Fault;
        monitorEpoch = Machine.Memory.Epoch;
        monitorLine = (byte*)((ulong)host & ~(MonitorLine - 1UL));
        if (host != null)
            new ReadOnlySpan<byte>(monitorLine, MonitorLine).CopyTo(monitorCopy);
        monitorArmed = true;
        return ExecStatus.Next;
    }

    internal static ExecStatus Mwait(Processor cpu, Op* op)
    {
        if (cpu.State->Cpl != 0 || !cpu.MonitorEnabled)
            return cpu.RaiseUd();
        CpuidLeaf leaf = cpu.Model.MaxLeaf >= 5 ? cpu.Model.Leaf(5) : default;
        return cpu.WaitForMonitor(op, allowed: (leaf.Ecx & 2) != 0 ? BreakOnMaskedInterrupt : 0);
    }

    internal static ExecStatus Mwaitx(Processor cpu, Op* op) => cpu.WaitForMonitor(op, allowed: BreakOnMaskedInterrupt | WaitWithTimer);

    /// <summary>Waits when the monitor is armed and the line is as it was; EAX is a hint. MWAITX may limit the wait to EBX cycles.</summary>
    private ExecStatus WaitForMonitor(Op* op, uint allowed)
    {
        if (NonRoot is { } guest && guest.Mwait(op->Length, monitorArmed))
            return ExecStatus.Switched;
        uint extensions = (uint)State->Gpr[1];
        if ((extensions & ~allowed) != 0)
            return RaiseGp();
        if (!monitorArmed || LineChanged())
        {
            monitorArmed = false;
            return ExecStatus.NextEndBlock;
        }
        monitorBreaksOnInterrupt = (extensions & BreakOnMaskedInterrupt) != 0;
        monitorDeadline = (extensions & WaitWithTimer) != 0 ? ReadTsc() + (uint)State->Gpr[3] : ulong.MaxValue;
        EnterHalt(op);
        monitorWait = true;
        return ExecStatus.Halted;
    }

    private bool LineChanged() => monitorEpoch != Machine.Memory.Epoch
        || (monitorLine != null && !new ReadOnlySpan<byte>(monitorLine, MonitorLine).SequenceEqual(monitorCopy));

    /// <summary>A store to the line, a masked interrupt that was asked for, or the deadline ends the wait. Other events end it by being taken.</summary>
    private bool MonitorWaitIsOver()
    {
        if (!LineChanged() && !(monitorBreaksOnInterrupt && InterruptPending) && (monitorDeadline == ulong.MaxValue || ReadTsc() < monitorDeadline))
            return false;
        DisarmMonitor();
        return true;
    }

    private void DisarmMonitor() => monitorArmed = monitorWait = false;
}
