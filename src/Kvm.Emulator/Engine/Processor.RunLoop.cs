using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

public sealed unsafe partial class Processor
{
    /// <summary>
    /// Executes instructions until something of <see cref="StopReason"/> happens. An instruction that faults, an event that is taken, and each turn of
    /// a long string instruction, counts against <paramref name="maxInstructions"/>, so a guest that never gets anywhere comes to an end too.
    /// </summary>
    /// <remarks>
    /// At every block head, in this order: pending events (SDM vol 3A, "Prioritization of Concurrent Events"), the budget, the block at RIP, its execution.
    /// While single-stepping or in an interrupt shadow the block is one instruction.
    /// </remarks>
    public StopReason Run(ulong maxInstructions = ulong.MaxValue)
    {
        Volatile.Write(ref executor, Environment.CurrentManagedThreadId);
        try
        {
            return RunToEnd(maxInstructions);
        }
        finally
        {
            Volatile.Write(ref executor, 0);
        }
    }

    /// <summary>
    /// The thread that executes this processor, 0 outside of <see cref="Run"/>. Written by that thread without a fence;
    /// <see cref="LeaveWithdrawnMemory"/> puts one into every thread before it reads.
    /// </summary>
    private int executor;

    /// <summary>
    /// Waits until the processor has come to a boundary and dropped its translations, as <see cref="ExitRequests.Flush"/> asks it to. One that does not execute,
    /// or that the calling thread executes, uses none until its next boundary.
    /// </summary>
    internal void LeaveWithdrawnMemory()
    {
        var spin = new SpinWait();
        while (Volatile.Read(ref executor) is int thread && thread != 0 && thread != Environment.CurrentManagedThreadId
            && (Volatile.Read(ref State->ExitRequest) & (uint)ExitRequests.Flush) != 0)
        {
            spin.SpinOnce();
        }
    }

    private StopReason RunToEnd(ulong maxInstructions)
    {
        CpuState* s = State;
        CodeCache cache = Code;
        long budget = (long)Math.Min(maxInstructions, long.MaxValue);
        long start = budget, unfinished = 0, reserve = 0;
        PerformanceMonitor? counters = Counters;
        counters?.Enter();
        if (HostContextPending)
            UpdateMode();
        s->Zero = 0;
        s->Unmatchable = 0x4000_0000_0000_0000;
        StopReason reason;
        while (true)
        {
            bool eventTaken = false;
            if (counters is { Attention: true })
            {
                // Counters that overflow soon get the loop back by the budget.
                budget += reserve;
                ulong retired = s->InstructionsRetired + (ulong)(start - budget - unfinished);
                counters.Boundary(retired);
                reserve = Math.Max(0, budget - (long)Math.Min(counters.Allowance(retired), long.MaxValue));
                budget -= reserve;
            }
            else if (reserve != 0)
            {
                budget += reserve;
                reserve = 0;
            }
            if (Volatile.Read(ref s->ExitRequest) != 0 || s->Activity != ActivityState.Active)
            {
                if ((s->ExitRequest & (uint)ExitRequests.Code) != 0)
                    cache.TakeMail();
                if (ServiceEvents(out reason, out eventTaken))
                    break;
                if (eventTaken)
                {
                    budget--;
                    unfinished++;
                }
            }
            if (GuestEnteredFromKernel && NonRoot is null)
            {
                reason = StopReason.HostReached;
                break;
            }
            if (budget <= 0 && reserve > 0)
                continue;
            if (budget <= 0)
            {
                reason = StopReason.Budget;
                break;
            }
            if (eventTaken)
                continue;
            bool single = s->InterruptShadow != 0 || (s->ExitRequest & (uint)ExitRequests.SingleStep) != 0;
            Block* block = cache.Find(single);
            if (block != null && block->OpCount > budget)
                block = cache.Find(single: true);
            if (block == null)
            {
                PendingLength = 0;
                DeliverPending();
                budget--;
                unfinished++;
                continue;
            }
            long before = budget;
            ExecStatus status = single ? Step(cache, block, ref budget)
                : --block->Heat < 0 ? ExecuteHot(cache, block, ref budget)
                : Interpreter.Execute(this, cache, block, ref budget);
            // Generated code may not even have begun.
            instructionEnded |= budget != before || status != ExecStatus.Jumped;
            repeatInterrupted = status == ExecStatus.Again;
            if (status == ExecStatus.Fault)
            {
                DeliverPending();
                budget--;
                unfinished++;
            }
            else if (status == ExecStatus.Again)
            {
                budget--;
                unfinished++;
            }
            else if (status == ExecStatus.Switched && NonRoot is null)
            {
                // An instruction that causes a VM exit is not retired.
                unfinished++;
            }
        }
        s->InstructionsRetired += (ulong)(start - budget - reserve - unfinished);
        counters?.Leave(s->InstructionsRetired);
        return reason;
    }

    /// <summary>A block that was executed often enough to be translated, where there is a host to translate to.</summary>
    private ExecStatus ExecuteHot(CodeCache cache, Block* block, ref long budget)
    {
        if (NativeEngine is not null)
            return NativeEngine.Execute(cache, block, ref budget);
        block->Heat = int.MaxValue;
        return Interpreter.Execute(this, cache, block, ref budget);
    }

    /// <summary>One instruction; an interrupt shadow ends with it unless it casts a new one.</summary>
    private ExecStatus Step(CodeCache cache, Block* block, ref long budget)
    {
        Op* op = Block.Ops(block);
        OpcodeFlags flags = OpcodeTable.Instance[op->Code].Flags;
        ulong from = State->Rip;
        ExecStatus status = Interpreter.Execute(this, cache, block, ref budget);
        if (status == ExecStatus.Jumped)
            NoteBranch(op, from);
        if (status is not (ExecStatus.Fault or ExecStatus.Switched) && (flags & OpcodeFlags.SetsShadow) == 0)
            State->InterruptShadow = 0;
        return status;
    }
}
