using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.ApicConst;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>The vCPU's side of interrupts (irq.c): what is pending from APIC, PIC and userspace, and acknowledging it.</remarks>
public unsafe partial class X86Vcpu
{
    /// <summary>The local APIC; null when userspace has it.</summary>
    public KvmLapic? Apic { get; internal set; }

    /// <summary>lapic_in_kernel.</summary>
    public bool LapicInKernel => Apic is not null;

    /// <summary>apic_arb_prio: how often a lowest-priority interrupt came here; the rarest gets the next.</summary>
    public int ApicArbPrio;

    /// <summary>KVM_APIC_* bits: words in guest memory to look at after an exit.</summary>
    public uint ApicAttention;

    /// <summary>The vector of the KVM_EXIT_IOAPIC_EOI that is due.</summary>
    public int PendingIoapicEoi;

    /// <summary>Vectors whose EOI the IOAPIC (or userspace's) wants.</summary>
    private readonly ulong[] _ioapicHandledVectors = new ulong[4];

    internal readonly GfnToHvaCache PvEoiCache = new();

    /// <summary>kvm_ioapic_handles_vector.</summary>
    public bool IoapicHandles(int vector) => (_ioapicHandledVectors[vector >> 6] >> (vector & 63) & 1) != 0;

    /// <summary>kvm_vcpu_apicv_active.</summary>
    public bool ApicvActive => Apic is { ApicvActive: true };

    /// <summary>kvm_lapic_enabled.</summary>
    private bool LapicEnabled => Apic is { Enabled: true };

    /// <summary>kvm_vcpu_is_bsp.</summary>
    private bool IsBsp => (ApicBase & MSR_IA32_APICBASE_BSP) != 0;

    // ---- what is pending ----

    /// <summary>kvm_cpu_has_extint: an interrupt that does not come from the local APIC. With userspace's APIC: a vector that KVM_INTERRUPT left.</summary>
    [KernelFunction("kvm_cpu_has_extint", File = "arch/x86/kvm/irq.c")]
    public bool CpuHasExtint()
    {
        using var _ = FunctionTrace.Enter("kvm_cpu_has_extint");
        if (Apic is not { } apic)
            return Interrupt.Injected;
        if (!apic.AcceptPicIntr())
            return false;
        return Vm.IrqchipSplit ? PendingExternalVector != -1 : Vm.Pic!.Output;
    }

    /// <summary>kvm_cpu_has_injectable_intr: one that KVM must inject; with APICv the processor delivers the APIC's.</summary>
    [KernelFunction("kvm_cpu_has_injectable_intr", File = "arch/x86/kvm/irq.c")]
    public bool CpuHasInjectableIntr()
    {
        using var _ = FunctionTrace.Enter("kvm_cpu_has_injectable_intr");
        if (CpuHasExtint())
            return true;
        if (!IsGuestMode && ApicvActive)
            return false;
        return ApicHasInterrupt();
    }

    /// <summary>kvm_cpu_has_interrupt.</summary>
    [KernelFunction("kvm_cpu_has_interrupt", File = "arch/x86/kvm/irq.c")]
    public bool CpuHasInterrupt() => CpuHasExtint() || ApicHasInterrupt();

    private bool ApicHasInterrupt()
    {
        if (Apic is { } apic)
            return apic.HasInterrupt() != -1;
        FunctionTrace.Leaf("kvm_apic_has_interrupt");
        return false;
    }

    /// <summary>kvm_cpu_get_interrupt: acknowledges the most urgent interrupt: its vector, or -1.</summary>
    [KernelFunction("kvm_cpu_get_interrupt", File = "arch/x86/kvm/irq.c")]
    public int CpuGetInterrupt()
    {
        using var _ = FunctionTrace.Enter("kvm_cpu_get_interrupt");
        int vector = CpuGetExtint();
        if (vector != -1)
            return vector;
        return Apic?.GetInterrupt() ?? -1;
    }

    private int CpuGetExtint()
    {
        if (!CpuHasExtint())
            return -1;
        if (!LapicInKernel)
            return Interrupt.Nr;
        if (!Vm.IrqchipSplit)
            return Vm.Pic!.ReadIrq();
        int vector = PendingExternalVector;
        PendingExternalVector = -1;
        return vector;
    }

    // ---- timers ----

    /// <summary>kvm_cpu_has_pending_timer.</summary>
    [KernelFunction("kvm_cpu_has_pending_timer", File = "arch/x86/kvm/irq.c")]
    public bool CpuHasPendingTimer()
    {
        using var _ = FunctionTrace.Enter("kvm_cpu_has_pending_timer");
        return Apic is { HasPendingTimer: true };
    }

    [KernelFunction("kvm_inject_pending_timer_irqs", File = "arch/x86/kvm/irq.c")]
    private void InjectPendingTimerIrqs()
    {
        using var _ = FunctionTrace.Enter("kvm_inject_pending_timer_irqs");
        Apic?.InjectTimerIrqs();
    }

    /// <summary>__kvm_migrate_timers.</summary>
    [KernelFunction("__kvm_migrate_timers", File = "arch/x86/kvm/irq.c")]
    private void MigrateTimers()
    {
        using var _ = FunctionTrace.Enter("__kvm_migrate_timers");
        KvmLapic.Migrate(this);
        KvmPit.Migrate(this);
        Ops.MigrateTimers(this);
    }

    // ---- INIT and SIPI ----

    /// <summary>kvm_apic_init_sipi_allowed: not in SMM, nor where the vendor blocks INIT.</summary>
    private bool InitSipiAllowed => !IsSmm && !Ops.ApicInitSignalBlocked(this);

    /// <summary>kvm_apic_accept_events: takes INIT and SIPI that wait. 0, or below when nested operation fails.</summary>
    [KernelFunction("kvm_apic_accept_events", File = "arch/x86/kvm/lapic.c")]
    internal int ApicAcceptEvents()
    {
        using var _ = FunctionTrace.Enter("kvm_apic_accept_events");
        if (Apic is not { HasPendingInitOrSipi: true } apic)
            return 0;
        if (IsGuestMode)
        {
            int r = CheckNestedEvents();
            if (r < 0)
                return r == -Errnos.EBUSY ? 0 : r;
        }

        // INIT waits while it is blocked; a SIPI outside wait-for-SIPI is lost.
        if (!InitSipiAllowed)
        {
            apic.TakeEvent(KVM_APIC_SIPI);
            return 0;
        }

        if (apic.TakeEvent(KVM_APIC_INIT))
        {
            Reset(true);
            MpState = IsBsp ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_INIT_RECEIVED;
        }

        if (apic.TakeEvent(KVM_APIC_SIPI) && MpState == KVM_MP_STATE_INIT_RECEIVED)
        {
            Ops.VcpuDeliverSipiVector(this, (byte)Volatile.Read(ref apic.SipiVector));
            MpState = KVM_MP_STATE_RUNNABLE;
        }

        return 0;
    }

    // ---- requests ----

    /// <summary>kvm_vcpu_update_apicv: follows the VM's reasons against APICv, and the APIC's being on.</summary>
    [KernelFunction("kvm_vcpu_update_apicv", File = "arch/x86/kvm/x86.c")]
    internal void UpdateApicv()
    {
        using var _ = FunctionTrace.Enter("kvm_vcpu_update_apicv");
        if (Apic is not { } apic)
            return;
        Vm.ApicvUpdateLock.ReadLock();
        bool activate = VcpuApicvActivated && (ApicBase & (MSR_IA32_APICBASE_ENABLE | X2APIC_ENABLE)) != 0;
        if (apic.ApicvActive != activate)
        {
            apic.ApicvActive = activate;
            apic.UpdateApicv();
            Ops.RefreshApicvExecCtrl(this);

            // Interrupts that APICv accepted made no request.
            if (!activate)
                MakeRequest(KVM_REQ_EVENT);
        }

        Vm.ApicvUpdateLock.ReadUnlock();
    }

    [KernelFunction("kvm_vcpu_apicv_activated", File = "arch/x86/kvm/x86.c")]
    private bool VcpuApicvActivated
    {
        get
        {
            FunctionTrace.Leaf("kvm_vcpu_apicv_activated");
            return (Volatile.Read(ref Vm.ApicvInhibitReasons) | Ops.VcpuGetApicvInhibitReasons(this)) == 0;
        }
    }

    /// <summary>vcpu_scan_ioapic: which EOIs concern the IOAPIC.</summary>
    private void ScanIoapic()
    {
        if (Apic is not { HwEnabled: true })
            return;
        Array.Clear(_ioapicHandledVectors);
        if (Ops.HasSyncPirToIrr)
            Ops.SyncPirToIrr(this);
        if (Vm.IrqchipSplit)
            ScanIoapicRoutes();
        else
            Vm.Ioapic?.ScanEntry(this, _ioapicHandledVectors);
        MakeRequest(KVM_REQ_LOAD_EOI_EXITMAP);
    }

    /// <summary>kvm_scan_ioapic_routes: level-triggered messages of the GSIs that stand for userspace's IOAPIC pins.</summary>
    [KernelFunction("kvm_scan_ioapic_routes", File = "arch/x86/kvm/irq_comm.c")]
    private void ScanIoapicRoutes()
    {
        int index = Vm.IrqSrcu.ReadLock();
        for (uint gsi = 0; gsi < Vm.NrReservedIoapicPins; gsi++)
        {
            foreach (KvmKernelIrqRoutingEntry entry in Vm.RoutesOf(gsi))
            {
                if (entry.Type != KVM_IRQ_ROUTING_MSI)
                    continue;
                KvmLapicIrq irq = X86Arch.SetMsiIrq(Vm, entry.AddressLo, entry.AddressHi, entry.Data);
                if (irq.TrigMode != 0 && Apic!.MatchDest(null, APIC_DEST_NOSHORT, irq.DestId, irq.DestMode))
                    _ioapicHandledVectors[irq.Vector >> 6] |= 1ul << (irq.Vector & 63);
            }
        }

        Vm.IrqSrcu.ReadUnlock(index);
    }

    /// <summary>vcpu_load_eoi_exitmap.</summary>
    private void LoadEoiExitmap()
    {
        if (Apic is not { HwEnabled: true })
            return;
        if (Hv is not { } hv)
        {
            Ops.LoadEoiExitmap(this, _ioapicHandledVectors);
            return;
        }

        Span<ulong> bitmap = stackalloc ulong[4];
        for (int i = 0; i < bitmap.Length; i++)
            bitmap[i] = _ioapicHandledVectors[i] | hv.Synic.Vectors[i];
        Ops.LoadEoiExitmap(this, bitmap);
    }

    /// <summary>KVM_REQ_IOAPIC_EOI_EXIT: true when KVM_RUN ends with KVM_EXIT_IOAPIC_EOI.</summary>
    private bool IoapicEoiExit()
    {
        if (!IoapicHandles(PendingIoapicEoi))
            return false;
        Run->exit_reason = KVM_EXIT_IOAPIC_EOI;
        Run->eoi.vector = (byte)PendingIoapicEoi;
        return true;
    }

    /// <summary>kvm_lapic_set_pv_eoi: 0, or not 0 when the write of the MSR faults. <paramref name="length"/>: bytes that belong to the word.</summary>
    internal int SetPvEoi(ulong data, ulong length)
    {
        ulong address = data & ~1ul;
        if ((address & 3) != 0)
            return 1;
        if ((data & 1) != 0 && Vm.GfnToHvaCacheInit(PvEoiCache, address, address == PvEoiCache.Gpa ? Math.Max(length, PvEoiCache.Len) : length).IsError)
            return 1;
        PvEoiMsrVal = data;
        return 0;
    }
}
