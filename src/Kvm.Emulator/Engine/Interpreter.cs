using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Engine;

/// <summary>The interpreter: executes a block and those it leads to until something needs the run loop.</summary>
internal static unsafe partial class Interpreter
{
    /// <summary>
    /// Executes from <paramref name="block"/>, which is at State->Rip, taking completed instructions off <paramref name="budget"/>.
    /// Jumped: RIP is at the next instruction, look it up. Otherwise as a handler's status, RIP as <see cref="ExecStatus"/> says (advanced for NextEndBlock).
    /// </summary>
    internal static ExecStatus Execute(Processor cpu, CodeCache cache, Block* block, ref long budget)
    {
        CpuState* s = cpu.State;
        ulong blockRip = s->Rip;
        Op* op = Block.Ops(block);
        ExecStatus status;
        s->BlockRip = blockRip;
        while (true)
        {
            switch (op->Kind)
            {
                case OpKind.EndOfBlock:
                    budget -= op - Block.Ops(block);
                    s->Rip = (blockRip + (ulong)op->BlockDisp) & op->AddressMask;
                    return ExecStatus.Jumped;
                default:
                    s->Rip = blockRip + op->BlockOffset;
                    status = op->Handler(cpu, op);
                    if (status != ExecStatus.Next)
                        goto left;
                    op++;
                    if (block->Dead != 0)
                        goto dead;
                    continue;
            }
        }
    dead:
        budget -= op - Block.Ops(block);
        s->Rip = (blockRip + op->BlockOffset) & RipMask(s);
        return ExecStatus.Jumped;
    left:
        budget -= op - Block.Ops(block);
        if (status is ExecStatus.Fault or ExecStatus.Again)
            return status;
        budget--;
        if (status == ExecStatus.NextEndBlock)
            s->Rip = (s->Rip + op->Length) & RipMask(s);
        return status;
    }

    private static ulong RipMask(CpuState* s)
        => (s->Mode & (uint)CodeMode.SizeMask) == (uint)CodeMode.Code64 ? ulong.MaxValue : uint.MaxValue;
}
