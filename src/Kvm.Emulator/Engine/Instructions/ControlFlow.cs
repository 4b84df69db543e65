namespace Kvm.Emulator.Engine;

/// <summary>Near JMP Jcc CALL RET LOOP JCXZ and BOUND. A target outside the code segment or not canonical faults on the branch itself.</summary>
internal static unsafe class ControlFlow
{
    /// <summary>Whether RIP may become <paramref name="target"/>.</summary>
    internal static bool TargetAllowed(CpuState* s, ulong target)
    {
        if ((s->Mode & (uint)CodeMode.SizeMask) != (uint)CodeMode.Code64)
            return target <= s->Segs[(int)Seg.CS].Limit;
        int shift = (s->Cr4 & (1UL << 12)) != 0 ? 7 : 16;
        return (ulong)((long)(target << shift) >> shift) == target;
    }

    private static ulong NextRip(CpuState* s, Op* op)
    {
        ulong next = s->Rip + op->Length;
        return (s->Mode & (uint)CodeMode.SizeMask) == (uint)CodeMode.Code64 ? next : (uint)next;
    }

    private static ulong Truncate(ulong target, int width) => width == 2 ? (ushort)target : width == 4 ? (uint)target : target;

    private static ulong RelativeTarget(CpuState* s, Op* op) => Truncate(NextRip(s, op) + op->Imm, op->Width);

    private static ExecStatus Jump(Processor cpu, ulong target)
    {
        if (!TargetAllowed(cpu.State, target))
            return cpu.RaiseGp();
        cpu.State->Rip = target;
        return ExecStatus.Jumped;
    }

    internal static ExecStatus Jmp(Processor cpu, Op* op) => Jump(cpu, RelativeTarget(cpu.State, op));

    internal static ExecStatus Jcc(Processor cpu, Op* op)
        => LazyFlags.Condition(cpu.State, op->Imm2) ? Jump(cpu, RelativeTarget(cpu.State, op)) : ExecStatus.Next;

    internal static ExecStatus JmpRm<TW>(Processor cpu, Op* op) where TW : struct, IWidth
        => Operand.ReadRm<TW>(cpu, op, out ulong target) ? Jump(cpu, target) : ExecStatus.Fault;

    internal static ExecStatus Call(Processor cpu, Op* op) => CallTo(cpu, op, RelativeTarget(cpu.State, op));

    internal static ExecStatus CallRm<TW>(Processor cpu, Op* op) where TW : struct, IWidth
        => Operand.ReadRm<TW>(cpu, op, out ulong target) ? CallTo(cpu, op, target) : ExecStatus.Fault;

    private static ExecStatus CallTo(Processor cpu, Op* op, ulong target)
    {
        if (!TargetAllowed(cpu.State, target))
            return cpu.RaiseGp();
        if (!Stack.Push(cpu, op->Width, Truncate(NextRip(cpu.State, op), op->Width)))
            return ExecStatus.Fault;
        cpu.State->Rip = target;
        return ExecStatus.Jumped;
    }

    /// <summary>RET, RET imm16.</summary>
    internal static ExecStatus Ret<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        if (!Stack.Peek(cpu, TW.Size, 0, out ulong target))
            return ExecStatus.Fault;
        if (!TargetAllowed(cpu.State, target))
            return cpu.RaiseGp();
        Stack.Drop(cpu.State, (ulong)TW.Size + (ushort)op->Imm);
        cpu.State->Rip = target;
        return ExecStatus.Jumped;
    }

    internal static ExecStatus Loop(Processor cpu, Op* op) => LoopWhile(cpu, op, true);
    internal static ExecStatus Loope(Processor cpu, Op* op) => LoopWhile(cpu, op, LazyFlags.Zero(cpu.State));
    internal static ExecStatus Loopne(Processor cpu, Op* op) => LoopWhile(cpu, op, !LazyFlags.Zero(cpu.State));

    private static ExecStatus LoopWhile(Processor cpu, Op* op, bool condition)
    {
        CpuState* s = cpu.State;
        ulong count = (s->Gpr[1] - 1) & op->AddressMask;
        bool taken = count != 0 && condition;
        ulong target = taken ? RelativeTarget(s, op) : NextRip(s, op);
        if (taken && !TargetAllowed(s, target))
            return cpu.RaiseGp();
        cpu.WriteRegister(1, op->AddressWidth, count);
        s->Rip = target;
        return ExecStatus.Jumped;
    }

    internal static ExecStatus Jcxz(Processor cpu, Op* op)
        => (cpu.State->Gpr[1] & op->AddressMask) == 0 ? Jump(cpu, RelativeTarget(cpu.State, op)) : ExecStatus.Next;

    /// <summary>BOUND: #BR unless lower ≤ index ≤ upper, signed.</summary>
    internal static ExecStatus Bound<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        ulong offset = cpu.EffectiveAddress(op);
        if (!cpu.Mmu.Read(op->Segment, offset, TW.Size, out ulong lower)
            || !cpu.Mmu.Read(op->Segment, (offset + (ulong)TW.Size) & op->AddressMask, TW.Size, out ulong upper))
            return ExecStatus.Fault;
        long index = (long)TW.LoadSigned(Operand.Reg(cpu.State, op));
        return index < (long)TW.Sign(lower) || index > (long)TW.Sign(upper) ? cpu.Raise(new Fault(Fault.BR)) : ExecStatus.Next;
    }
}
