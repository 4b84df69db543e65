namespace Kvm.Emulator.Vmx;

/// <summary>Exceptions, physical events, windows, traps and timers in non-root operation (SDM vol 3C, "Other Causes of VM Exits").</summary>
internal sealed unsafe partial class VmxGuest
{
    private enum TrapExit : byte { None, TprBelowThreshold, EoiInduced, ApicWrite }

    private TrapExit trapExit;
    private ulong trapQualification;
    private bool monitorTrapDue;
    private bool monitorTrapArmed;

    // ---- exceptions ----

    public override bool Exception(in Fault fault, int softwareLength)
    {
        if ((vmcs->ExceptionBitmap >> fault.Vector & 1) == 0 ^ (fault.Vector == Fault.PF && !PageFaultMatches(fault.ErrorCode)))
            return false;
        int type = fault.Vector switch
        {
            Fault.BP or Fault.OF when softwareLength != 0 => InterruptionInfo.SoftwareException,
            Fault.DB when softwareLength != 0 => InterruptionInfo.PrivilegedSoftwareException,
            _ => InterruptionInfo.HardwareException,
        };
        ulong qualification = fault.Vector is Fault.PF or Fault.DB ? fault.Address : 0;
        // Of debug exceptions only the general-detect fault sets RF.
        bool isFault = type == InterruptionInfo.HardwareException && fault.Vector is not (Fault.DF or Fault.MC)
            && (fault.Vector != Fault.DB || (fault.Address & Processor.Dr6Bd) != 0);
        if (isFault && !isVectoring)
            cpu.State->Rflags |= Flags.RF;
        if (fault.Vector == Fault.DF)
            isVectoring = false;
        // Real mode has no error codes.
        bool errorCode = fault.HasErrorCode && cpu.ProtectedMode;
        if (errorCode)
            vmcs->VmExitIntrErrorCode = fault.ErrorCode;
        uint info = InterruptionInfo.Make(fault.Vector, type, errorCode) | (NmiUnblocking() ? InterruptionInfo.NmiUnblocking : 0);
        unit.Exit(VmxExitReason.EXCEPTION_NMI, qualification, softwareLength, info);
        return true;
    }

    /// <summary>#PF exits when (error code AND mask) == match agrees with bit 14 of the exception bitmap.</summary>
    private bool PageFaultMatches(uint errorCode) => (errorCode & vmcs->PageFaultErrorCodeMask) == vmcs->PageFaultErrorCodeMatch;

    public override bool TripleFault()
    {
        isVectoring = false;
        return Exit(VmxExitReason.TRIPLE_FAULT, 0, 0);
    }

    public override bool TaskSwitch(int length, ushort selector, int source, bool hasErrorCode, uint errorCode) =>
        Exit(VmxExitReason.TASK_SWITCH, selector | (ulong)source << 30, length);

    public override void EventDelivery(bool delivering, in EventInfo info)
    {
        iretUnblocked = false;
        isVectoring = delivering;
        vectoring = info;
        if (!delivering && Has(PrimaryControls.MonitorTrapFlag))
        {
            monitorTrapDue = true;
            cpu.Request(ExitRequests.Reevaluate);
        }
    }

    // ---- physical events ----

    public override bool PhysicalInterruptsEnabled =>
        Has(PinBasedControls.ExternalInterruptExiting) || ((cpu.State->Rflags & Flags.IF) != 0 && cpu.State->InterruptShadow == 0);

    public override bool VirtualEventPending =>
        Has(PrimaryControls.InterruptWindowExiting | PrimaryControls.NmiWindowExiting) || (Has(SecondaryControls.VirtualInterruptDelivery) && Rvi != 0);

    public override bool PhysicalInterrupt()
    {
        if (!Has(PinBasedControls.ExternalInterruptExiting))
            return false;
        if ((unit.ExitControls & VmExitControls.AcknowledgeInterruptOnExit) == 0)
            return Exit(VmxExitReason.EXTERNAL_INTERRUPT, 0, 0);
        int vector = cpu.AcknowledgeInterrupt();
        if (vector < 0)
            return false;
        if (Has(PinBasedControls.PostedInterrupts) && vector == (vmcs->PostedIntrNv & 0xff))
        {
            ProcessPostedInterrupts();
            return true;
        }
        unit.Exit(VmxExitReason.EXTERNAL_INTERRUPT, 0, 0, InterruptionInfo.Make(vector, InterruptionInfo.ExternalInterrupt, errorCode: false));
        return true;
    }

    public override bool PhysicalNmi()
    {
        // With virtual NMIs the blocking bit is the guest's and holds back no physical NMI.
        if (!Has(PinBasedControls.NmiExiting) || (!Has(PinBasedControls.VirtualNmis) && cpu.State->NmiBlocked != 0))
            return false;
        unit.Exit(VmxExitReason.EXCEPTION_NMI, 0, 0, InterruptionInfo.Make(Fault.NMI, InterruptionInfo.Nmi, errorCode: false));
        return true;
    }

    public override bool PhysicalInit() => Exit(VmxExitReason.INIT_SIGNAL, 0, 0);

    public override bool PhysicalSipi(byte vector) =>
        cpu.State->Activity == ActivityState.WaitForSipi && Exit(VmxExitReason.SIPI_SIGNAL, vector, 0);

    // ---- instruction boundaries ----

    /// <summary>Asks for the boundary checks that the controls of this entry need.</summary>
    private void StartWatching()
    {
        CpuState* s = cpu.State;
        ExitRequests requests = ExitRequests.None;
        if (Has(PrimaryControls.InterruptWindowExiting | PrimaryControls.NmiWindowExiting | PrimaryControls.MonitorTrapFlag)
            || s->PendingDebug != 0 || s->Activity != ActivityState.Active)
            requests |= ExitRequests.Reevaluate;
        if (Has(SecondaryControls.VirtualInterruptDelivery))
        {
            UpdateVirtualPpr();
            requests |= ExitRequests.Reevaluate;
        }
        else if (IsTprBelowThreshold())
        {
            trapExit = TrapExit.TprBelowThreshold;
            requests |= ExitRequests.Reevaluate;
        }
        if (requests != ExitRequests.None)
            cpu.Request(requests);
    }

    /// <remarks>
    /// SDM vol 3C, "Other Causes of VM Exits" and "Monitor Trap Flag": trap-like APIC exits and the monitor trap flag come before debug traps, the preemption timer and
    /// the NMI window after them and before NMIs, the interrupt window and virtual interrupts between NMIs and interrupts.
    /// </remarks>
    public override bool Boundary(BoundaryStage stage) => stage switch
    {
        BoundaryStage.Traps => TrapBoundary(),
        BoundaryStage.BeforeNmi => NmiBoundary(),
        BoundaryStage.BeforeInterrupts => InterruptBoundary(),
        _ => false,
    };

    private bool TrapBoundary()
    {
        if (trapExit != TrapExit.None)
            return TakeTrapExit();
        // Boundaries come one per instruction while MTF is on; the first one precedes the first instruction.
        if (monitorTrapDue || (monitorTrapArmed && cpu.AtInstructionEnd))
            return Exit(VmxExitReason.MONITOR_TRAP_FLAG, 0, 0);
        monitorTrapArmed = Has(PrimaryControls.MonitorTrapFlag) && cpu.State->Activity == ActivityState.Active;
        return false;
    }

    private bool NmiBoundary()
    {
        CpuState* s = cpu.State;
        if (Has(PinBasedControls.PreemptionTimer) && PreemptionTimerExpired())
            return Exit(VmxExitReason.PREEMPTION_TIMER, 0, 0);
        return Has(PrimaryControls.NmiWindowExiting) && s->NmiBlocked == 0 && s->InterruptShadow == 0
            && s->Activity is ActivityState.Active or ActivityState.Hlt && Exit(VmxExitReason.NMI_WINDOW, 0, 0);
    }

    private bool InterruptBoundary()
    {
        CpuState* s = cpu.State;
        bool open = (s->Rflags & Flags.IF) != 0 && s->InterruptShadow == 0 && s->Activity is ActivityState.Active or ActivityState.Hlt;
        if (Has(PrimaryControls.InterruptWindowExiting))
            return open && Exit(VmxExitReason.INTERRUPT_WINDOW, 0, 0);
        return open && Has(SecondaryControls.VirtualInterruptDelivery) && DeliverVirtualInterrupt();
    }

    private bool TakeTrapExit()
    {
        VmxExitReason reason = trapExit switch
        {
            TrapExit.TprBelowThreshold => VmxExitReason.TPR_BELOW_THRESHOLD,
            TrapExit.EoiInduced => VmxExitReason.EOI_INDUCED,
            _ => VmxExitReason.APIC_WRITE,
        };
        ulong qualification = trapExit == TrapExit.TprBelowThreshold ? 0 : trapQualification;
        trapExit = TrapExit.None;
        return Exit(reason, qualification, 0);
    }

    private void RequestTrapExit(TrapExit exit, ulong qualification = 0)
    {
        trapExit = exit;
        trapQualification = qualification;
        cpu.Request(ExitRequests.Trap | ExitRequests.Reevaluate);
    }
}
