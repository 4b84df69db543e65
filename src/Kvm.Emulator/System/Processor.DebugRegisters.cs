using Iced.Intel;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

public sealed unsafe partial class Processor
{
    /// <summary>DR6 bits that read as one: 31:16, 11:4 (RTM inactive included).</summary>
    internal const ulong Dr6Fixed = 0xffff_0ff0;
    /// <summary>DR7 bit 10 reads as one.</summary>
    internal const ulong Dr7Fixed = 0x400;
    internal const ulong Dr6Bd = 1UL << 13, Dr6Bs = 1UL << 14, Dr6Bt = 1UL << 15;
    private const ulong Dr7Gd = 1UL << 13;
    /// <summary>Bits of IA32_DEBUGCTL.</summary>
    internal const ulong DebugCtlLbr = 1, DebugCtlBtf = 2;

    /// <summary>MOV r64, DRn; DR4 and DR5 are DR6 and DR7.</summary>
    public ulong ReadDr(int register) => State->Dr[Alias(register)];

    /// <summary>MOV DRn, r64: #GP(0) for bits 63:32 of DR6 and DR7.</summary>
    public InstructionResult WriteDr(int register, ulong value)
    {
        register = Alias(register);
        if (register >= 6 && value >> 32 != 0)
            return InstructionResult.Faulted(Fault.Gp());
        State->Dr[register] = register switch
        {
            6 => (value & 0xe00f) | Dr6Fixed,
            7 => (value & ~0xd800UL) | Dr7Fixed,
            _ => value,
        };
        OnDebugRegisters();
        return InstructionResult.Success;
    }

    private static int Alias(int register) => register is 4 or 5 ? register + 2 : register;

    /// <summary>DR0–DR3 or DR7 changed (also by VM entry, VM exit, VMRUN): applies breakpoints.</summary>
    internal void OnDebugRegisters()
    {
        bool instruction = false;
        for (int i = 0; i < 4; i++)
            instruction |= (State->Dr[7] >> (i * 2) & 3) != 0 && (State->Dr[7] >> (16 + (i * 4)) & 3) == 0;
        instructionBreakpoints = instruction;
        Mmu.OnDebugRegisters();
        // Looked at before the next instruction: a breakpoint may be on it.
        if (SingleStepRequired)
            Request(ExitRequests.SingleStep);
    }

    /// <summary>DR6 bits of the enabled instruction breakpoints at the current RIP; none with RF on or while a loaded SS holds debug exceptions.</summary>
    private ulong InstructionBreakpointsHit()
    {
        if (!instructionBreakpoints || (State->Rflags & Flags.RF) != 0 || (State->InterruptShadow & 2) != 0)
            return 0;
        ulong linear = Code64 ? State->Rip : (uint)(Segment(Seg.CS).Base + State->Rip);
        ulong hit = 0;
        for (int i = 0; i < 4; i++)
            if ((State->Dr[7] >> (i * 2) & 3) != 0 && (State->Dr[7] >> (16 + (i * 4)) & 3) == 0 && State->Dr[i] == linear)
                hit |= 1UL << i;
        return hit;
    }

    /// <summary>
    /// An instruction at <paramref name="from"/> executed on its own has ended with RIP set: if it was a taken branch, notes it for DEBUGCTL.BTF and the last-branch record.
    /// </summary>
    private void NoteBranch(Op* op, ulong from)
    {
        FlowControl flow = op->Code.FlowControl();
        if (flow is FlowControl.Next or FlowControl.Exception or FlowControl.Interrupt)
            return;
        ulong next = from + op->Length;
        if (flow == FlowControl.ConditionalBranch && State->Rip == (Code64 ? next : (uint)next))
            return;
        branchTaken = true;
        if (RecordsBranches)
            msrs.RecordBranch(from, State->Rip);
    }

    /// <summary>DEBUGCTL.LBR is on and the processor has the last-branch MSRs of AMD's: instructions are executed one at a time.</summary>
    private bool RecordsBranches => (State->DebugCtl & DebugCtlLbr) != 0 && msrs.HasLastBranch;

    /// <summary>I/O breakpoints (CR4.DE, R/W = 10) trap after the instruction.</summary>
    private void CheckIoBreakpoints(ushort port, int size)
    {
        if ((State->Cr4 & Cr4.DE) == 0 || (State->Dr[7] & 0xff) == 0)
            return;
        for (int i = 0; i < 4; i++)
        {
            if ((State->Dr[7] >> (i * 2) & 3) == 0 || (State->Dr[7] >> (16 + (i * 4)) & 3) != 2)
                continue;
            ulong length = (ulong)Mmu.BreakpointLength(i), start = State->Dr[i] & ~(length - 1);
            if (port < start + length && start < (ulong)port + (ulong)size)
                Mmu.HitBreakpoint(i);
        }
    }

    internal static ExecStatus MoveFromDr(Processor cpu, Op* op) => MoveDr(cpu, op, write: false);
    internal static ExecStatus MoveToDr(Processor cpu, Op* op) => MoveDr(cpu, op, write: true);

    /// <remarks>
    /// SDM vol 2B "MOV—Move to/from Debug Registers": DR4/DR5 with CR4.DE #UD, CPL #GP, DR7.GD #DB; in VMX non-root operation the exit comes after #UD and CPL
    /// and before GD. AMD checks the intercept after CPL too.
    /// </remarks>
    private static ExecStatus MoveDr(Processor cpu, Op* op, bool write)
    {
        CpuState* s = cpu.State;
        int register = op->Reg;
        if (register >= 8 || (register is 4 or 5 && (s->Cr4 & Cr4.DE) != 0))
            return cpu.RaiseUd();
        if (s->Cpl != 0)
            return cpu.RaiseGp();
        if (cpu.NonRoot is { } guest && guest.MoveDr(op->Length, register, write, op->Rm))
            return ExecStatus.Switched;
        if ((s->Dr[7] & Dr7Gd) != 0)
            return cpu.Raise(new Fault(Fault.DB, Address: Dr6Bd));
        if (!write)
        {
            s->Gpr[op->Rm] = cpu.Code64 ? cpu.ReadDr(register) : (uint)cpu.ReadDr(register);
            return ExecStatus.Next;
        }
        InstructionResult result = cpu.WriteDr(register, cpu.Code64 ? s->Gpr[op->Rm] : (uint)s->Gpr[op->Rm]);
        return result.IsFault ? cpu.Raise(result.Fault) : ExecStatus.NextEndBlock;
    }
}
