using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Arch.X86.Vmx.VmxControls;

namespace Kvm.Arch.X86.Vmx;

/// <summary>What happens once per load of the module: the host is examined, features are settled, per-CPU pages allocated.</summary>
public sealed unsafe partial class KvmIntel
{
    /// <summary>MSRs that keep guest values in the kernel and are restored at the return to userspace; CSTAR is never loaded, only emulated.</summary>
    private static readonly uint[] uretMsrsList = [MSR_SYSCALL_MASK, MSR_LSTAR, MSR_CSTAR, MSR_EFER, MSR_TSC_AUX, MSR_STAR, MSR_IA32_TSX_CTRL];

    /// <summary>CPUID.1:ECX.VMX of this processor.</summary>
    [KernelFunction("cpu_has_kvm_support", File = "arch/x86/kvm/vmx/vmx.c")]
    public bool CpuHasKvmSupport()
    {
        using var _ = FunctionTrace.Enter("cpu_has_kvm_support");
        ThisCpu.Cpuid(1, 0, out uint _, out uint _, out uint ecx, out uint _);
        return (ecx & 1 << 5) != 0;
    }

    /// <summary>The kernel cleared the VMX feature at boot because IA32_FEATURE_CONTROL does not allow VMXON (on any one CPU), or the MSR is missing.</summary>
    [KernelFunction("vmx_disabled_by_bios", File = "arch/x86/kvm/vmx/vmx.c")]
    public bool DisabledByBios()
    {
        using var _ = FunctionTrace.Enter("vmx_disabled_by_bios");
        return !BootCpuHas(X86Feature.MSR_IA32_FEAT_CTL) || !BootCpuHas(X86Feature.VMX);
    }

    /// <summary>Runs on each online CPU: -EIO when VMX is disabled there or its capabilities differ from those the module was set up with.</summary>
    [KernelFunction("vmx_check_processor_compat", File = "arch/x86/kvm/vmx/vmx.c")]
    public int CheckProcessorCompatibility()
    {
        using var _ = FunctionTrace.Enter("vmx_check_processor_compat");
        if (!ThisCpuHas(X86Feature.MSR_IA32_FEAT_CTL) || !ThisCpuHas(X86Feature.VMX))
        {
            PrErr($"kvm: VMX is disabled on CPU {SmpProcessorId}");
            return eio;
        }
        if (SetupVmcsConfig(out VmcsConfiguration conf, out VmxCapability cap) < 0)
            return eio;
        if (Nested)
            NestedSetupCtlsMsrs(ref conf, cap.Ept);
        if (conf != VmcsConfig)
        {
            PrErr($"kvm: CPU {SmpProcessorId} feature inconsistency!");
            return eio;
        }
        return 0;
    }

    [KernelFunction("vmx_setup_user_return_msrs", File = "arch/x86/kvm/vmx/vmx.c")]
    private void SetupUserReturnMsrs()
    {
        foreach (uint msr in uretMsrsList)
            arch.UserReturn.Add(msr);
    }

    [KernelFunction("hardware_setup", File = "arch/x86/kvm/vmx/vmx.c")]
    public int HardwareSetup()
    {
        using var _ = FunctionTrace.Enter("hardware_setup");
        hostIdtBase = arch.HostX86.ThisCpu.IdtAddress;
        SetupUserReturnMsrs();
        if (SetupVmcsConfig(out VmcsConfig, out VmxCapability) < 0)
            return eio;
        if (CpuHasPerfGlobalCtrlBug())
            PrWarnOnce("kvm: VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL does not work properly. Using workaround");
        if (BootCpuHas(X86Feature.NX))
            arch.EnableEferBits(Efer.NXE);
        if (BootCpuHas(X86Feature.MPX) && Rdmsrl(MSR_IA32_BNDCFGS) != 0)
            WarnOnce("hardware_setup mpx", "KVM: BNDCFGS in host will be lost");
        if (!CpuHasVmxMpx)
            arch.KvmCaps.SupportedXcr0 &= ~(3ul << 3);

        int r = SettleTranslation();
        if (r != 0)
            return r;
        SettleInterrupts();
        SettleTime();
        lock (vpidLock)
            vpidBitmap[0] |= 1; // 0 is the host's
        if (EnableEpt)
            arch.Spte.SetEptMasks(EnableEptAdBits, CpuHasVmxEptExecuteOnly);
        arch.Spte.SetMeSpteMask(0, 0);
        arch.ConfigureMmu(EnableEpt, 0, GetMaxTdpLevel(), EptCapsToLpageLevel);
        // The log depends on accessed and dirty bits of EPT entries.
        if (!EnableEpt || !EnableEptAdBits || !CpuHasVmxPml)
            EnablePml = false;
        SettlePreemptionTimer();
        arch.KvmCaps.SupportedMceCap |= MCG_LMCE_P | MCG_CMCI_P;
        SetupDefaultSgxLepubkeyhash();
        if (Nested)
        {
            NestedSetupCtlsMsrs(ref VmcsConfig, VmxCapability.Ept);
            r = NestedHardwareSetup();
            if (r != 0)
                return r;
        }
        SetCpuCaps();
        r = AllocKvmArea();
        if (r != 0 && Nested)
            NestedHardwareUnsetup();
        return r;
    }

    /// <summary>VPID, EPT and what hangs on EPT. -EOPNOTSUPP when neither EPT nor NX is there.</summary>
    private int SettleTranslation()
    {
        if (!CpuHasVmxVpid || !CpuHasVmxInvvpid || !(CpuHasVmxInvvpidSingle || CpuHasVmxInvvpidGlobal))
            EnableVpid = false;
        if (!CpuHasVmxEpt || !CpuHasVmxEpt4Levels || !CpuHasVmxEptMtWb || !CpuHasVmxInveptGlobal)
            EnableEpt = false;
        if (!EnableEpt && !BootCpuHas(X86Feature.NX))
        {
            PrErr("kvm: NX (Execute Disable) not supported");
            return -(int)Errno.EOPNOTSUPP;
        }
        if (!CpuHasVmxEptAdBits || !EnableEpt)
            EnableEptAdBits = false;
        if (!CpuHasVmxUnrestrictedGuest || !EnableEpt)
            EnableUnrestrictedGuest = false;
        return 0;
    }

    private void SettleInterrupts()
    {
        if (!CpuHasVmxFlexpriority)
            FlexpriorityEnabled = false;
        if (!CpuHasVirtualNmis)
            EnableVnmi = false;
        if (!CpuHasVmxEnclsVmexit)
            enableSgx = false;
        if (!CpuHasVmxPle)
            PleGap = PleWindow = PleWindowGrow = PleWindowMax = PleWindowShrink = 0;
        if (!CpuHasVmxApicv)
            EnableApicv = false;
        if (!EnableApicv || !CpuHasVmxIpiv)
            EnableIpiv = false;
    }

    private void SettleTime()
    {
        if (CpuHasVmxTscScaling)
            arch.KvmCaps.HasTscControl = true;
        arch.KvmCaps.MaxTscScalingRatio = KVM_VMX_TSC_MULTIPLIER_MAX;
        arch.KvmCaps.TscScalingRatioFracBits = 48;
        arch.KvmCaps.HasBusLockExit = CpuHasVmxBusLockDetection;
        arch.KvmCaps.HasNotifyVmexit = CpuHasNotifyVmexit;
    }

    /// <summary>The timer is "off" at its maximum value: not used when that would still cause an exit every ten seconds.</summary>
    private void SettlePreemptionTimer()
    {
        if (!CpuHasVmxPreemptionTimer)
            EnablePreemptionTimer = false;
        if (!EnablePreemptionTimer)
            return;
        cpuPreemptionTimerMulti = (int)(VmcsConfig.Misc & VMX_MISC_PREEMPTION_TIMER_RATE_MASK);
        ulong frequency = TscKhz != 0 ? TscKhz * 1000 : 5_000_000_000;
        frequency >>= cpuPreemptionTimerMulti;
        if (frequency > uint.MaxValue / 10)
            EnablePreemptionTimer = false;
    }

    /// <summary>A VMXON region for every possible CPU.</summary>
    [KernelFunction("alloc_kvm_area", File = "arch/x86/kvm/vmx/vmx.c")]
    private int AllocKvmArea()
    {
        vmxarea = new ulong[Host.Cpus.Count];
        for (int cpu = 0; cpu < vmxarea.Length; cpu++)
        {
            vmxarea[cpu] = AllocVmcsCpu(shadow: false);
            if (vmxarea[cpu] != 0)
                continue;
            FreeKvmArea();
            return enomem;
        }
        return 0;
    }

    [KernelFunction("free_kvm_area", File = "arch/x86/kvm/vmx/vmx.c")]
    private void FreeKvmArea()
    {
        using var _ = FunctionTrace.Enter("free_kvm_area");
        foreach (ref ulong area in vmxarea.AsSpan())
        {
            if (area != 0)
                FreeVmcs(area);
            area = 0;
        }
    }

    [KernelFunction("vmx_hardware_unsetup", File = "arch/x86/kvm/vmx/vmx.c")]
    public void HardwareUnsetup()
    {
        using var _ = FunctionTrace.Enter("vmx_hardware_unsetup");
        if (Nested)
            NestedHardwareUnsetup();
        FreeKvmArea();
    }

    /// <summary>CPUID bits kvm_intel adds to or takes from what KVM supports, by the controls the processor has.</summary>
    [KernelFunction("vmx_set_cpu_caps", File = "arch/x86/kvm/vmx/vmx.c")]
    private void SetCpuCaps()
    {
        arch.SetCpuCaps();
        if (Nested)
            arch.CpuCapSet(X86Feature.VMX);
        if (KvmMpxSupported)
            arch.CpuCapCheckAndSet(X86Feature.MPX);
        if (!CpuHasVmxInvpcid)
            arch.CpuCapClear(X86Feature.INVPCID);
        if (!arch.Params.EnablePmu)
            arch.CpuCapClear(X86Feature.PDCM);
        // vmx_get_perf_capabilities: LBRs and PEBS are not there to be offered.
        arch.KvmCaps.SupportedPerfCap = arch.Params.EnablePmu ? PMU_CAP_FW_WRITES : 0;
        // SGX is not virtualized.
        arch.CpuCapClear(X86Feature.SGX);
        arch.CpuCapClear(X86Feature.SGX_LC);
        arch.CpuCapClear(X86Feature.SGX1);
        arch.CpuCapClear(X86Feature.SGX2);
        if (VmxUmipEmulated)
            arch.CpuCapSet(X86Feature.UMIP);
        arch.KvmCaps.SupportedXss = 0;
        if (!CpuHasVmxXsaves)
            arch.CpuCapClear(X86Feature.XSAVES);
        if (!CpuHasVmxRdtscp)
        {
            arch.CpuCapClear(X86Feature.RDTSCP);
            arch.CpuCapClear(X86Feature.RDPID);
        }
        if (CpuHasVmxWaitpkg)
            arch.CpuCapCheckAndSet(X86Feature.WAITPKG);
    }

    /// <summary>Controls, MSR switching and intercepts that follow the guest's CPUID.</summary>
    [KernelFunction("vmx_vcpu_after_set_cpuid", File = "arch/x86/kvm/vmx/vmx.c")]
    public void VcpuAfterSetCpuid(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_vcpu_after_set_cpuid");
        VcpuVmx vmx = ToVmx(vcpu);
        vmx.XsavesEnabled = false; // decided again with the secondary controls
        SetupUretMsrs(vmx);
        if (CpuHasSecondaryExecCtrls)
            SetSecondaryExecControl(vmx, SecondaryExecControl(vmx));
        bool nested = NestedVmxAllowed(vmx);
        SetFeatureControlValidBits(vmx, FEAT_CTL_VMX_ENABLED_INSIDE_SMX | FEAT_CTL_VMX_ENABLED_OUTSIDE_SMX, nested);
        if (nested)
            NestedCrFixed1BitsUpdate(vmx);
        if (BootCpuHas(X86Feature.RTM))
        {
            int slot = FindUretMsr(MSR_IA32_TSX_CTRL);
            if (slot >= 0)
                SetGuestUretMsr(vmx, slot, vmx.GuestCpuidHas(X86Feature.RTM) ? 0 : tsxCtrlRtmDisable);
        }
        if (arch.CpuCapHas(X86Feature.XFD))
            SetInterceptForMsr(vmx, MSR_IA32_XFD_ERR, MSR_TYPE_R, !vmx.GuestCpuidHas(X86Feature.XFD));
        SetCr4GuestHostMask(vmx);
        WriteEnclsBitmap(vmx);
        SetFeatureControlValidBits(vmx, FEAT_CTL_SGX_ENABLED, vmx.GuestCpuidHas(X86Feature.SGX));
        SetFeatureControlValidBits(vmx, FEAT_CTL_SGX_LC_ENABLED, vmx.GuestCpuidHas(X86Feature.SGX_LC));
        // The guest's MAXPHYADDR may have changed.
        UpdateExceptionBitmap(vcpu);
    }

    private static void SetFeatureControlValidBits(VcpuVmx vmx, ulong bits, bool valid) =>
        vmx.MsrIa32FeatureControlValidBits = valid ? vmx.MsrIa32FeatureControlValidBits | bits : vmx.MsrIa32FeatureControlValidBits & ~bits;

    [KernelFunction("vmx_setup_mce", File = "arch/x86/kvm/vmx/vmx.c")]
    public void SetupMce(X86Vcpu vcpu) => SetFeatureControlValidBits(ToVmx(vcpu), FEAT_CTL_LMCE_ENABLED, (vcpu.McgCap & MCG_LMCE_P) != 0);

    /// <summary>A VM's own defaults: without pause-loop exiting PAUSE never exits. Warns once when L1TF is present and unmitigated.</summary>
    [KernelFunction("vmx_vm_init", File = "arch/x86/kvm/vmx/vmx.c")]
    public int VmInit(X86Vm kvm)
    {
        using var _ = FunctionTrace.Enter("vmx_vm_init");
        if (PleGap == 0)
            kvm.PauseInGuest = true;
        WarnAboutL1tf();
        return 0;
    }

    [KernelFunction("vmx_vm_destroy", File = "arch/x86/kvm/vmx/vmx.c")]
    public void VmDestroy(X86Vm kvm)
    {
        using var _ = FunctionTrace.Enter("vmx_vm_destroy");
        KvmVmx kvmVmx = ToKvmVmx(kvm);
        if (kvmVmx.PidTable != 0)
            FreePage(kvmVmx.PidTable);
        kvmVmx.PidTable = 0;
    }

    /// <summary>-ENOMEM when IPI virtualization needs a table of posted-interrupt descriptors and there is no memory.</summary>
    [KernelFunction("vmx_vcpu_precreate", File = "arch/x86/kvm/vmx/vmx.c")]
    public int VcpuPrecreate(X86Vm kvm)
    {
        using var _ = FunctionTrace.Enter("vmx_vcpu_precreate");
        return AllocIpivPidTable(kvm);
    }
}
