using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector;

/// <summary>FNINIT, FNCLEX, the control and status words, WAIT, EMMS.</summary>
/// <remarks>SDM vol 1, "x87 FPU Control Instructions", "Waiting vs. Non-waiting Instructions".</remarks>
internal static unsafe class X87Control
{
    internal static ExecStatus Fninit(Processor cpu, Op* op)
    {
        if (!cpu.X87Available(waits: false))
            return ExecStatus.Fault;
        X87State.Initialize(cpu.State);
        return ExecStatus.Next;
    }

    internal static ExecStatus Fnclex(Processor cpu, Op* op)
    {
        if (!cpu.X87Available(waits: false))
            return ExecStatus.Fault;
        X87State.Status(cpu.State) &= 0x7f00;
        return ExecStatus.Next;
    }

    internal static ExecStatus FnstswAx(Processor cpu, Op* op)
    {
        if (!cpu.X87Available(waits: false))
            return ExecStatus.Fault;
        cpu.WriteRegister(0, 2, X87State.Status(cpu.State));
        return ExecStatus.Next;
    }

    internal static ExecStatus Fnstsw(Processor cpu, Op* op) => StoreWord(cpu, op, X87State.Status(cpu.State));
    internal static ExecStatus Fnstcw(Processor cpu, Op* op) => StoreWord(cpu, op, X87State.Control(cpu.State));

    private static ExecStatus StoreWord(Processor cpu, Op* op, ushort value)
        => cpu.X87Available(waits: false) && Operand.Write<W16>(cpu, op, value) ? ExecStatus.Next : ExecStatus.Fault;

    internal static ExecStatus Fldcw(Processor cpu, Op* op)
    {
        if (!cpu.X87Available(waits: true) || !Operand.Read<W16>(cpu, op, out ulong value))
            return ExecStatus.Fault;
        X87State.SetControl(cpu.State, (ushort)value);
        return ExecStatus.Next;
    }

    /// <summary>FNENI, FNDISI, FNSETPM: nothing since the 80387.</summary>
    internal static ExecStatus Nothing(Processor cpu, Op* op) => cpu.X87Available(waits: false) ? ExecStatus.Next : ExecStatus.Fault;

    /// <summary>#NM only while both CR0.MP and CR0.TS are set; CR0.EM does not matter.</summary>
    internal static ExecStatus Wait(Processor cpu, Op* op)
    {
        const ulong taskSwitched = Cr0.MP | Cr0.TS;
        if ((cpu.State->Cr0 & taskSwitched) == taskSwitched)
            return cpu.Raise(new Fault(Fault.NM));
        return X87State.Pending(cpu.State) ? cpu.Raise(new Fault(Fault.MF)) : ExecStatus.Next;
    }

    /// <summary>Ends MMX use: every register is empty, the top of the stack is 0.</summary>
    internal static ExecStatus Emms(Processor cpu, Op* op)
    {
        CpuState* s = cpu.State;
        if (!VectorUnit.Available(cpu, s, VectorFlags.Mmx | VectorFlags.Waits))
            return ExecStatus.Fault;
        VectorUnit.ResetTop(s);
        X87State.Tags(s) = 0;
        return ExecStatus.Next;
    }
}
