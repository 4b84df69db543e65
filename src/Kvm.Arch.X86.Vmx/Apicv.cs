using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.Vmx.VmxControls;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx;

/// <summary>Virtual APIC features: TPR shadow, APIC access page, posted interrupts. All of them need an in-kernel local APIC.</summary>
public sealed unsafe partial class KvmIntel
{
    [KernelFunction("cpu_need_tpr_shadow", File = "arch/x86/kvm/vmx/capabilities.h")]
    private bool CpuNeedTprShadow(VcpuVmx vmx) => CpuHasVmxTprShadow && vmx.LapicInKernel;

    [KernelFunction("cpu_need_virtualize_apic_accesses", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool CpuNeedVirtualizeApicAccesses(X86Vcpu vcpu) => FlexpriorityEnabled && vcpu.LapicInKernel;

    [KernelFunction("vmx_can_use_ipiv", File = "arch/x86/kvm/vmx/vmx.h")]
    private bool CanUseIpiv(VcpuVmx vmx) => vmx.LapicInKernel && EnableIpiv;

    [KernelFunction("vmx_alloc_ipiv_pid_table", File = "arch/x86/kvm/vmx/vmx.c")]
    private int AllocIpivPidTable(X86Vm kvm)
    {
        KvmVmx kvmVmx = ToKvmVmx(kvm);
        if (!kvm.IrqchipInKernel || !EnableIpiv || kvmVmx.PidTable != 0)
            return 0;
        int order = 0;
        while (4096 << order < kvm.MaxVcpuIds * sizeof(ulong))
            order++;
        kvmVmx.PidTable = Host.Pages.AllocPages("vmx_alloc_ipiv_pid_table", order);
        return kvmVmx.PidTable == 0 ? enomem : 0;
    }

    [KernelFunction("pi_init_cpu", File = "arch/x86/kvm/vmx/posted_intr.c")]
    private static void PiInitCpu(int cpu)
    {
        using var _ = FunctionTrace.Enter("pi_init_cpu");
    }

    /// <summary>The vCPU's posted interrupts go to this CPU from now on; nothing without an in-kernel APIC.</summary>
    [KernelFunction("vmx_vcpu_pi_load", File = "arch/x86/kvm/vmx/posted_intr.c")]
    private void VcpuPiLoad(VcpuVmx vmx, int cpu)
    {
        using var _ = FunctionTrace.Enter("vmx_vcpu_pi_load");
        if (!EnableApicv || !vmx.LapicInKernel)
            return;
        Interlocked.And(ref vmx.PiDesc->Control, ~2u);
        vmx.PiDesc->Ndst = (uint)cpu;
    }

    [KernelFunction("vmx_vcpu_pi_put", File = "arch/x86/kvm/vmx/posted_intr.c")]
    private static void VcpuPiPut(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("vmx_vcpu_pi_put");
    }

    /// <summary>Whether the descriptor holds an interrupt the vCPU has not seen.</summary>
    [KernelFunction("pi_has_pending_interrupt", File = "arch/x86/kvm/vmx/posted_intr.c")]
    public bool DyApicvHasPendingInterrupt(X86Vcpu vcpu)
    {
        PostedInterruptDescriptor* pi = ToVmx(vcpu).PiDesc;
        return (pi->Control & 1) != 0 || ((pi->Control & 2) != 0 && (pi->Pir[0] | pi->Pir[1] | pi->Pir[2] | pi->Pir[3]) != 0);
    }

    [KernelFunction("vmx_apicv_pre_state_restore", File = "arch/x86/kvm/vmx/vmx.c")]
    public void ApicvPreStateRestore(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_apicv_pre_state_restore");
        PostedInterruptDescriptor* pi = ToVmx(vcpu).PiDesc;
        pi->Control &= ~1u;
        pi->Pir[0] = pi->Pir[1] = pi->Pir[2] = pi->Pir[3] = 0;
    }

    [KernelFunction("vmx_check_apicv_inhibit_reasons", File = "arch/x86/kvm/vmx/vmx.c")]
    public bool CheckApicvInhibitReasons(ApicvInhibit reason)
    {
        using var _ = FunctionTrace.Enter("vmx_check_apicv_inhibit_reasons");
        return reason is ApicvInhibit.APICV_INHIBIT_REASON_DISABLE or ApicvInhibit.APICV_INHIBIT_REASON_ABSENT or ApicvInhibit.APICV_INHIBIT_REASON_HYPERV or
            ApicvInhibit.APICV_INHIBIT_REASON_APIC_ID_MODIFIED or ApicvInhibit.APICV_INHIBIT_REASON_APIC_BASE_MODIFIED;
    }

    /// <summary>A TPR below the highest pending interrupt makes the guest exit when it lowers it.</summary>
    [KernelFunction("vmx_update_cr8_intercept", File = "arch/x86/kvm/vmx/vmx.c")]
    public void UpdateCr8Intercept(X86Vcpu vcpu, int tpr, int irr)
    {
        using var _ = FunctionTrace.Enter("vmx_update_cr8_intercept");
        if (CpuHasVmxTprShadow)
            ToVmx(vcpu).Write32(TPR_THRESHOLD, irr == -1 || tpr < irr ? 0u : (uint)irr);
    }

    [KernelFunction("vmx_refresh_apicv_exec_ctrl", File = "arch/x86/kvm/vmx/vmx.c")]
    public void RefreshApicvExecCtrl(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_refresh_apicv_exec_ctrl");
        VcpuVmx vmx = ToVmx(vcpu);
        vmx.PinControlsSet(PinBasedExecCtrl(vmx));
        const uint bits = SECONDARY_EXEC_APIC_REGISTER_VIRT | SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY;
        if (vmx.ApicvActive)
            vmx.SecondaryExecControlsSetbit(bits);
        else
            vmx.SecondaryExecControlsClearbit(bits);
        if (EnableIpiv)
        {
            if (vmx.ApicvActive)
                vmx.TertiaryExecControlsSetbit(TERTIARY_EXEC_IPI_VIRT);
            else
                vmx.TertiaryExecControlsClearbit(TERTIARY_EXEC_IPI_VIRT);
        }

        UpdateMsrBitmapX2apic(vmx);
    }

    [KernelFunction("vmx_load_eoi_exitmap", File = "arch/x86/kvm/vmx/vmx.c")]
    public void LoadEoiExitmap(X86Vcpu vcpu, ReadOnlySpan<ulong> bitmap)
    {
        using var _ = FunctionTrace.Enter("vmx_load_eoi_exitmap");
        VcpuVmx vmx = ToVmx(vcpu);
        if (!vmx.ApicvActive)
            return;
        vmx.Write64(EOI_EXIT_BITMAP0, bitmap[0]);
        vmx.Write64(EOI_EXIT_BITMAP1, bitmap[1]);
        vmx.Write64(EOI_EXIT_BITMAP2, bitmap[2]);
        vmx.Write64(EOI_EXIT_BITMAP3, bitmap[3]);
    }

    /// <summary>SVI: the vector in service.</summary>
    [KernelFunction("vmx_hwapic_isr_update", File = "arch/x86/kvm/vmx/vmx.c")]
    public void HwapicIsrUpdate(X86Vcpu vcpu, int maxIsr)
    {
        FunctionTrace.Leaf("vmx_hwapic_isr_update");
        VcpuVmx vmx = ToVmx(vcpu);
        byte svi = maxIsr == -1 ? (byte)0 : (byte)maxIsr;
        ushort status = vmx.Read16(GUEST_INTR_STATUS);
        if (status >> 8 != svi)
            vmx.Write16(GUEST_INTR_STATUS, (ushort)((status & 0xff) | svi << 8));
    }

    [KernelFunction("vmx_hwapic_irr_update", File = "arch/x86/kvm/vmx/vmx.c")]
    public void HwapicIrrUpdate(X86Vcpu vcpu, int maxIrr)
    {
        using var _ = FunctionTrace.Enter("vmx_hwapic_irr_update");
        SetRvi(ToVmx(vcpu), maxIrr);
    }

    /// <summary>RVI: the highest vector requested.</summary>
    [KernelFunction("vmx_set_rvi", File = "arch/x86/kvm/vmx/vmx.c")]
    private static void SetRvi(VcpuVmx vmx, int vector)
    {
        FunctionTrace.Leaf("vmx_set_rvi");
        byte rvi = vector == -1 ? (byte)0 : (byte)vector;
        ushort status = vmx.Read16(GUEST_INTR_STATUS);
        if ((byte)status != rvi)
            vmx.Write16(GUEST_INTR_STATUS, (ushort)((status & 0xff00) | rvi));
    }
}
