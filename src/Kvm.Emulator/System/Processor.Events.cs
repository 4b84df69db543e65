namespace Kvm.Emulator;

/// <summary>Events at instruction boundaries and faults: what is taken first, and what happens to the rest.</summary>
/// <remarks>SDM vol 3A, "Prioritization of Concurrent Events"; vol 3C, "VM Exits Before/During/After Event Delivery".</remarks>
public sealed unsafe partial class Processor
{
    /// <summary>TF was set when the instruction just executed began.</summary>
    private bool singleStepArmed;
    /// <summary>RF was set when the instructions since the last look at events began.</summary>
    private bool resumeFlagArmed;
    private ulong resumeFlagRip;
    /// <summary>The last thing executed was a turn of a REP instruction that is not done yet.</summary>
    private bool repeatInterrupted;
    /// <summary>RF is on only for an event that is taken at this boundary, between two turns.</summary>
    private bool repeatSetRf;
    /// <summary>The instruction just executed one by one was a taken branch.</summary>
    private bool branchTaken;
    /// <summary>Something was executed since the last look at events.</summary>
    private bool instructionEnded;
    /// <summary>The event whose delivery through the IDT has begun and not ended; Type and Vector valid while <see cref="isDelivering"/>.</summary>
    private EventInfo delivering;
    private bool isDelivering;

    /// <summary>
    /// Called by the run loop at a block head when ExitRequest != 0 or the processor is not active: takes the pending event of the highest priority.
    /// True: leave the loop with <paramref name="reason"/>. False: go on at State->Rip, which may have changed (also after a VM exit).
    /// <paramref name="taken"/>: an event was taken, and others may wait that come before the next instruction.
    /// </summary>
    internal bool ServiceEvents(out StopReason reason, out bool taken)
    {
        CpuState* s = State;
        while (true)
        {
            reason = StopReason.StopRequested;
            taken = false;
            if (TakeRequests())
                return true;
            FinishInstruction();
            taken = TakeEvent() || (s->Activity == ActivityState.Active && (TakeInstructionBreakpoint() || TakeVirtualInterruptFault()));
            if (taken)
            {
                repeatSetRf = false;
                // What else is pending finds its place in the order at the handler's first instruction.
                Reevaluate();
                return false;
            }
            if (s->Activity == ActivityState.Active)
            {
                ArmNext();
                return false;
            }
            if (monitorWait && MonitorWaitIsOver())
            {
                s->Activity = ActivityState.Active;
                Reevaluate();
                continue;
            }
            reason = s->Activity == ActivityState.Hlt ? StopReason.Halted : StopReason.Shutdown;
            if (NonRoot is null)
                return true;
            // A guest that its host lets halt: the host's deadlines (preemption timer) and monitored memory are looked at every millisecond.
            WaitForInput(TimeSpan.FromMilliseconds(1));
        }
    }

    /// <summary>Requests that are not events. True: stop.</summary>
    private bool TakeRequests()
    {
        // Bits are cleared before the state they stand for is looked at: a request made meanwhile is seen now or sets its bit again.
        uint requests = Interlocked.And(ref State->ExitRequest, (uint)(ExitRequests.SingleStep | ExitRequests.Stop | ExitRequests.Code));
        if ((requests & (uint)ExitRequests.Flush) != 0)
        {
            Mmu.FlushAll();
            Code.Flush();
        }
        if ((requests & (uint)ExitRequests.Stop) == 0)
            return false;
        ClearRequest(ExitRequests.Stop);
        Reevaluate();
        return true;
    }

    /// <summary>
    /// What the instruction that just ended leaves behind: the single-step trap (with DEBUGCTL.BTF only after a branch), RF off. Between the turns of
    /// a REP instruction RF is on.
    /// </summary>
    /// <remarks>SDM vol 3B, "Instruction-Breakpoint Exception Condition", "Single-Step Exception Condition", "Single-Stepping on Branches".</remarks>
    private void FinishInstruction()
    {
        AtInstructionEnd = instructionEnded;
        if (!instructionEnded)
            return;
        repeatSetRf = repeatInterrupted && (State->Rflags & Flags.RF) == 0;
        if (repeatInterrupted)
            State->Rflags |= Flags.RF;
        else if (resumeFlagArmed)
            State->Rflags &= ~Flags.RF;
        if (singleStepArmed && (branchTaken || (State->DebugCtl & DebugCtlBtf) == 0))
            State->PendingDebug |= Dr6Bs;
        DisarmStep();
    }

    /// <summary>RF goes off with the first instruction that completes, but is looked at only when somebody asks: a fault or an exit in the middle of a block.</summary>
    internal void SettleResumeFlag()
    {
        if (resumeFlagArmed && State->Rip != resumeFlagRip)
            State->Rflags &= ~Flags.RF;
    }

    /// <summary>The boundary being looked at ends an instruction: it is not the first one after an event or an entry, nor looked at a second time.</summary>
    internal bool AtInstructionEnd { get; private set; }

    /// <summary>Before the next instruction: what it will leave behind, and whether the loop executes one instruction at a time from here.</summary>
    private void ArmNext()
    {
        CpuState* s = State;
        if (repeatSetRf)
            s->Rflags &= ~Flags.RF;
        repeatSetRf = false;
        singleStepArmed = (s->Rflags & Flags.TF) != 0;
        resumeFlagArmed = (s->Rflags & Flags.RF) != 0;
        resumeFlagRip = s->Rip;
        bool held = s->InterruptShadow != 0 && (nmiPending || InterruptPending || s->PendingDebug != 0 || NonRoot is { VirtualEventPending: true });
        if (SingleStepRequired || held)
            Request(held ? ExitRequests.SingleStep | ExitRequests.Reevaluate : ExitRequests.SingleStep);
        else
            ClearRequest(ExitRequests.SingleStep);
    }

    /// <summary>Takes at most one event. True: something was delivered or exited.</summary>
    private bool TakeEvent()
    {
        CpuState* s = State;
        NonRootMode? guest = NonRoot;
        bool movSsShadow = (s->InterruptShadow & 2) != 0;
        if (initPending && Gif && TakeInit(guest))
            return true;
        if (sipiPending >= 0 && TakeSipi(guest))
            return true;
        bool running = s->Activity != ActivityState.WaitForSipi;
        if (guest is not null && running && guest.Boundary(BoundaryStage.Traps))
            return true;
        if (s->PendingDebug != 0 && !movSsShadow && Gif && s->Activity is ActivityState.Active or ActivityState.Hlt)
        {
            TakeDebugTrap();
            return true;
        }
        if (guest is not null && running && guest.Boundary(BoundaryStage.BeforeNmi))
            return true;
        if (nmiPending && Gif && TakeNmi(guest, movSsShadow))
            return true;
        if (guest is not null && running && guest.Boundary(BoundaryStage.BeforeInterrupts))
            return true;
        if (InterruptPending && Gif && TakeInterrupt(guest))
            return true;
        return guest is not null && running && guest.Boundary(BoundaryStage.AfterInterrupts);
    }

    private void TakeDebugTrap()
    {
        ulong bits = State->PendingDebug;
        State->PendingDebug = 0;
        State->Activity = ActivityState.Active;
        DeliverFault(new Fault(Fault.DB, Address: bits), trap: true);
    }

    private bool TakeInit(NonRootMode? guest)
    {
        // VMX root operation blocks INIT; it stays pending until VMXOFF. Wait-for-SIPI in non-root blocks it too.
        if (guest is null && InVmxOperation)
            return false;
        if (guest is not null)
        {
            if (State->Activity == ActivityState.WaitForSipi)
                return false;
            initPending = false;
            if (guest.PhysicalInit())
                return true;
        }
        initPending = false;
        Reset(init: true);
        return true;
    }

    private bool TakeSipi(NonRootMode? guest)
    {
        int page = sipiPending;
        sipiPending = -1;
        // A SIPI outside wait-for-SIPI is lost.
        if (State->Activity != ActivityState.WaitForSipi)
            return false;
        if (guest is not null)
            return guest.PhysicalSipi((byte)page);
        ref SegmentCache cs = ref Segment(Seg.CS);
        cs.Selector = (ushort)(page << 8);
        cs.Base = (ulong)page << 12;
        State->Rip = 0;
        State->Activity = ActivityState.Active;
        UpdateMode();
        return true;
    }

    private bool TakeNmi(NonRootMode? guest, bool movSsShadow)
    {
        CpuState* s = State;
        if (s->Activity == ActivityState.WaitForSipi)
            return false;
        // Asked first: whether blocking by NMI holds back an NMI that exits is the guest mode's business.
        if (guest is not null && guest.PhysicalNmi())
        {
            if (guest.NmiExitTakesNmi)
                nmiPending = false;
            return true;
        }
        if (s->NmiBlocked != 0 || movSsShadow)
            return false;
        nmiPending = false;
        s->NmiBlocked = 1;
        s->Activity = ActivityState.Active;
        DeliverExternal(new EventInfo(2, 2, false, 0, 0));
        return true;
    }

    private bool TakeInterrupt(NonRootMode? guest)
    {
        CpuState* s = State;
        if (s->Activity is ActivityState.WaitForSipi or ActivityState.Shutdown)
            return false;
        if (guest is null)
        {
            if ((s->Rflags & Flags.IF) == 0 || s->InterruptShadow != 0 || !InterruptDeliverable(maskByTpr: true))
                return false;
        }
        else
        {
            if (!guest.PhysicalInterruptsEnabled || !InterruptDeliverable(maskByTpr: false))
                return false;
            if (guest.PhysicalInterrupt())
            {
                CodeMayHaveChanged(); // as when it is delivered
                return true;
            }
            if ((s->Rflags & Flags.IF) == 0 || s->InterruptShadow != 0)
                return false;
        }
        int vector = AcknowledgeInterrupt();
        if (vector < 0)
            return false;
        s->Activity = ActivityState.Active;
        DeliverExternal(new EventInfo((byte)vector, 0, false, 0, 0));
        return true;
    }

    /// <summary>Instruction breakpoints fault before the instruction at RIP executes; their saved image has no RF.</summary>
    private bool TakeInstructionBreakpoint()
    {
        ulong hit = InstructionBreakpointsHit();
        if (hit == 0)
            return false;
        DeliverFault(new Fault(Fault.DB, Address: hit), trap: true);
        return true;
    }

    private bool TakeVirtualInterruptFault()
    {
        if (!VirtualInterruptDue)
            return false;
        DeliverFault(Fault.Gp(), trap: false);
        return true;
    }

    /// <summary>Delivers <see cref="PendingFault"/> (or takes the pending memory exit) after ExecStatus.Fault; the loop then starts over at a block head.</summary>
    internal void DeliverPending()
    {
        SettleResumeFlag();
        DisarmStep();
        if (PendingMemoryExit)
        {
            TakeMemoryExit();
            return;
        }
        DeliverFault(PendingFault, trap: false);
    }

    /// <summary>The instruction did not end as it began: no single-step trap follows, RF stays as loaded.</summary>
    private void DisarmStep() => singleStepArmed = resumeFlagArmed = repeatInterrupted = branchTaken = instructionEnded = false;

    private void TakeMemoryExit()
    {
        PendingMemoryExit = false;
        NonRoot?.TakePendingMemoryExit();
        isDelivering = false;
        Reevaluate();
    }

    /// <summary>Forgets an interrupted event delivery: called by the VMX and SVM parts when a VM exit has recorded it.</summary>
    internal void CancelDelivery()
    {
        isDelivering = false;
        DisarmStep();
        DisarmMonitor();
    }

    /// <summary>
    /// Delivers an exception, resolving faults met on the way: serial, double fault, triple fault. <paramref name="trap"/>: a #DB that is not a fault, so RF is
    /// not set in the saved image.
    /// </summary>
    private void DeliverFault(Fault fault, bool trap)
    {
        while (true)
        {
            // The exception bitmap sees the second exception before it turns into a double fault.
            if (NonRoot is { } guest && guest.Exception(fault, 0))
            {
                isDelivering = false;
                return;
            }
            if (fault.Vector == Fault.PF)
                State->Cr2 = fault.Address;
            if (isDelivering && delivering.Type == 3)
            {
                if (delivering.Vector == Fault.DF)
                {
                    TripleFault();
                    return;
                }
                if (BecomesDoubleFault(delivering.Vector, fault.Vector))
                {
                    fault = new Fault(Fault.DF, true, 0);
                    trap = false;
                    if (NonRoot is { } mode && mode.Exception(fault, 0))
                    {
                        isDelivering = false;
                        return;
                    }
                }
            }
            if (fault.Vector == Fault.DB)
                NoteDebugException(fault.Address);
            if (Deliver(new EventInfo(fault.Vector, 3, fault.HasErrorCode, fault.ErrorCode, 0), setRf: !trap) == ExecStatus.Jumped)
                return;
            if (PendingMemoryExit)
            {
                TakeMemoryExit();
                return;
            }
            if (!isDelivering)
                return;
            fault = PendingFault;
            trap = false;
        }
    }

    private void DeliverExternal(in EventInfo info)
    {
        if (Deliver(info, setRf: false) != ExecStatus.Fault)
            return;
        if (PendingMemoryExit)
            TakeMemoryExit();
        else
            DeliverFault(PendingFault, trap: false);
    }

    /// <summary>
    /// Delivers an event through the IVT or IDT as VM-entry injection does: no interception. Types 4–6 push RIP + InstructionLength.
    /// Fault: a fault during delivery is pending and goes through <see cref="DeliverPending"/>.
    /// </summary>
    internal ExecStatus InjectEvent(in EventInfo info) => Deliver(info, setRf: info.Type == 3 && info.Vector != Fault.DB);

    /// <summary>DR6, DR7.GD and IA32_DEBUGCTL (LBR and BTF off) as #DB delivery updates them.</summary>
    private void NoteDebugException(ulong bits)
    {
        State->Dr[6] = (State->Dr[6] & ~0xfUL) | bits | Dr6Fixed;
        State->Dr[7] &= ~Dr7Gd;
        State->DebugCtl &= ~(DebugCtlLbr | DebugCtlBtf);
    }

    /// <summary>Contributory: #DE #TS #NP #SS #GP; page faults make a double fault with contributory ones and themselves.</summary>
    private static bool BecomesDoubleFault(byte first, byte second)
    {
        bool Contributory(byte v) => v is Fault.DE or Fault.TS or Fault.NP or Fault.SS or Fault.GP or Fault.CP;
        return Contributory(first) ? Contributory(second) : first == Fault.PF && (Contributory(second) || second == Fault.PF);
    }

    private void TripleFault()
    {
        isDelivering = false;
        if (NonRoot is { } guest && guest.TripleFault())
            return;
        State->Activity = ActivityState.Shutdown;
        Reevaluate();
    }
}
