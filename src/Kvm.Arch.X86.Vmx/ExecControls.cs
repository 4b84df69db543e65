using Kvm.Core.Tracing;
using static Kvm.Arch.X86.Vmx.VmxControls;

namespace Kvm.Arch.X86.Vmx;

/// <summary>What goes into the execution, entry and exit controls of a vCPU's VMCS.</summary>
public sealed unsafe partial class KvmIntel
{
    [KernelFunction("vmx_pin_based_exec_ctrl", File = "arch/x86/kvm/vmx/vmx.c")]
    private uint PinBasedExecCtrl(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("vmx_pin_based_exec_ctrl");
        uint control = VmcsConfig.PinBasedExecCtrl;
        if (!vmx.ApicvActive)
            control &= ~PIN_BASED_POSTED_INTR;
        if (!EnableVnmi)
            control &= ~PIN_BASED_VIRTUAL_NMIS;
        if (!EnablePreemptionTimer)
            control &= ~PIN_BASED_VMX_PREEMPTION_TIMER;
        return control;
    }

    /// <summary>IA-32e mode and the loading of EFER and PERF_GLOBAL_CTRL are toggled later, as the guest needs them.</summary>
    [KernelFunction("vmx_vmentry_ctrl", File = "arch/x86/kvm/vmx/vmx.c")]
    private uint VmentryCtrl() => VmcsConfig.VmentryCtrl &
        ~(VM_ENTRY_PT_CONCEAL_PIP | VM_ENTRY_LOAD_IA32_RTIT_CTL | VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL | VM_ENTRY_LOAD_IA32_EFER | VM_ENTRY_IA32E_MODE);

    [KernelFunction("vmx_vmexit_ctrl", File = "arch/x86/kvm/vmx/vmx.c")]
    private uint VmexitCtrl() => VmcsConfig.VmexitCtrl &
        ~(VM_EXIT_SAVE_IA32_PAT | VM_EXIT_SAVE_IA32_EFER | VM_EXIT_SAVE_VMX_PREEMPTION_TIMER | VM_EXIT_PT_CONCEAL_PIP | VM_EXIT_CLEAR_IA32_RTIT_CTL |
          VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL | VM_EXIT_LOAD_IA32_EFER);

    [KernelFunction("vmx_exec_control", File = "arch/x86/kvm/vmx/vmx.c")]
    private uint ExecControl(VcpuVmx vmx)
    {
        uint control = VmcsConfig.CpuBasedExecCtrl;
        control &= ~(CPU_BASED_RDTSC_EXITING | CPU_BASED_USE_IO_BITMAPS | CPU_BASED_MONITOR_TRAP_FLAG | CPU_BASED_PAUSE_EXITING);
        control &= ~(CPU_BASED_INTR_WINDOW_EXITING | CPU_BASED_NMI_WINDOW_EXITING);
        if ((vmx.SwitchDbRegs & KVM_DEBUGREG_WONT_EXIT) != 0)
            control &= ~CPU_BASED_MOV_DR_EXITING;
        if (!CpuNeedTprShadow(vmx))
            control &= ~CPU_BASED_TPR_SHADOW;
        if ((control & CPU_BASED_TPR_SHADOW) != 0)
            control &= ~(CPU_BASED_CR8_LOAD_EXITING | CPU_BASED_CR8_STORE_EXITING);
        else
            control |= CPU_BASED_CR8_STORE_EXITING | CPU_BASED_CR8_LOAD_EXITING;
        if (EnableEpt)
            control &= ~(CPU_BASED_CR3_LOAD_EXITING | CPU_BASED_CR3_STORE_EXITING | CPU_BASED_INVLPG_EXITING);
        if (vmx.Vm.MwaitInGuest)
            control &= ~(CPU_BASED_MWAIT_EXITING | CPU_BASED_MONITOR_EXITING);
        if (vmx.Vm.HltInGuest)
            control &= ~CPU_BASED_HLT_EXITING;
        return control;
    }

    [KernelFunction("vmx_tertiary_exec_control", File = "arch/x86/kvm/vmx/vmx.c")]
    private ulong TertiaryExecControl(VcpuVmx vmx)
    {
        ulong control = VmcsConfig.CpuBased3rdExecCtrl;
        if (!EnableIpiv || !vmx.ApicvActive)
            control &= ~TERTIARY_EXEC_IPI_VIRT;
        return control;
    }

    /// <summary>
    /// Clears a control of an opt-in feature that the guest's CPUID lacks, or an exiting control of a feature it has, so that the guest sees the right faults.
    /// </summary>
    [KernelFunction("vmx_adjust_secondary_exec_control", File = "arch/x86/kvm/vmx/vmx.c")]
    private void AdjustSecondaryExecControl(VcpuVmx vmx, ref uint control, uint bit, bool enabled, bool exiting)
    {
        if (enabled == exiting)
            control &= ~bit;
        if (!Nested)
            return;
        if (enabled)
            vmx.NestedMsrs.SecondaryCtlsHigh |= bit;
        else
            vmx.NestedMsrs.SecondaryCtlsHigh &= ~bit;
    }

    [KernelFunction("vmx_secondary_exec_control", File = "arch/x86/kvm/vmx/vmx.c")]
    private uint SecondaryExecControl(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("vmx_secondary_exec_control");
        X86Vm kvm = vmx.Vm;
        uint control = VmcsConfig.CpuBased2ndExecCtrl;
        control &= ~(SECONDARY_EXEC_PT_USE_GPA | SECONDARY_EXEC_PT_CONCEAL_VMX);
        if (!CpuNeedVirtualizeApicAccesses(vmx))
            control &= ~SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES;
        if (vmx.Vpid == 0)
            control &= ~SECONDARY_EXEC_ENABLE_VPID;
        if (!EnableEpt)
            control &= ~SECONDARY_EXEC_ENABLE_EPT;
        if (!EnableUnrestrictedGuest)
            control &= ~SECONDARY_EXEC_UNRESTRICTED_GUEST;
        if (kvm.PauseInGuest)
            control &= ~SECONDARY_EXEC_PAUSE_LOOP_EXITING;
        if (!vmx.ApicvActive)
            control &= ~(SECONDARY_EXEC_APIC_REGISTER_VIRT | SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY);
        control &= ~SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE;
        // Follows CR4.UMIP, see vmx_set_cr4.
        control &= ~SECONDARY_EXEC_DESC;
        // Enabled by a guest's VMPTRLD.
        control &= ~SECONDARY_EXEC_SHADOW_VMCS;
        if (kvm.CpuDirtyLoggingCount == 0)
            control &= ~SECONDARY_EXEC_ENABLE_PML;

        if (CpuHasVmxXsaves)
        {
            bool enabled = BootCpuHas(X86Feature.XSAVE) && vmx.GuestCpuidHas(X86Feature.XSAVE) && vmx.GuestCpuidHas(X86Feature.XSAVES);
            vmx.XsavesEnabled = enabled;
            AdjustSecondaryExecControl(vmx, ref control, SECONDARY_EXEC_XSAVES, enabled, exiting: false);
        }
        // RDPID hangs on the same control: either feature turns it on.
        if (CpuHasVmxRdtscp)
        {
            bool enabled = vmx.GuestCpuidHas(X86Feature.RDTSCP) || vmx.GuestCpuidHas(X86Feature.RDPID);
            AdjustSecondaryExecControl(vmx, ref control, SECONDARY_EXEC_ENABLE_RDTSCP, enabled, exiting: false);
        }
        if (CpuHasVmxInvpcid)
            AdjustSecondaryExecControl(vmx, ref control, SECONDARY_EXEC_ENABLE_INVPCID, vmx.GuestCpuidHas(X86Feature.INVPCID), exiting: false);
        if (CpuHasVmxRdrand)
            AdjustSecondaryExecControl(vmx, ref control, SECONDARY_EXEC_RDRAND_EXITING, vmx.GuestCpuidHas(X86Feature.RDRAND), exiting: true);
        if (CpuHasVmxRdseed)
            AdjustSecondaryExecControl(vmx, ref control, SECONDARY_EXEC_RDSEED_EXITING, vmx.GuestCpuidHas(X86Feature.RDSEED), exiting: true);
        if (CpuHasVmxWaitpkg)
            AdjustSecondaryExecControl(vmx, ref control, SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE, vmx.GuestCpuidHas(X86Feature.WAITPKG), exiting: false);
        if (!kvm.BusLockDetectionEnabled)
            control &= ~SECONDARY_EXEC_BUS_LOCK_DETECTION;
        if (!NotifyVmexitEnabled(kvm))
            control &= ~SECONDARY_EXEC_NOTIFY_VM_EXITING;
        return control;
    }

    /// <summary>kvm_notify_vmexit_enabled.</summary>
    private static bool NotifyVmexitEnabled(X86Vm kvm) => (kvm.NotifyVmexitFlags & Abi.Uapi.KVM_X86_NOTIFY_VMEXIT_ENABLED) != 0;

    /// <summary>Writes the secondary controls anew after a CPUID change, except the bits that follow other events.</summary>
    [KernelFunction("vmcs_set_secondary_exec_control", File = "arch/x86/kvm/vmx/vmx.c")]
    private static void SetSecondaryExecControl(VcpuVmx vmx, uint value)
    {
        const uint dynamic = SECONDARY_EXEC_SHADOW_VMCS | SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE | SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES | SECONDARY_EXEC_DESC;
        vmx.SecondaryExecControlsSet((value & ~dynamic) | (vmx.SecondaryExecControlsGet() & dynamic));
    }
}
