using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.MsrBits;
using static Kvm.Arch.X86.MsrIndex;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <summary>
/// The x86 part of kvm.ko on one host: the kvm_arch_* functions, what the loaded vendor module registered, and the globals of arch/x86/kvm.
/// </summary>
/// <remarks>x86.c. The globals are members here, because a process holds many hosts.</remarks>
public sealed partial class X86Arch : IKvmArch
{
    private const ulong KVM_SUPPORTED_XCR0 = XFEATURE_MASK_FP | XFEATURE_MASK_SSE | XFEATURE_MASK_YMM | XFEATURE_MASK_BNDREGS
        | XFEATURE_MASK_BNDCSR | XFEATURE_MASK_AVX512 | XFEATURE_MASK_PKRU | XFEATURE_MASK_XTILE;

    private IKvmX86Ops? ops;
    private IKvmPmuOps? pmuOps;

    public X86Arch(HostX86 hostX86)
    {
        HostX86 = hostX86;
        Host = hostX86.Host;
        Params = new KvmModuleParams(this);
        Spte = new SpteMasks(this);
        DevIoctls = BuildDevIoctls();
        VmIoctls = BuildVmIoctls();
        VcpuIoctls = BuildVcpuIoctls();
    }

    public Host Host { get; }

    public HostX86 HostX86 { get; }

    /// <summary>kvm.ko's parameters.</summary>
    public KvmModuleParams Params { get; }

    /// <summary>kvm_x86_ops of the loaded vendor module; throws when none is (our own bug).</summary>
    public IKvmX86Ops Ops => ops ?? throw new InvalidOperationException("No vendor module is loaded.");

    public IKvmPmuOps PmuOps => pmuOps ?? throw new InvalidOperationException("No vendor module is loaded.");

    public bool VendorLoaded => ops is not null;

    public KvmCaps KvmCaps { get; } = new();

    public X86PmuCapability PmuCap { get; } = new();

    public KvmMsrLists Msrs { get; } = new();

    public UserReturnMsrs UserReturn => HostX86.UserReturn;

    /// <summary>Bits of the tables that the processor walks for a guest.</summary>
    public SpteMasks Spte { get; }

    public ulong HostEfer { get; private set; }
    public ulong HostXss { get; private set; }
    public ulong HostXcr0 { get; private set; }

    /// <summary>EFER bits that a guest cannot set.</summary>
    public ulong EferReservedBits { get; private set; } = ~(EFER_SCE | EFER_LME | EFER_LMA);

    public ulong Cr4ReservedBits { get; private set; } = CR4_RESERVED_BITS;

    /// <summary>enable_apicv: a variable of kvm.ko that vendor modules clear; it stays cleared until kvm.ko is reloaded.</summary>
    public bool EnableApicv { get; set; } = true;

    public bool AllowSmallerMaxphyaddr { get; set; }

    /// <summary>tdp_enabled: EPT or NPT is in use.</summary>
    public bool TdpEnabled { get; private set; }

    /// <summary>l1tf_vmx_mitigation != VMENTER_L1D_FLUSH_NEVER; kvm_intel sets it.</summary>
    public bool L1dFlushOnVmenter { get; set; } = true;

    /// <summary>kvm_enable_efer_bits.</summary>
    [KernelFunction("kvm_enable_efer_bits", File = "arch/x86/kvm/x86.c")]
    public void EnableEferBits(ulong mask)
    {
        using var _ = FunctionTrace.Enter("kvm_enable_efer_bits");
        EferReservedBits &= ~mask;
    }

    // ---- kvm.ko ----

    public void DefineParameters(ModuleParameters parameters) => Params.Define(parameters);

    [KernelFunction("kvm_x86_init", File = "arch/x86/kvm/x86.c")]
    public KvmResult ModuleInit(KvmModule module)
    {
        using var _ = FunctionTrace.Enter("kvm_x86_init");
        this.module = module;
        InitXstateSizes();
        using (FunctionTrace.Enter("kvm_mmu_x86_module_init"))
        {
            Params.ResolveNxHugePages();
            Spte.ModuleInit();
        }

        Params.MitigateSmtRsb &= HostX86.BootCpuHasBug(X86Bug.SMT_RSB);
        EnableApicv = true;
        return 0;
    }

    // ---- vendor modules ----

    private IDisposable? kvmclockState;

    /// <summary>
    /// First half of loading a vendor module, before <see cref="KvmModule"/>'s kvm_init: -EEXIST when another one is loaded, -EOPNOTSUPP without
    /// hardware support, when firmware disabled it or without an FPU, -EIO when PAT entry 0 is not write-back.
    /// </summary>
    [KernelFunction("kvm_x86_vendor_init", File = "arch/x86/kvm/x86.c")]
    public int VendorInit(IKvmX86InitOps init)
    {
        using var _ = FunctionTrace.Enter("kvm_x86_vendor_init");
        if (ops is not null)
        {
            Host.Log.Err($"kvm: already loaded vendor module '{ops.Name}'");
            return -EEXIST;
        }

        string name = init.RuntimeOps.Name;
        if (!init.CpuHasKvmSupport())
        {
            Host.Log.Err($"kvm: no hardware support for '{name}'");
            return -EOPNOTSUPP;
        }

        if (init.DisabledByBios())
        {
            Host.Log.Err($"kvm: support for '{name}' disabled by bios");
            return -EOPNOTSUPP;
        }

        if (!HostX86.BootCpuHas(X86Feature.FPU) || !HostX86.BootCpuHas(X86Feature.FXSR))
        {
            Host.Log.Err("kvm: inadequate fpu");
            return -EOPNOTSUPP;
        }

        if (!HostX86.ThisCpu.RdmsrSafe(MSR_IA32_CR_PAT, out ulong hostPat) || (hostPat & 7) != 6)
        {
            Host.Log.Err("kvm: host PAT[0] is not WB");
            return -EIO;
        }

        if (Host.Faults.ShouldFail("kmem_cache_create", "x86_emulator"))
        {
            Host.Log.Err("kvm: failed to allocate cache for x86 emulator");
            return -ENOMEM;
        }

        if (Host.Faults.ShouldFail("alloc_percpu", "kvm_user_return_msrs"))
        {
            Host.Log.Err("kvm: failed to allocate percpu kvm_user_return_msrs");
            return -ENOMEM;
        }

        UserReturn.Clear();
        int r = MmuVendorModuleInit();
        if (r != 0)
            return r;

        // Nobody looks at what it returns.
        Host.CpuHotplugSetup("x86/kvm/clk:online", KvmclockCpuOnline, KvmclockCpuDownPrep, out kvmclockState, callsAtRemoval: false);
        if (HostX86.BootCpuHas(X86Feature.XSAVE))
        {
            HostXcr0 = HostX86.ThisCpu.Xgetbv0();
            KvmCaps.SupportedXcr0 = HostXcr0 & KVM_SUPPORTED_XCR0;
        }

        // housekeeping_enabled(HK_TYPE_TIMER): no CPU is set apart.
        if (Params.PiInjectTimer == -1)
            Params.PiInjectTimer = 0;
        return 0;
    }

    /// <summary>Caches, counter and shrinker of the MMU; the objects are the runtime's, only their creation can fail.</summary>
    [KernelFunction("kvm_mmu_vendor_module_init", File = "arch/x86/kvm/mmu/mmu.c")]
    private int MmuVendorModuleInit()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_vendor_module_init");
        Spte.ResetAllPteMasks();
        FaultInjection faults = Host.Faults;
        bool failed = faults.ShouldFail("kmem_cache_create", "pte_list_desc") || faults.ShouldFail("kmem_cache_create", "kvm_mmu_page_header")
            || faults.ShouldFail("percpu_counter_init", "kvm_total_used_mmu_pages") || faults.ShouldFail("register_shrinker", "x86-mmu");
        return failed ? -ENOMEM : 0;
    }

    [KernelFunction("kvm_x86_vendor_exit", File = "arch/x86/kvm/x86.c")]
    public void VendorExit()
    {
        using var _ = FunctionTrace.Enter("kvm_x86_vendor_exit");
        FunctionTrace.Leaf("kvm_lapic_exit");
        kvmclockState?.Dispose();
        kvmclockState = null;
        ops = null;
        pmuOps = null;
        FunctionTrace.Leaf("kvm_mmu_vendor_module_exit");
    }

    /// <summary>The TSC runs at one rate: a CPU that comes has nothing to tell the clocks of guests.</summary>
    [KernelFunction("kvmclock_cpu_online", File = "arch/x86/kvm/x86.c")]
    private KvmResult KvmclockCpuOnline(HostCpu cpu)
    {
        FunctionTrace.Leaf("kvmclock_cpu_online");
        return 0;
    }

    [KernelFunction("kvmclock_cpu_down_prep", File = "arch/x86/kvm/x86.c")]
    private KvmResult KvmclockCpuDownPrep(HostCpu cpu)
    {
        FunctionTrace.Leaf("kvmclock_cpu_down_prep");
        return 0;
    }

    public KvmResult Init(object? opaque)
    {
        FunctionTrace.Leaf("kvm_arch_init");
        return 0;
    }

    [KernelFunction("kvm_arch_exit", File = "arch/x86/kvm/x86.c")]
    public void Exit() => FunctionTrace.Leaf("kvm_arch_exit");

    /// <summary>kvm_arch_hardware_setup: host registers, the vendor's setup, the reserved bits of CR4, the MSR lists.</summary>
    [KernelFunction("kvm_arch_hardware_setup", File = "arch/x86/kvm/x86.c")]
    public KvmResult HardwareSetup(object? opaque)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_hardware_setup");
        var init = (IKvmX86InitOps)opaque!;
        HostX86Cpu cpu = HostX86.ThisCpu;
        cpu.RdmsrSafe(MSR_EFER, out ulong efer);
        HostEfer = efer;
        if (HostX86.BootCpuHas(X86Feature.XSAVES))
            HostXss = cpu.Rdmsr(MSR_IA32_XSS);

        Params.EnablePmu = PmuCap.Init(HostX86.Pmu, Params.EnablePmu);

        int r = init.HardwareSetup();
        if (r != 0)
            return r;

        ops = init.RuntimeOps;
        FunctionTrace.Leaf("kvm_pmu_ops_update");
        pmuOps = init.PmuOps;
        FunctionTrace.Leaf("kvm_register_perf_callbacks");

        if (!CpuCapHas(X86Feature.XSAVES))
            KvmCaps.SupportedXss = 0;
        Cr4ReservedBits = ComputeCr4ReservedBits(this, static (arch, feature) => arch.CpuCapHas(feature));

        KvmCaps.DefaultTscScalingRatio = 1ul << KvmCaps.TscScalingRatioFracBits;
        if (KvmCaps.HasTscControl)
            KvmCaps.MaxGuestTscKhz = (uint)Math.Min(0x7fffffff, MulShift(HostX86.TscKhz, KvmCaps.MaxTscScalingRatio, KvmCaps.TscScalingRatioFracBits));
        Msrs.Init(this);
        return 0;
    }

    /// <summary>Undoes <see cref="HardwareSetup"/>.</summary>
    [KernelFunction("kvm_arch_hardware_unsetup", File = "arch/x86/kvm/x86.c")]
    public void HardwareUnsetup()
    {
        using var _ = FunctionTrace.Enter("kvm_arch_hardware_unsetup");
        FunctionTrace.Leaf("kvm_unregister_perf_callbacks");
        ops?.HardwareUnsetup();
    }

    [KernelFunction("kvm_arch_check_processor_compat", File = "arch/x86/kvm/x86.c")]
    public KvmResult CheckProcessorCompat(object? opaque)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_check_processor_compat");
        HostX86Cpu cpu = HostX86.ThisCpu;
        ulong here = ComputeCr4ReservedBits(cpu.CpuData, static (c, feature) => c.Has(feature));
        ulong boot = ComputeCr4ReservedBits(HostX86.BootCpuData, static (c, feature) => c.Has(feature));
        if (here != boot)
            return -EIO;
        return ((IKvmX86InitOps)opaque!).CheckProcessorCompatibility();
    }

    /// <summary>kvm_arch_hardware_enable, on the CPU itself with interrupts off.</summary>
    [KernelFunction("kvm_arch_hardware_enable", File = "arch/x86/kvm/x86.c")]
    public KvmResult HardwareEnable()
    {
        using var _ = FunctionTrace.Enter("kvm_arch_hardware_enable");
        UserReturn.CpuOnline();
        int r = Ops.HardwareEnable();
        if (r != 0)
            return r;
        CompensateBackwardsTsc();
        return 0;
    }

    [KernelFunction("kvm_arch_hardware_disable", File = "arch/x86/kvm/x86.c")]
    public void HardwareDisable()
    {
        using var _ = FunctionTrace.Enter("kvm_arch_hardware_disable");
        ops?.HardwareDisable();
        UserReturn.Drop();
    }

    /// <summary>__cr4_reserved_bits: what a processor without the given features must keep 0.</summary>
    internal static ulong ComputeCr4ReservedBits<T>(T subject, Func<T, X86Feature, bool> has)
    {
        ulong reserved = CR4_RESERVED_BITS;
        if (!has(subject, X86Feature.XSAVE))
            reserved |= X86_CR4_OSXSAVE;
        if (!has(subject, X86Feature.SMEP))
            reserved |= X86_CR4_SMEP;
        if (!has(subject, X86Feature.SMAP))
            reserved |= X86_CR4_SMAP;
        if (!has(subject, X86Feature.FSGSBASE))
            reserved |= X86_CR4_FSGSBASE;
        if (!has(subject, X86Feature.PKU))
            reserved |= X86_CR4_PKE;
        if (!has(subject, X86Feature.LA57))
            reserved |= X86_CR4_LA57;
        if (!has(subject, X86Feature.UMIP))
            reserved |= X86_CR4_UMIP;
        if (!has(subject, X86Feature.VMX))
            reserved |= X86_CR4_VMXE;
        if (!has(subject, X86Feature.PCID))
            reserved |= X86_CR4_PCIDE;
        return reserved;
    }

    /// <summary>kvm_configure_mmu: the vendor tells whether nested paging is used and how deep.</summary>
    [KernelFunction("kvm_configure_mmu", File = "arch/x86/kvm/mmu/mmu.c")]
    public void ConfigureMmu(bool enableTdp, int tdpForcedRootLevel, int tdpMaxRootLevel, int tdpHugePageLevel)
    {
        using var _ = FunctionTrace.Enter("kvm_configure_mmu");
        TdpEnabled = enableTdp;
        TdpRootLevel = tdpForcedRootLevel;
        MaxTdpLevel = tdpMaxRootLevel;
        MaxHugePageLevel = enableTdp ? tdpHugePageLevel : HostX86.BootCpuHas(X86Feature.GBPAGES) ? PG_LEVEL_1G : PG_LEVEL_2M;
    }

    /// <summary>Root level that the vendor forces; 0: chosen by the guest's MAXPHYADDR.</summary>
    public int TdpRootLevel { get; private set; }

    public int MaxTdpLevel { get; private set; }

    public int MaxHugePageLevel { get; private set; } = PG_LEVEL_2M;

    // ---- MSR features and ignored MSRs ----

    [KernelFunction("kvm_get_arch_capabilities", File = "arch/x86/kvm/x86.c")]
    public ulong GetArchCapabilities()
    {
        using var _ = FunctionTrace.Enter("kvm_get_arch_capabilities");
        ulong host = HostX86.BootCpuHas(X86Feature.ARCH_CAPABILITIES) ? HostX86.ThisCpu.Rdmsr(MSR_IA32_ARCH_CAPABILITIES) : 0;
        ulong data = host & KVM_SUPPORTED_ARCH_CAP;
        data |= ARCH_CAP_PSCHANGE_MC_NO;
        if (L1dFlushOnVmenter)
            data |= ARCH_CAP_SKIP_VMENTRY_L1DFLUSH;
        if (!HostX86.BootCpuHasBug(X86Bug.CPU_MELTDOWN))
            data |= ARCH_CAP_RDCL_NO;
        if (!HostX86.BootCpuHasBug(X86Bug.SPEC_STORE_BYPASS))
            data |= ARCH_CAP_SSB_NO;
        if (!HostX86.BootCpuHasBug(X86Bug.MDS))
            data |= ARCH_CAP_MDS_NO;
        if (!HostX86.BootCpuHasBug(X86Bug.RFDS))
            data |= ARCH_CAP_RFDS_NO;
        if (!HostX86.BootCpuHasBug(X86Bug.ITS))
            data |= ARCH_CAP_ITS_NO;
        if (!HostX86.BootCpuHas(X86Feature.RTM))
            data &= ~ARCH_CAP_TAA_NO;
        else if (!HostX86.BootCpuHasBug(X86Bug.TAA))
            data |= ARCH_CAP_TAA_NO;
        if (!HostX86.BootCpuHasBug(X86Bug.GDS) || (host & ARCH_CAP_GDS_CTRL) != 0)
            data |= ARCH_CAP_GDS_NO;
        return data;
    }

    /// <summary>kvm_get_msr_feature: 0 and the value, or KVM_MSR_RET_UNSUPPORTED.</summary>
    public int GetMsrFeature(ref MsrData entry)
    {
        switch (entry.Index)
        {
            case MSR_IA32_ARCH_CAPABILITIES:
                entry.Data = GetArchCapabilities();
                return 0;
            case MSR_IA32_UCODE_REV:
                HostX86.ThisCpu.RdmsrSafe(MSR_IA32_UCODE_REV, out entry.Data);
                return 0;
            default:
                return Ops.GetMsrFeature(ref entry);
        }
    }

    /// <summary>kvm_msr_ignored_check: true when ignore_msrs makes an access to an unknown MSR succeed.</summary>
    internal bool MsrIgnoredCheck(uint msr, ulong data, bool write)
    {
        if (!Params.IgnoreMsrs)
            return false;
        if (Params.ReportIgnoredMsrs)
            Host.Log.Ratelimited(LogLevel.Err, "kvm_msr_ignored_check", $"kvm [{HostTask.Current.Pid}]: ignored {(write ? "wrmsr" : "rdmsr")}: 0x{msr:x} data 0x{data:x}");
        return true;
    }

    /// <summary>vcpu_unimpl for an MSR write that only one value can make.</summary>
    internal void PrUnimplRdmsr(X86Vcpu vcpu, uint index)
    {
        if (Params.ReportIgnoredMsrs)
            Host.Log.Ratelimited(LogLevel.Err, "kvm_pr_unimpl_rdmsr", $"kvm [{HostTask.Current.Pid}]: vcpu{vcpu.VcpuId}, guest rIP: 0x{vcpu.Rip:x} Unhandled RDMSR(0x{index:x})");
    }

    internal void PrUnimplWrmsr(X86Vcpu vcpu, uint index, ulong data)
    {
        if (Params.ReportIgnoredMsrs)
            Host.Log.Ratelimited(LogLevel.Err, "kvm_pr_unimpl_wrmsr", $"kvm [{HostTask.Current.Pid}]: vcpu{vcpu.VcpuId}, guest rIP: 0x{vcpu.Rip:x} Unhandled WRMSR(0x{index:x}) = 0x{data:x}");
    }
}
