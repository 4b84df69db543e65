namespace Kvm.Emulator.Svm;

/// <summary>Exceptions, physical events and virtual interrupts (APM vol 2, "Exception Intercepts", "Interrupt Intercepts", "Virtual Interrupts").</summary>
internal sealed unsafe partial class SvmGuest
{
    private bool delivering;
    private uint deliveringEvent, deliveringError;

    /// <summary>EXITINTINFO: the event in flight, 0 when none.</summary>
    internal uint EventInFlight(out uint error)
    {
        error = delivering ? deliveringError : 0;
        return delivering ? deliveringEvent : 0;
    }

    public override void EventDelivery(bool delivering, in EventInfo info)
    {
        this.delivering = delivering;
        if (!delivering)
            return;
        // INT3, INTO and INT1 are exceptions to SVM; only INT n is a software interrupt.
        uint type = info.Type switch
        {
            0 => SvmEvent.TypeExternal,
            2 => SvmEvent.TypeNmi,
            4 => SvmEvent.TypeSoftware,
            _ => SvmEvent.TypeException,
        };
        deliveringEvent = SvmEvent.Valid | type | (info.HasErrorCode ? SvmEvent.ErrorCodeValid : 0) | info.Vector;
        deliveringError = info.HasErrorCode ? info.ErrorCode : 0;
    }

    /// <summary>CR2 keeps its value when #PF is intercepted; DR6 already shows the cause when #DB is.</summary>
    public override bool Exception(in Fault fault, int softwareLength)
    {
        if (fault.Vector >= 32 || (interceptExceptions >> fault.Vector & 1) == 0)
            return false;
        if (fault.Vector == Fault.DB)
            state->Dr[6] = (state->Dr[6] & ~0xfUL) | fault.Address;
        ulong next = hasNrip && softwareLength != 0 ? NextRip(softwareLength) : 0;
        bool page = fault.Vector == Fault.PF;
        unit.Exit((SvmExitCode)((ulong)SvmExitCode.Exception + fault.Vector), fault.HasErrorCode ? fault.ErrorCode : 0u, page ? fault.Address : 0, next,
            instructionBytes: page && (fault.ErrorCode & 0x10) == 0);
        return true;
    }

    public override bool TripleFault() => Intercepted(SvmIntercepts3.Shutdown) && Exit(SvmExitCode.Shutdown, 0);

    /// <summary>The interrupt stays pending: the host takes it after STGI.</summary>
    public override bool PhysicalInterrupt() => Intercepted(SvmIntercepts3.Intr) && Exit(SvmExitCode.Intr, 0);
    public override bool PhysicalNmi() => Intercepted(SvmIntercepts3.Nmi) && Exit(SvmExitCode.Nmi, 0);
    public override bool PhysicalInit() => Intercepted(SvmIntercepts3.Init) && Exit(SvmExitCode.Init, 0);
    public override bool PhysicalSipi(byte vector) => false;

    /// <summary>
    /// A virtual interrupt is due when V_IRQ is set, its priority passes V_TPR, the guest's RFLAGS.IF and (with virtual GIF) V_GIF are set and no shadow
    /// blocks it. The VINTR intercept sees it before it is taken; taking it clears V_IRQ. Physical interrupts come first.
    /// </summary>
    public override bool Boundary(BoundaryStage stage)
    {
        if (stage != BoundaryStage.AfterInterrupts || !virtualIrq || state->InterruptShadow != 0 || (state->Rflags & RflagsIf) == 0 || !unit.Gif)
            return false;
        if (virtualGifEnabled && !virtualGif)
            return false;
        if (!ignoreTpr && virtualPriority <= virtualTpr)
            return false;
        if (Intercepted(SvmIntercepts3.Vintr))
            return Exit(SvmExitCode.Vintr, 0);
        virtualIrq = false;
        state->Activity = ActivityState.Active;
        unit.Deliver(new EventInfo(virtualVector, 0, false, 0, 0));
        return true;
    }

    public override bool VirtualEventPending => virtualIrq;
    internal bool VirtualIrq => virtualIrq;
    public override bool NmiExitTakesNmi => false;

    private void RequestReevaluation()
    {
        if (virtualIrq)
            Interlocked.Or(ref state->ExitRequest, (uint)ExitRequests.Reevaluate);
    }
}
