namespace Kvm.Emulator;

/// <summary>What an instruction handler tells the run loop.</summary>
public enum ExecStatus
{
    /// <summary>Done: the loop advances RIP by the instruction's length.</summary>
    Next = 0,
    /// <summary>Done: the handler has set RIP itself (branch, far transfer, interrupt return).</summary>
    Jumped,
    /// <summary>
    /// Not done: Processor.PendingFault or a pending nested-paging exit holds why; RIP and all guest-visible state are as before the instruction
    /// (REP instructions: as before the failing iteration). The loop delivers it.
    /// </summary>
    Fault,
    /// <summary>The processor switched between root and non-root operation (VM entry or VM exit): everything, RIP included, has been reloaded.</summary>
    Switched,
    /// <summary>Done, RIP not yet advanced; the mode, paging or code may have changed, so the loop advances RIP and leaves the current block.</summary>
    NextEndBlock,
    /// <summary>The instruction (HLT, MWAIT, shutdown) put the processor in a non-active state; RIP already advanced.</summary>
    Halted,
    /// <summary>A REP instruction did part of its work and was interrupted; RIP stays on it.</summary>
    Again,
}
