using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Vmx;

/// <summary>VMX non-root operation of one processor: which instructions and events exit, and how guest memory is reached.</summary>
/// <remarks>SDM vol 3C, chapter "VMX Non-Root Operation". Parts: instructions, control registers, events, virtual APIC, EPT.</remarks>
internal sealed unsafe partial class VmxGuest : NonRootMode, IDisposable
{
    private readonly VmxUnit unit;
    private readonly Processor cpu;

    /// <summary>The VMCS whose derived state (controls, bitmap pointers) this object holds.</summary>
    private VmxUnit.ActiveVmcs* block;
    private Vmcs* vmcs;

    // Structures that the controls point to; null when the control is off or no memory is there.
    private byte* msrBitmap, ioBitmapA, ioBitmapB, virtualApic;
    private ulong apicAccessPage;
    private bool eptEnabled;
    private ulong eptRoot;
    private int eptLevels;
    private bool eptAccessedDirty;
    private ushort tag;

    private EventInfo vectoring;
    private bool isVectoring;

    internal VmxGuest(VmxUnit unit, Processor cpu)
    {
        this.unit = unit;
        this.cpu = cpu;
        executeOnlyEpt = (unit.Capabilities.EptVpid & 1) != 0;
        hugeEptPages = (unit.Capabilities.EptVpid >> 17 & 1) != 0;
        largeEptPages = (unit.Capabilities.EptVpid >> 16 & 1) != 0;
        advancedEptInformation = (unit.Capabilities.EptVpid >> 22 & 1) != 0;
        preemptionShift = unit.Capabilities.PreemptionTimerShift;
    }

    private bool Has(PinBasedControls control) => (unit.Pin & control) != 0;
    private bool Has(PrimaryControls control) => (unit.Primary & control) != 0;
    private bool Has(SecondaryControls control) => (unit.Secondary & control) != 0;

    /// <summary>VMX operation has ended: nothing is remembered.</summary>
    internal void ForgetVmcs()
    {
        block = contextOwner = null;
        vmcs = null;
        StopTimer();
    }

    /// <summary>The VMCS is no longer active.</summary>
    internal void Forget(VmxUnit.ActiveVmcs* gone)
    {
        if (block == gone)
            ForgetVmcs();
    }

    /// <summary>
    /// Prepares for an entry with <paramref name="next"/>: re-reads the controls when they were written or another VMCS was in use.
    /// Returns the groups that have to be checked again.
    /// </summary>
    internal VmcsDirty UseVmcs(VmxUnit.ActiveVmcs* next)
    {
        VmcsDirty dirty = next->Dirty;
        if (block != next || (dirty & VmcsDirty.Controls) != 0 || memoryEpoch != cpu.Machine.Memory.Epoch)
        {
            block = next;
            vmcs = &next->Data;
            unit.ReadControls(vmcs);
            ResolvePointers();
        }
        if ((dirty & VmcsDirty.Controls) != 0)
            return VmcsDirty.All;
        // The rules for segment registers depend on CR0.PE and RFLAGS.VM.
        if ((dirty & VmcsDirty.Registers) != 0 || next->CheckedVirtual8086 != ((next->Data.GuestRflags & Flags.VM) != 0))
            dirty |= VmcsDirty.Segments;
        return dirty;
    }

    private uint memoryEpoch;

    private void ResolvePointers()
    {
        memoryEpoch = cpu.Machine.Memory.Epoch;
        msrBitmap = Has(PrimaryControls.UseMsrBitmaps) ? unit.Physical(vmcs->MsrBitmap) : null;
        ioBitmapA = Has(PrimaryControls.UseIoBitmaps) ? unit.Physical(vmcs->IoBitmapA) : null;
        ioBitmapB = Has(PrimaryControls.UseIoBitmaps) ? unit.Physical(vmcs->IoBitmapB) : null;
        virtualApic = Has(PrimaryControls.UseTprShadow) ? unit.Physical(vmcs->VirtualApicPageAddr) : null;
        apicAccessPage = Has(SecondaryControls.VirtualizeApicAccesses) ? vmcs->ApicAccessAddr : ulong.MaxValue;
        eptEnabled = Has(SecondaryControls.EnableEpt);
        UseEptp(eptEnabled ? vmcs->EptPointer : 0);
        modeBasedExecute = Has(SecondaryControls.ModeBasedExecuteEpt);
        tag = Has(SecondaryControls.EnableVpid) ? vmcs->VirtualProcessorId : (ushort)0;
    }

    private void UseEptp(ulong eptp)
    {
        eptRoot = eptp & 0x000f_ffff_ffff_f000;
        eptLevels = (int)(eptp >> 3 & 7) + 1;
        eptAccessedDirty = (eptp >> 6 & 1) != 0;
    }

    /// <summary>Guest state is loaded: non-root operation begins. Injects the event of the VM entry, if any.</summary>
    internal void Entered(VmcsDirty dirty)
    {
        CpuState* s = cpu.State;
        isVectoring = false;
        pendingExit = PendingExit.None;
        trapExit = TrapExit.None;
        monitorTrapDue = monitorTrapArmed = false;
        iretUnblocked = false;
        pauseFirst = 0;
        cpu.NonRoot = this;
        cpu.MonitorTrap = Has(PrimaryControls.MonitorTrapFlag);
        if (!Has(SecondaryControls.EnableVpid))
            cpu.Mmu.FlushTag(0, keepGlobal: false);
        if (ContextIsLoaded(dirty))
            cpu.HostContextPending = false;
        else
            cpu.UpdateMode();
        StartTimer();
        StartWatching();
        if ((vmcs->VmEntryIntrInfoField & InterruptionInfo.Valid) != 0)
            InjectEntryEvent();
    }

    // What the translation and decoding context was when this VMCS's guest exited last.
    private VmxUnit.ActiveVmcs* contextOwner;
    private ulong contextSwitches;
    private TlbEntry* contextTlb;
    private uint contextMode;
    private ulong contextFlags, contextXcr0;

    /// <summary>RFLAGS bits that the context depends on.</summary>
    private const ulong ContextFlags = Flags.VM | Flags.AC | Flags.TF | Flags.RF;

    /// <summary>State->Mode and State->Tlb still are what UpdateMode would compute for this entry: nothing that they depend on has changed since the exit.</summary>
    private bool ContextIsLoaded(VmcsDirty dirty)
    {
        CpuState* s = cpu.State;
        return cpu.HostContextPending && (dirty & ~VmcsDirty.Host) == 0 && contextOwner == block && contextSwitches == cpu.Mmu.Switches
            && contextTlb == s->Tlb && contextMode == s->Mode && contextFlags == (s->Rflags & ContextFlags) && contextXcr0 == s->Xcr0
            && (contextFlags & (Flags.TF | Flags.RF)) == 0 && (s->Dr[7] & 0xff) == 0 && !cpu.MonitorTrap && vmcs->VmEntryMsrLoadCount == 0;
    }

    private void RememberContext()
    {
        CpuState* s = cpu.State;
        contextOwner = block;
        contextSwitches = cpu.Mmu.Switches;
        contextTlb = s->Tlb;
        contextMode = s->Mode;
        contextFlags = s->Rflags & ContextFlags;
        contextXcr0 = s->Xcr0;
    }

    /// <summary>"Event Injection". The event wakes a halted guest.</summary>
    private void InjectEntryEvent()
    {
        uint info = vmcs->VmEntryIntrInfoField;
        int type = InterruptionInfo.Type(info);
        if (type == InterruptionInfo.OtherEvent)
        {
            monitorTrapDue = true;
            cpu.Request(ExitRequests.Reevaluate);
            return;
        }
        CpuState* s = cpu.State;
        s->Activity = ActivityState.Active;
        s->InterruptShadow = 0;
        // Where IRET could not end it ("NMI exiting" without virtual NMIs), an injected NMI starts no blocking.
        if (type == InterruptionInfo.Nmi && IretUnblocksNmi)
            s->NmiBlocked = 1;
        bool software = InterruptionInfo.IsSoftware(type);
        var injected = new EventInfo((byte)InterruptionInfo.Vector(info), (byte)type, (info & InterruptionInfo.DeliverErrorCode) != 0,
            vmcs->VmEntryExceptionErrorCode, software ? (int)vmcs->VmEntryInstructionLen : 0);
        if (cpu.InjectEvent(injected) == ExecStatus.Fault)
            cpu.DeliverPending();
    }

    /// <summary>The processor is leaving non-root operation.</summary>
    internal void Left(VmxExitReason reason, uint interruption)
    {
        RememberContext();
        cpu.MonitorTrap = false;
        cpu.CancelDelivery();
        isVectoring = false;
        // NMIs are blocked after an exit due to an NMI; with virtual NMIs the blocking bit was the guest's, not the processor's.
        if (reason == VmxExitReason.EXCEPTION_NMI && InterruptionInfo.Type(interruption) == InterruptionInfo.Nmi)
            cpu.State->NmiBlocked = 1;
        else if (Has(PinBasedControls.VirtualNmis))
            cpu.State->NmiBlocked = 0;
    }

    /// <summary>A VM exit without interruption information. An instruction that exits saves RFLAGS.RF = 0; accesses and task switches have rules of their own.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private bool Exit(VmxExitReason reason, ulong qualification, int length)
    {
        if (length != 0 && reason is not (VmxExitReason.EPT_VIOLATION or VmxExitReason.EPT_MISCONFIG or VmxExitReason.PML_FULL or VmxExitReason.APIC_ACCESS or VmxExitReason.TASK_SWITCH))
            cpu.State->Rflags &= ~Flags.RF;
        unit.Exit(reason, qualification, length, 0);
        return true;
    }

    /// <summary>IDT-vectoring information of the exit that is being recorded.</summary>
    internal void RecordVectoring(Vmcs* v)
    {
        v->IdtVectoringInfoField = 0;
        if (!isVectoring)
            return;
        bool errorCode = vectoring.HasErrorCode && cpu.ProtectedMode;
        v->IdtVectoringInfoField = InterruptionInfo.Make(vectoring.Vector, vectoring.Type, errorCode);
        v->IdtVectoringErrorCode = errorCode ? vectoring.ErrorCode : 0;
        if (InterruptionInfo.IsSoftware(vectoring.Type))
            v->VmExitInstructionLen = (uint)vectoring.InstructionLength;
    }

    public override ushort TlbTag => tag;
    public override ulong NestedRoot => eptRoot;
    public override bool NestedPaging => eptEnabled;

    /// <summary>SDM vol 3C, "Time-Stamp Counter Offsetting" and "TSC scaling": multiplier (48 fraction bits) first, then offset.</summary>
    public override ulong AdjustTsc(ulong tsc)
    {
        if (!Has(PrimaryControls.UseTscOffsetting))
            return tsc;
        if (Has(SecondaryControls.UseTscScaling))
            tsc = (ulong)((UInt128)tsc * vmcs->TscMultiplier >> 48);
        return tsc + vmcs->TscOffset;
    }

    /// <summary>RDTSCP, INVPCID and XSAVES/XRSTORS are #UD in non-root operation unless enabled.</summary>
    public override bool Enabled(NonRootFeature feature) => feature switch
    {
        NonRootFeature.Rdtscp => Has(SecondaryControls.EnableRdtscp),
        NonRootFeature.Invpcid => Has(SecondaryControls.EnableInvpcid),
        NonRootFeature.Xsaves => Has(SecondaryControls.EnableXsaves),
        NonRootFeature.UserWait => Has(SecondaryControls.EnableUserWaitPause),
        _ => true,
    };

    public override bool UnrestrictedGuest => Has(SecondaryControls.UnrestrictedGuest);

    public void Dispose()
    {
        // A callback in flight touches the processor's state block, which is freed next: wait for it.
        timer?.DisposeAsync().AsTask().GetAwaiter().GetResult();
        timer = null;
    }
}
