using Kvm.Abi;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Arch.X86.Vmx.VmxControls;

namespace Kvm.Arch.X86.Vmx;

/// <summary>Discovery of the VMX capabilities of the processor (setup_vmcs_config) and the questions asked of them (cpu_has_*).</summary>
public sealed unsafe partial class KvmIntel
{
    /// <summary>The controls chosen when the module was loaded; every processor must agree.</summary>
    public VmcsConfiguration VmcsConfig;
    public VmxCapability VmxCapability;

    /// <summary>Entry and exit controls that must come together; SAVE_IA32_PAT and SAVE_IA32_EFER are absent because KVM intercepts those MSRs.</summary>
    private static readonly (uint Entry, uint Exit)[] vmcsEntryExitPairs =
    [
        (VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL, VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL),
        (VM_ENTRY_LOAD_IA32_PAT, VM_EXIT_LOAD_IA32_PAT),
        (VM_ENTRY_LOAD_IA32_EFER, VM_EXIT_LOAD_IA32_EFER),
        (VM_ENTRY_LOAD_BNDCFGS, VM_EXIT_CLEAR_BNDCFGS),
        (VM_ENTRY_LOAD_IA32_RTIT_CTL, VM_EXIT_CLEAR_IA32_RTIT_CTL),
    ];

    /// <summary>Signatures (CPUID.1:EAX without reserved bits) of processors whose VMX-preemption timer is broken.</summary>
    private static readonly uint[] vmxPreemptionCpuTfms =
        [0x000206E6, 0x00020652, 0x00020655, 0x000106E5, 0x000106A0, 0x000106A1, 0x000106A4, 0x000106A5, 0x000306A8];

    /// <summary>Chooses one control field: required plus those optional bits that capability <paramref name="msr"/> allows, plus what it demands. False when a required bit is not allowed.</summary>
    [KernelFunction("adjust_vmx_controls", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool AdjustVmxControls(uint min, uint opt, uint msr, out uint result)
    {
        using var _ = FunctionTrace.Enter("adjust_vmx_controls");
        ulong capability = Rdmsrl(msr);
        uint control = min | opt;
        control &= (uint)(capability >> 32);
        control |= (uint)capability;
        result = control;
        return (min & ~control) == 0;
    }

    [KernelFunction("adjust_vmx_controls64", File = "arch/x86/kvm/vmx/vmx.c")]
    private ulong AdjustVmxControls64(ulong opt, uint msr) => opt & Rdmsrl(msr);

    [KernelFunction("cpu_has_broken_vmx_preemption_timer", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool CpuHasBrokenVmxPreemptionTimer()
    {
        ThisCpu.Cpuid(1, 0, out uint eax, out uint _, out uint _, out uint _);
        return Array.IndexOf(vmxPreemptionCpuTfms, eax & ~(3u << 14 | 0xfu << 28)) >= 0;
    }

    [KernelFunction("cpu_has_sgx", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool CpuHasSgx()
    {
        ThisCpu.Cpuid(0, 0, out uint max, out uint _, out uint _, out uint _);
        if (max < 0x12)
            return false;
        ThisCpu.Cpuid(0x12, 0, out uint eax, out uint _, out uint _, out uint _);
        return (eax & 1) != 0;
    }

    /// <summary>Some processors clear IA32_PERF_GLOBAL_CTRL[34:32] on VM exits that load it; the MSR-load area is used on them.</summary>
    [KernelFunction("cpu_has_perf_global_ctrl_bug", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool CpuHasPerfGlobalCtrlBug() => BootCpuFamily == 6 && BootCpuModel is 0x1a or 0x1e or 0x25 or 0x2c or 0x2e;

    /// <summary>
    /// Reads the capability MSRs of the current processor and fills <paramref name="conf"/> and <paramref name="cap"/>.
    /// -EIO when a required control is missing, when EPT/VPID capabilities or entry/exit pairs contradict the controls, or when the VMCS has a size, width or memory type KVM can't use.
    /// </summary>
    [KernelFunction("setup_vmcs_config", File = "arch/x86/kvm/vmx/vmx.c")]
    private int SetupVmcsConfig(out VmcsConfiguration conf, out VmxCapability cap)
    {
        using var _ = FunctionTrace.Enter("setup_vmcs_config");
        const int eio = -(int)Errno.EIO;
        conf = default;
        cap = default;

        if (!AdjustVmxControls(KVM_REQUIRED_VMX_CPU_BASED_VM_EXEC_CONTROL, KVM_OPTIONAL_VMX_CPU_BASED_VM_EXEC_CONTROL, Msr.IA32_VMX_PROCBASED_CTLS, out uint cpuBased))
            return eio;
        uint secondary = 0;
        if ((cpuBased & CPU_BASED_ACTIVATE_SECONDARY_CONTROLS) != 0 &&
            !AdjustVmxControls(KVM_REQUIRED_VMX_SECONDARY_VM_EXEC_CONTROL, KVM_OPTIONAL_VMX_SECONDARY_VM_EXEC_CONTROL, Msr.IA32_VMX_PROCBASED_CTLS2, out secondary))
            return eio;
        if ((cpuBased & CPU_BASED_TPR_SHADOW) == 0)
            secondary &= ~(SECONDARY_EXEC_APIC_REGISTER_VIRT | SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE | SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY);

        if (!ReadEptVpidCapability(secondary, ref cap))
            return eio;
        if (!CpuHasSgx())
            secondary &= ~SECONDARY_EXEC_ENCLS_EXITING;
        ulong tertiary = 0;
        if ((cpuBased & CPU_BASED_ACTIVATE_TERTIARY_CONTROLS) != 0)
            tertiary = AdjustVmxControls64(KVM_OPTIONAL_VMX_TERTIARY_VM_EXEC_CONTROL, Msr.IA32_VMX_PROCBASED_CTLS3);

        if (!AdjustVmxControls(KVM_REQUIRED_VMX_VM_EXIT_CONTROLS, KVM_OPTIONAL_VMX_VM_EXIT_CONTROLS, Msr.IA32_VMX_EXIT_CTLS, out uint vmexit))
            return eio;
        if (!AdjustVmxControls(KVM_REQUIRED_VMX_PIN_BASED_VM_EXEC_CONTROL, KVM_OPTIONAL_VMX_PIN_BASED_VM_EXEC_CONTROL, Msr.IA32_VMX_PINBASED_CTLS, out uint pinBased))
            return eio;
        if (CpuHasBrokenVmxPreemptionTimer())
            pinBased &= ~PIN_BASED_VMX_PREEMPTION_TIMER;
        if ((secondary & SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY) == 0)
            pinBased &= ~PIN_BASED_POSTED_INTR;
        if (!AdjustVmxControls(KVM_REQUIRED_VMX_VM_ENTRY_CONTROLS, KVM_OPTIONAL_VMX_VM_ENTRY_CONTROLS, Msr.IA32_VMX_ENTRY_CTLS, out uint vmentry))
            return eio;
        if (!CheckEntryExitPairs(ref vmentry, ref vmexit))
            return eio;

        ulong basic = Rdmsrl(Msr.IA32_VMX_BASIC);
        uint basicHigh = (uint)(basic >> 32);
        if ((basicHigh & 0x1fff) > 4096)
            return eio;
        if ((basicHigh & 1u << 16) != 0)
            return eio;
        if ((basicHigh >> 18 & 15) != 6)
            return eio;
        ulong misc = Rdmsrl(Msr.IA32_VMX_MISC);

        conf.Size = (int)(basicHigh & 0x1fff);
        conf.BasicCap = basicHigh & ~0x1fffu;
        conf.RevisionId = (uint)basic;
        conf.PinBasedExecCtrl = pinBased;
        conf.CpuBasedExecCtrl = cpuBased;
        conf.CpuBased2ndExecCtrl = secondary;
        conf.CpuBased3rdExecCtrl = tertiary;
        conf.VmexitCtrl = vmexit;
        conf.VmentryCtrl = vmentry;
        conf.Misc = misc;
        return 0;
    }

    private bool ReadEptVpidCapability(uint secondary, ref VmxCapability cap)
    {
        if (RdmsrlSafe(Msr.IA32_VMX_EPT_VPID_CAP, out ulong value))
        {
            cap.Ept = (uint)value;
            cap.Vpid = (uint)(value >> 32);
        }
        if ((secondary & SECONDARY_EXEC_ENABLE_EPT) == 0 && cap.Ept != 0)
        {
            PrWarnOnce("EPT CAP should not exist if not support 1-setting enable EPT VM-execution control");
            if (ErrorOnInconsistentVmcsConfig)
                return false;
            cap.Ept = 0;
        }
        if ((secondary & SECONDARY_EXEC_ENABLE_VPID) == 0 && cap.Vpid != 0)
        {
            PrWarnOnce("VPID CAP should not exist if not support 1-setting enable VPID VM-execution control");
            if (ErrorOnInconsistentVmcsConfig)
                return false;
            cap.Vpid = 0;
        }
        return true;
    }

    private bool CheckEntryExitPairs(ref uint vmentry, ref uint vmexit)
    {
        foreach ((uint entry, uint exit) in vmcsEntryExitPairs)
        {
            if ((vmentry & entry) == 0 == ((vmexit & exit) == 0))
                continue;
            PrWarnOnce($"Inconsistent VM-Entry/VM-Exit pair, entry = {vmentry & entry:x}, exit = {vmexit & exit:x}");
            if (ErrorOnInconsistentVmcsConfig)
                return false;
            vmentry &= ~entry;
            vmexit &= ~exit;
        }
        return true;
    }

    private bool Has(uint secondary) => (VmcsConfig.CpuBased2ndExecCtrl & secondary) != 0;

    internal bool CpuHasVirtualNmis => (VmcsConfig.PinBasedExecCtrl & PIN_BASED_VIRTUAL_NMIS) != 0 && (VmcsConfig.CpuBasedExecCtrl & CPU_BASED_NMI_WINDOW_EXITING) != 0;
    internal bool CpuHasVmxPreemptionTimer => (VmcsConfig.PinBasedExecCtrl & PIN_BASED_VMX_PREEMPTION_TIMER) != 0;
    internal bool CpuHasVmxPostedIntr => (VmcsConfig.PinBasedExecCtrl & PIN_BASED_POSTED_INTR) != 0;
    internal bool CpuHasLoadIa32Efer => (VmcsConfig.VmentryCtrl & VM_ENTRY_LOAD_IA32_EFER) != 0;
    internal bool CpuHasLoadPerfGlobalCtrl => (VmcsConfig.VmentryCtrl & VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL) != 0;
    internal bool CpuHasVmxMpx => (VmcsConfig.VmentryCtrl & VM_ENTRY_LOAD_BNDCFGS) != 0;
    internal bool CpuHasVmxTprShadow => (VmcsConfig.CpuBasedExecCtrl & CPU_BASED_TPR_SHADOW) != 0;
    internal bool CpuHasVmxMsrBitmap => (VmcsConfig.CpuBasedExecCtrl & CPU_BASED_USE_MSR_BITMAPS) != 0;
    internal bool CpuHasSecondaryExecCtrls => (VmcsConfig.CpuBasedExecCtrl & CPU_BASED_ACTIVATE_SECONDARY_CONTROLS) != 0;
    internal bool CpuHasTertiaryExecCtrls => (VmcsConfig.CpuBasedExecCtrl & CPU_BASED_ACTIVATE_TERTIARY_CONTROLS) != 0;
    internal bool CpuHasVmxVirtualizeApicAccesses => Has(SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES);
    internal bool CpuHasVmxEpt => Has(SECONDARY_EXEC_ENABLE_EPT);
    internal bool VmxUmipEmulated => Has(SECONDARY_EXEC_DESC);
    internal bool CpuHasVmxRdtscp => Has(SECONDARY_EXEC_ENABLE_RDTSCP);
    internal bool CpuHasVmxVirtualizeX2apicMode => Has(SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE);
    internal bool CpuHasVmxVpid => Has(SECONDARY_EXEC_ENABLE_VPID);
    internal bool CpuHasVmxWbinvdExit => Has(SECONDARY_EXEC_WBINVD_EXITING);
    internal bool CpuHasVmxUnrestrictedGuest => Has(SECONDARY_EXEC_UNRESTRICTED_GUEST);
    internal bool CpuHasVmxApicRegisterVirt => Has(SECONDARY_EXEC_APIC_REGISTER_VIRT);
    internal bool CpuHasVmxVirtualIntrDelivery => Has(SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY);
    internal bool CpuHasVmxPle => Has(SECONDARY_EXEC_PAUSE_LOOP_EXITING);
    internal bool CpuHasVmxRdrand => Has(SECONDARY_EXEC_RDRAND_EXITING);
    internal bool CpuHasVmxInvpcid => Has(SECONDARY_EXEC_ENABLE_INVPCID);
    internal bool CpuHasVmxVmfunc => Has(SECONDARY_EXEC_ENABLE_VMFUNC);
    internal bool CpuHasVmxShadowVmcs => (VmcsConfig.Misc & MSR_IA32_VMX_MISC_VMWRITE_SHADOW_RO_FIELDS) != 0 && Has(SECONDARY_EXEC_SHADOW_VMCS);
    internal bool CpuHasVmxEnclsVmexit => Has(SECONDARY_EXEC_ENCLS_EXITING);
    internal bool CpuHasVmxRdseed => Has(SECONDARY_EXEC_RDSEED_EXITING);
    internal bool CpuHasVmxPml => Has(SECONDARY_EXEC_ENABLE_PML);
    internal bool CpuHasVmxXsaves => Has(SECONDARY_EXEC_XSAVES);
    internal bool CpuHasVmxWaitpkg => Has(SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE);
    internal bool CpuHasVmxTscScaling => Has(SECONDARY_EXEC_TSC_SCALING);
    internal bool CpuHasVmxBusLockDetection => Has(SECONDARY_EXEC_BUS_LOCK_DETECTION);
    internal bool CpuHasNotifyVmexit => Has(SECONDARY_EXEC_NOTIFY_VM_EXITING);
    internal bool CpuHasVmxApicv => CpuHasVmxApicRegisterVirt && CpuHasVmxVirtualIntrDelivery && CpuHasVmxPostedIntr;
    internal bool CpuHasVmxIpiv => (VmcsConfig.CpuBased3rdExecCtrl & TERTIARY_EXEC_IPI_VIRT) != 0;
    internal bool CpuHasVmxFlexpriority => CpuHasVmxTprShadow && CpuHasVmxVirtualizeApicAccesses;
    internal bool CpuHasVmxEptExecuteOnly => (VmxCapability.Ept & VMX_EPT_EXECUTE_ONLY_BIT) != 0;
    internal bool CpuHasVmxEpt4Levels => (VmxCapability.Ept & VMX_EPT_PAGE_WALK_4_BIT) != 0;
    internal bool CpuHasVmxEpt5Levels => (VmxCapability.Ept & VMX_EPT_PAGE_WALK_5_BIT) != 0;
    internal bool CpuHasVmxEptMtWb => (VmxCapability.Ept & VMX_EPTP_WB_BIT) != 0;
    internal bool CpuHasVmxEpt2mPage => (VmxCapability.Ept & VMX_EPT_2MB_PAGE_BIT) != 0;
    internal bool CpuHasVmxEpt1gPage => (VmxCapability.Ept & VMX_EPT_1GB_PAGE_BIT) != 0;
    internal bool CpuHasVmxEptAdBits => (VmxCapability.Ept & VMX_EPT_AD_BIT) != 0;
    internal bool CpuHasVmxInveptContext => (VmxCapability.Ept & VMX_EPT_EXTENT_CONTEXT_BIT) != 0;
    internal bool CpuHasVmxInveptGlobal => (VmxCapability.Ept & VMX_EPT_EXTENT_GLOBAL_BIT) != 0;
    internal bool CpuHasVmxInvvpid => (VmxCapability.Vpid & VMX_VPID_INVVPID_BIT) != 0;
    internal bool CpuHasVmxInvvpidIndividualAddr => (VmxCapability.Vpid & VMX_VPID_EXTENT_INDIVIDUAL_ADDR_BIT) != 0;
    internal bool CpuHasVmxInvvpidSingle => (VmxCapability.Vpid & VMX_VPID_EXTENT_SINGLE_CONTEXT_BIT) != 0;
    internal bool CpuHasVmxInvvpidGlobal => (VmxCapability.Vpid & VMX_VPID_EXTENT_GLOBAL_CONTEXT_BIT) != 0;
    internal bool CpuHasVmxBasicInout => ((ulong)VmcsConfig.BasicCap << 32 & 1ul << 54) != 0;

    /// <summary>The largest page EPT can map: 1 = 4 KiB, 2 = 2 MiB, 3 = 1 GiB (PG_LEVEL_*).</summary>
    internal int EptCapsToLpageLevel => CpuHasVmxEpt1gPage ? 3 : CpuHasVmxEpt2mPage ? 2 : 1;
}
