using System.Runtime.Intrinsics;

namespace Kvm.Emulator.Svm;

/// <summary>
/// A processor in SVM guest mode: the controls loaded from the VMCB by VMRUN and the questions the engine asks while a guest runs.
/// One instance per processor, reused for every VMRUN.
/// </summary>
/// <remarks>APM vol 2, "Secure Virtual Machine".</remarks>
internal sealed unsafe partial class SvmGuest : NonRootMode
{
    internal SvmGuest(Processor cpu, SvmUnit unit)
    {
        this.cpu = cpu;
        this.unit = unit;
        state = cpu.State;
    }

    private const ulong RflagsIf = 1UL << 9;

    private readonly Processor cpu;
    private readonly SvmUnit unit;
    private readonly CpuState* state;

    // Controls as loaded by VMRUN: what the guest does to the VMCB afterwards does not count.
    private uint interceptCr, interceptDr, interceptExceptions;
    private SvmIntercepts3 intercepts3;
    private SvmIntercepts4 intercepts4;
    private SvmIntercepts5 intercepts5;
    private byte* ioMap0, ioMap1, ioMap2;
    private byte* msrMap0, msrMap1;
    private ulong tscOffset, tscRatio;
    private uint pauseCount, pauseReload, pauseThreshold;
    private ulong lastPause;
    private bool virtualMasking, virtualGifPresent, virtualGifEnabled, virtualGif, virtualVmloadVmsave;
    private bool hostInterruptsEnabled;
    private bool virtualIrq, ignoreTpr;
    private byte virtualVector, virtualPriority;
    private bool nestedPaging;
    private ulong nestedCr3, nestedRoot;
    private ushort tag;
    private bool hasNrip, hasAssists;

    public override bool NestedPaging => nestedPaging;
    public override ushort TlbTag => tag;
    public override ulong NestedRoot => nestedRoot;

    internal ushort Tag => tag;
    internal ulong Root => nestedRoot;
    internal bool Nested => nestedPaging;

    /// <summary>With V_INTR_MASKING the host's RFLAGS.IF (as of VMRUN) gates physical interrupts, else the guest's; GIF gates both.</summary>
    public override bool PhysicalInterruptsEnabled
        => unit.Gif && (virtualMasking ? hostInterruptsEnabled : (state->Rflags & RflagsIf) != 0);

    public override ulong AdjustTsc(ulong tsc)
        => (tscRatio == SvmUnit.DefaultTscRatio ? tsc : (ulong)(((UInt128)tsc * tscRatio) >> 32)) + tscOffset;

    /// <summary>
    /// The controls as they lie in the VMCB that was loaded last: intercepts, pause filter with the maps and the TSC offset, ASID, nested paging. They are compared
    /// whole, so an entry that finds them as they were has neither to check nor to convert them.
    /// </summary>
    private Vector256<byte> loadedIntercepts, loadedMaps;
    private Vector128<byte> loadedNested;
    private uint loadedAsid, loadedEpoch;
    private SvmNestedControl loadedNestedControl;
    private SvmCapabilities? loadedCapabilities;

    private const int PauseAndMaps = 0x38;

    /// <summary>The controls passed the checks at the last entry that loaded any, and have been loaded.</summary>
    internal bool ControlsAreLoaded(VmcbControlArea* c)
        => ((Vector256.Load((byte*)c) ^ loadedIntercepts) | (Vector256.Load((byte*)c + PauseAndMaps) ^ loadedMaps)) == Vector256<byte>.Zero
            && Vector128.Load((byte*)&c->NestedCr3) == loadedNested && c->Asid == loadedAsid && c->NestedControl == loadedNestedControl
            && ReferenceEquals(loadedCapabilities, unit.Capabilities) && loadedEpoch == unit.MemoryEpoch;

    /// <summary>What a VMCB whose controls are loaded still has to bring.</summary>
    internal void ReloadControls(VmcbControlArea* c, bool hostIf)
    {
        tscRatio = unit.TscRatio;
        hostInterruptsEnabled = hostIf;
        LoadInterruptControls(c);
        pauseCount = pauseReload;
        lastPause = 0;
        delivering = false;
        pendingExit = false;
    }

    /// <summary>Reads the controls of a VMCB that has passed its consistency checks.</summary>
    internal void LoadControls(VmcbControlArea* c, bool hostIf)
    {
        ReadControls(c);
        ReloadControls(c, hostIf);
        loadedIntercepts = Vector256.Load((byte*)c);
        loadedMaps = Vector256.Load((byte*)c + PauseAndMaps);
        loadedNested = Vector128.Load((byte*)&c->NestedCr3);
        loadedAsid = c->Asid;
        loadedNestedControl = c->NestedControl;
        loadedEpoch = unit.MemoryEpoch;
        // Memory that is not there yet is looked for each time.
        bool mapped = ((intercepts3 & SvmIntercepts3.Ioio) == 0 || (ioMap0 != null && ioMap1 != null && ioMap2 != null))
            && ((intercepts3 & SvmIntercepts3.Msr) == 0 || (msrMap0 != null && msrMap1 != null));
        loadedCapabilities = mapped ? unit.Capabilities : null;
    }

    private void ReadControls(VmcbControlArea* c)
    {
        interceptCr = c->Intercepts[0];
        interceptDr = c->Intercepts[1];
        interceptExceptions = c->InterceptExceptions;
        intercepts3 = c->Intercepts3;
        intercepts4 = c->Intercepts4;
        intercepts5 = c->Intercepts5;
        tscOffset = c->TscOffset;
        tag = (ushort)c->Asid;
        hasNrip = unit.Has(SvmFeatures.NripSave);
        hasAssists = unit.Has(SvmFeatures.DecodeAssists);
        virtualGifPresent = unit.Has(SvmFeatures.VirtualGif);
        LoadMaps(c);
        pauseReload = unit.Has(SvmFeatures.PauseFilter) ? c->PauseFilterCount : 0u;
        pauseThreshold = unit.Has(SvmFeatures.PauseFilterThreshold) ? c->PauseFilterThreshold : 0u;
        nestedPaging = (c->NestedControl & SvmNestedControl.NpEnable) != 0 && unit.Has(SvmFeatures.NestedPaging);
        nestedCr3 = c->NestedCr3;
        nestedRoot = nestedPaging ? nestedCr3 & ~0xfffUL : 0;
        virtualVmloadVmsave = nestedPaging && (c->VirtualExtensions & SvmVirtualExtensions.VirtualVmloadVmsave) != 0 && unit.Has(SvmFeatures.VirtualVmloadVmsave);
    }

    private void LoadMaps(VmcbControlArea* c)
    {
        ulong io = c->IopmBasePa & ~0xfffUL, msr = c->MsrpmBasePa & ~0xfffUL;
        if ((intercepts3 & SvmIntercepts3.Ioio) != 0)
        {
            ioMap0 = unit.Physical(io);
            ioMap1 = unit.Physical(io + 0x1000);
            ioMap2 = unit.Physical(io + 0x2000);
        }
        if ((intercepts3 & SvmIntercepts3.Msr) != 0)
        {
            msrMap0 = unit.Physical(msr);
            msrMap1 = unit.Physical(msr + 0x1000);
        }
    }

    private void LoadInterruptControls(VmcbControlArea* c)
    {
        SvmIntControl control = c->IntControl;
        virtualMasking = (control & SvmIntControl.VIntrMasking) != 0;
        virtualIrq = (control & SvmIntControl.VIrq) != 0;
        ignoreTpr = (control & SvmIntControl.IgnoreTpr) != 0;
        virtualPriority = (byte)((uint)(control & SvmIntControl.PriorityMask) >> 16);
        virtualVector = (byte)c->IntVector;
        virtualGifEnabled = virtualGifPresent && (control & SvmIntControl.VGifEnable) != 0;
        virtualGif = (control & SvmIntControl.VGif) != 0;
        virtualTpr = (byte)((uint)control & 0xf);
    }

    private byte virtualTpr;

    /// <summary>V_TPR, V_IRQ and V_GIF as #VMEXIT writes them back.</summary>
    internal SvmIntControl StoreInterruptControls(SvmIntControl control)
    {
        control &= ~(SvmIntControl.TprMask | SvmIntControl.VIrq);
        control |= (SvmIntControl)virtualTpr;
        if (virtualIrq)
            control |= SvmIntControl.VIrq;
        if (virtualGifEnabled)
            control = virtualGif ? control | SvmIntControl.VGif : control & ~SvmIntControl.VGif;
        return control;
    }

    private bool Intercepted(SvmIntercepts3 bit) => (intercepts3 & bit) != 0;
    private bool Intercepted(SvmIntercepts4 bit) => (intercepts4 & bit) != 0;

    /// <summary>RIP of the instruction after the current one, in the width of the current code segment.</summary>
    private ulong NextRip(int length)
    {
        ulong next = state->Rip + (uint)length;
        return ((CodeMode)state->Mode & CodeMode.SizeMask) == CodeMode.Code64 ? next : (uint)next;
    }

    /// <summary>Takes an instruction intercept. Always true, so that questions can return it.</summary>
    private bool Exit(SvmExitCode code, int length, ulong info1 = 0, ulong info2 = 0)
    {
        if (length != 0)
            cpu.SettleResumeFlag();
        unit.Exit(code, info1, info2, hasNrip && length != 0 ? NextRip(length) : 0);
        return true;
    }
}
