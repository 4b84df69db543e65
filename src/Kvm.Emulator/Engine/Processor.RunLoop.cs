using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

public sealed unsafe partial class Processor
{
    /// <summary>Executes instructions until something of <see cref="StopReason"/> happens.</summary>
    /// <remarks>
    /// At every block head, in this order: pending events (SDM vol 3A, "Prioritization of Concurrent Events"), the budget, the block at RIP, its execution.
    /// While single-stepping or in an interrupt shadow the block is one instruction.
    /// </remarks>
    public StopReason Run(ulong maxInstructions = ulong.MaxValue)
    {
        CpuState* s = State;
        CodeCache cache = Code;
        long budget = (long)Math.Min(maxInstructions, long.MaxValue);
        long start = budget;
        s->Zero = 0;
        s->Unmatchable = 0x4000_0000_0000_0000;
        StopReason reason;
        while (true)
        {
            if (Volatile.Read(ref s->ExitRequest) != 0 || s->Activity != ActivityState.Active)
            {
                if ((s->ExitRequest & (uint)ExitRequests.Code) != 0)
                    cache.TakeMail();
                if (ServiceEvents(out reason))
                    break;
            }
            if (GuestEnteredFromKernel && NonRoot is null)
            {
                reason = StopReason.HostReached;
                break;
            }
            if (budget <= 0)
            {
                reason = StopReason.Budget;
                break;
            }
            bool single = s->InterruptShadow != 0 || (s->ExitRequest & (uint)ExitRequests.SingleStep) != 0;
            Block* block = cache.Find(single);
            if (block != null && block->OpCount > budget)
                block = cache.Find(single: true);
            if (block == null)
            {
                DeliverPending();
                s->InterruptShadow = 0;
                continue;
            }
            ExecStatus status = single ? Step(cache, block, ref budget) : Interpreter.Execute(this, cache, block, ref budget);
            if (status == ExecStatus.Fault)
            {
                DeliverPending();
                s->InterruptShadow = 0;
            }
        }
        s->InstructionsRetired += (ulong)(start - budget);
        return reason;
    }

    /// <summary>One instruction, with what follows from RFLAGS.TF, RFLAGS.RF and the interrupt shadow at its end.</summary>
    private ExecStatus Step(CodeCache cache, Block* block, ref long budget)
    {
        const ulong trap = 1UL << 8, resume = 1UL << 16, singleStep = 1UL << 14;
        CpuState* s = State;
        Op* op = Block.Ops(block);
        OpcodeFlags flags = OpcodeTable.Instance[op->Code].Flags;
        ulong before = s->Rflags;
        ExecStatus status = Interpreter.Execute(this, cache, block, ref budget);
        if (status is ExecStatus.Fault or ExecStatus.Switched)
            return status;
        if ((flags & OpcodeFlags.SetsShadow) == 0)
            s->InterruptShadow = 0;
        if (status == ExecStatus.Again || (flags & OpcodeFlags.DeliversEvent) == 0)
        {
            if ((before & resume) != 0 && (flags & OpcodeFlags.LoadsFlags) == 0 && status != ExecStatus.Again)
                s->Rflags &= ~resume;
            // A trap after MOV SS or POP SS waits for the instruction that follows.
            if ((before & trap) != 0 && ((flags & OpcodeFlags.SetsShadow) == 0 || (s->InterruptShadow & 2) == 0))
                s->PendingDebug |= singleStep;
        }
        return status;
    }
}
