using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.KvmReg;
using static Kvm.Arch.X86.MsrBits;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>Creation with its unwinding, reset, load, destruction.</remarks>
public unsafe partial class X86Vcpu
{
    /// <summary>kvm_vcpu_is_reset_bsp.</summary>
    [KernelFunction("kvm_vcpu_is_reset_bsp", File = "arch/x86/kvm/x86.c")]
    public bool IsResetBsp
    {
        get
        {
            FunctionTrace.Leaf("kvm_vcpu_is_reset_bsp");
            return IsResetBspUntraced;
        }
    }

    private bool IsResetBspUntraced => Vm.BspVcpuId == (uint)VcpuId;

    /// <summary>The body of kvm_arch_vcpu_create: 0, -ENOMEM, or what the vendor's vcpu_create returns. A failure leaves nothing behind.</summary>
    internal KvmResult Create()
    {
        Host host = Vm.Host;
        LastVmentryCpu = -1;
        RegsAvail = ~0u;
        RegsDirty = ~0u;
        FunctionTrace.Leaf("kvm_gpc_init");
        MpState = !Vm.IrqchipInKernel || IsResetBspUntraced ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_UNINITIALIZED;
        int r = MmuCreate();
        if (r < 0)
            return r;

        r = -ENOMEM;
        if (Vm.IrqchipInKernel)
        {
            if (!KvmLapic.Create(this))
                goto fail_mmu_destroy;

            // Whatever speaks against APICv now: the request makes the vCPU look again before it first runs.
            if (Arch.EnableApicv)
            {
                Apic!.ApicvActive = true;
                MakeRequest(KVM_REQ_APICV_UPDATE);
            }
        }

        PioData = (byte*)host.Pages.AllocPage("pio_data");
        if (PioData == null)
            goto fail_free_lapic;
        if (host.Faults.ShouldFail("kcalloc", "mce_banks") || host.Faults.ShouldFail("kcalloc", "mci_ctl2_banks") || host.Faults.ShouldFail("zalloc_cpumask_var", "wbinvd_dirty_mask"))
            goto fail_free_mce_banks;
        McgCap = KVM_MAX_MCE_BANKS;
        using (FunctionTrace.Enter("kmem_cache_alloc"))
        {
            if (host.Faults.ShouldFail("kmem_cache_zalloc", "x86_emulator"))
                goto fail_free_mce_banks;
        }

        if (!AllocGuestFpstate())
        {
            host.Log.Err("kvm: failed to allocate vcpu's fpu");
            goto fail_free_mce_banks;
        }

        Maxphyaddr = QueryMaxphyaddr();
        ReservedGpaBits = ReservedGpaBitsRaw;
        Pat = MSR_IA32_CR_PAT_DEFAULT;
        using (FunctionTrace.Enter("kvm_pmu_init"))
        {
            Arch.PmuOps.Init(this);
            Arch.PmuOps.Refresh(this);
        }

        PendingExternalVector = -1;
        PreemptedInKernel = false;

        r = Ops.VcpuCreate(this);
        if (r != 0)
            goto free_guest_fpu;

        ArchCapabilities = Arch.GetArchCapabilities();
        MsrPlatformInfo = MSR_PLATFORM_INFO_CPUID_FAULT;
        FunctionTrace.Leaf("kvm_vcpu_mtrr_init");
        Load();
        SetTscKhz(Vm.DefaultTscKhz);
        Reset(false);
        InitMmu();
        Put();
        return 0;

    free_guest_fpu:
        FunctionTrace.Leaf("fpu_free_guest_fpstate");
        GuestFpu.Free();
    fail_free_mce_banks:
        host.Pages.FreePage((ulong)PioData);
        PioData = null;
    fail_free_lapic:
        KvmLapic.Free(this);
    fail_mmu_destroy:
        MmuDestroy();
        return r;
    }

    /// <summary>The body of kvm_arch_vcpu_destroy.</summary>
    internal void Destroy()
    {
        KvmclockReset();
        Ops.VcpuFree(this);
        FunctionTrace.Leaf("fpu_free_guest_fpstate");
        GuestFpu.Free();
        HvVcpuUninit();
        using (FunctionTrace.Enter("kvm_pmu_destroy"))
            Arch.PmuOps.Reset(this);
        KvmLapic.Free(this);
        int index = Vm.Srcu.ReadLock();
        MmuDestroy();
        Vm.Srcu.ReadUnlock(index);
        Vm.Host.Pages.FreePage((ulong)PioData);
        PioData = null;
        CpuidEntries = [];
        CpuidNent = 0;
    }

    /// <summary>The CPU that the vCPU was loaded on last: between load and put the thread's own, which costs more to look up.</summary>
    public HostX86Cpu LoadedCpu { get; internal set; } = null!;

    /// <summary>The body of kvm_arch_vcpu_load.</summary>
    internal void LoadOn(int cpu)
    {
        Ops.VcpuLoad(this, cpu);
        if (Arch.HostX86.HasPku)
            HostPkru = LoadedCpu.ReadPkru();
        if (TscOffsetAdjustment != 0)
        {
            AdjustTscOffsetGuest((long)Arch.ScaleTsc(TscOffsetAdjustment, L1TscScalingRatio));
            TscOffsetAdjustment = 0;
            MakeRequest(KVM_REQ_CLOCK_UPDATE);
        }

        if (Cpu != cpu || Arch.HostX86.TscUnstable)
        {
            if (Arch.HostX86.TscUnstable)
            {
                WriteTscOffset(ComputeL1TscOffset(LastGuestTsc));
                TscCatchup = true;
            }

            FunctionTrace.Leaf("kvm_lapic_hv_timer_in_use");
            if (Apic is { HvTimerInUse: true } apic)
                apic.RestartHvTimer();
            if (!Vm.UseMasterClock || Cpu == -1)
                MakeRequest(KVM_REQ_GLOBAL_CLOCK_UPDATE);
            if (Cpu != cpu)
                MakeRequest(KVM_REQ_MIGRATE_TIMER);
            Cpu = cpu;
        }

        // Serving the request does nothing while the guest has not asked for steal time; a trace shows it all the same.
        if (StMsrVal != 0 || FunctionTrace.Enabled)
            MakeRequest(KVM_REQ_STEAL_UPDATE);
    }

    /// <summary>RESET (at creation) or INIT.</summary>
    [KernelFunction("kvm_vcpu_reset", File = "arch/x86/kvm/x86.c")]
    public void Reset(bool initEvent)
    {
        using var _ = FunctionTrace.Enter("kvm_vcpu_reset");
        ulong oldCr0 = ReadCr0();
        if (IsGuestMode)
            Ops.NestedOps.LeaveNested(this);
        KvmLapic.Reset(this, initEvent);
        Hflags = 0;
        ResetEvents();

        Array.Clear(Db);
        UpdateDr0123();
        Dr6 = DR6_ACTIVE_LOW;
        Dr7 = DR7_FIXED_1;
        UpdateDr7();
        Cr2 = 0;

        MakeRequest(KVM_REQ_EVENT);
        ApfMsrEnVal = 0;
        ApfMsrIntVal = 0;
        StMsrVal = 0;
        KvmclockReset();
        FunctionTrace.Leaf("kvm_clear_async_pf_completion_queue");
        ApfHalted = false;
        if (!initEvent)
            ResetPowerUp();

        // All general registers are 0 but RDX, which has the processor's signature.
        new Span<ulong>(Regs, (int)NR_VCPU_REGS).Clear();
        RegisterMarkDirty(VCPU_REGS_RSP);
        Rdx = FindCpuidEntry(1, out Abi.kvm_cpuid_entry2 signature) ? signature.eax : 0x600;
        Ops.VcpuReset(this, initEvent);
        SetRflags(X86_EFLAGS_FIXED);
        Rip = 0xfff0;
        Cr3 = 0;
        RegisterMarkDirty(VCPU_EXREG_CR3);

        // CD and NW are set by RESET and kept by INIT.
        ulong newCr0 = X86_CR0_ET | (initEvent ? oldCr0 & (X86_CR0_NW | X86_CR0_CD) : X86_CR0_NW | X86_CR0_CD);
        Ops.SetCr0(this, newCr0);
        Ops.SetCr4(this, 0);
        Ops.SetEfer(this, 0);
        Ops.UpdateExceptionBitmap(this);
        if ((oldCr0 & X86_CR0_PG) != 0)
        {
            MakeRequest(KVM_REQ_TLB_FLUSH_GUEST);
            MmuResetContext();
        }

        if (initEvent)
            MakeRequest(KVM_REQ_TLB_FLUSH_GUEST);
    }

    private void ResetEvents()
    {
        SmiPending = false;
        SmiCount = 0;
        Volatile.Write(ref NmiQueued, 0);
        NmiPending = 0;
        NmiInjected = false;
        ClearInterruptQueue();
        ClearExceptionQueue();
    }

    private void ResetPowerUp()
    {
        using (FunctionTrace.Enter("kvm_pmu_reset"))
            Arch.PmuOps.Reset(this);
        Smbase = 0x30000;
        MsrMiscFeaturesEnables = 0;
        Ia32MiscEnableMsr = MSR_IA32_MISC_ENABLE_PEBS_UNAVAIL | MSR_IA32_MISC_ENABLE_BTS_UNAVAIL;
        SetXcr(0, XFEATURE_MASK_FP);

        // __kvm_set_msr, which the compiler inlined here.
        var xss = new MsrData(MsrIndex.MSR_IA32_XSS, 0, true);
        Ops.SetMsr(this, ref xss);
    }

    /// <summary>kvm_vcpu_deliver_sipi_vector: the AP starts at vector * 4 KiB.</summary>
    public void DeliverSipiVector(byte vector)
    {
        Ops.GetSegment(this, out Abi.kvm_segment cs, VcpuSreg.VCPU_SREG_CS);
        cs.selector = (ushort)(vector << 8);
        cs.@base = (ulong)vector << 12;
        Ops.SetSegment(this, in cs, VcpuSreg.VCPU_SREG_CS);
        Rip = 0;
    }
}
