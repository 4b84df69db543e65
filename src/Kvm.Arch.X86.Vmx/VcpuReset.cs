using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Arch.X86.Vmx.VmxControls;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx;

/// <summary>The VMCS of a vCPU after RESET and INIT.</summary>
public sealed unsafe partial class KvmIntel
{
    private const ulong invalidGpa = ulong.MaxValue;
    private const ulong kernelCs = 0x10, kernelDs = 0x18, tssSelector = 0x40;

    /// <summary>
    /// Host state that never changes in the life of the VMCS; what differs per CPU is written by vmx_vcpu_load.
    /// </summary>
    [KernelFunction("vmx_set_constant_host_state", File = "arch/x86/kvm/vmx/vmx.c")]
    private void SetConstantHostState(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("vmx_set_constant_host_state");
        HostX86Cpu cpu = vmx.LoadedCpu;
        vmx.Writel(HOST_CR0, cpu.ReadCr0());
        ulong cr3 = cpu.ReadCr3();
        vmx.Writel(HOST_CR3, cr3);
        vmx.LoadedVmcs.HostState.Cr3 = cr3;
        ulong cr4 = cpu.Cr4Shadow;
        vmx.Writel(HOST_CR4, cr4);
        vmx.LoadedVmcs.HostState.Cr4 = cr4;

        vmx.Write16(HOST_CS_SELECTOR, (ushort)kernelCs);
        // Null selectors spare reloading them for a userspace that has null ones too.
        vmx.Write16(HOST_DS_SELECTOR, 0);
        vmx.Write16(HOST_ES_SELECTOR, 0);
        vmx.Write16(HOST_SS_SELECTOR, (ushort)kernelDs);
        vmx.Write16(HOST_TR_SELECTOR, (ushort)tssSelector);
        vmx.Writel(HOST_IDTR_BASE, hostIdtBase);
        vmx.Writel(HOST_RIP, VmExitEntryPoint);
        vmx.Write32(HOST_IA32_SYSENTER_CS, (uint)cpu.Rdmsr(MSR_IA32_SYSENTER_CS));
        vmx.Writel(HOST_IA32_SYSENTER_EIP, cpu.Rdmsr(MSR_IA32_SYSENTER_EIP));
        if ((VmcsConfig.VmexitCtrl & VM_EXIT_LOAD_IA32_PAT) != 0)
            vmx.Write64(HOST_IA32_PAT, cpu.Rdmsr(MSR_IA32_CR_PAT));
        if (CpuHasLoadIa32Efer)
            vmx.Write64(HOST_IA32_EFER, arch.HostEfer);
    }

    [KernelFunction("set_cr4_guest_host_mask", File = "arch/x86/kvm/vmx/vmx.c")]
    private void SetCr4GuestHostMask(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("set_cr4_guest_host_mask");
        vmx.Cr4GuestOwnedBits = KVM_POSSIBLE_CR4_GUEST_BITS & ~vmx.Cr4GuestRsvdBits;
        if (!EnableEpt)
            vmx.Cr4GuestOwnedBits &= ~(X86_CR4_TLBFLUSH_BITS | X86_CR4_PDPTR_BITS);
        vmx.Writel(CR4_GUEST_HOST_MASK, ~vmx.Cr4GuestOwnedBits);
    }

    /// <summary>CR0 bits the guest may change without an exit: TS, and WP when KVM does not shadow its page tables.</summary>
    [KernelFunction("vmx_l1_guest_owned_cr0_bits", File = "arch/x86/kvm/vmx/vmx.h")]
    private ulong L1GuestOwnedCr0Bits() => EnableEpt ? KVM_POSSIBLE_CR0_GUEST_BITS : KVM_POSSIBLE_CR0_GUEST_BITS & ~Cr0.WP;

    /// <summary>Every VMCS field that does not come from the architectural reset state, in the kernel's order.</summary>
    [KernelFunction("init_vmcs", File = "arch/x86/kvm/vmx/vmx.c", Formerly = "vmx_vcpu_setup")]
    private void InitVmcs(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("init_vmcs");
        if (Nested)
            NestedSetVmcsShadowingBitmap(vmx);
        if (CpuHasVmxMsrBitmap)
            vmx.Write64(MSR_BITMAP, vmx.Vmcs01.MsrBitmap);
        vmx.Write64(VMCS_LINK_POINTER, invalidGpa);

        InitExecControls(vmx);

        vmx.Write32(PAGE_FAULT_ERROR_CODE_MASK, 0);
        vmx.Write32(PAGE_FAULT_ERROR_CODE_MATCH, 0);
        vmx.Write32(CR3_TARGET_COUNT, 0);
        vmx.Write16(HOST_FS_SELECTOR, 0);
        vmx.Write16(HOST_GS_SELECTOR, 0);
        SetConstantHostState(vmx);
        vmx.Writel(HOST_FS_BASE, 0);
        vmx.Writel(HOST_GS_BASE, 0);
        if (CpuHasVmxVmfunc)
            vmx.Write64(VM_FUNCTION_CONTROL, 0);

        vmx.Write32(VM_EXIT_MSR_STORE_COUNT, 0);
        vmx.Write32(VM_EXIT_MSR_LOAD_COUNT, 0);
        vmx.Write64(VM_EXIT_MSR_LOAD_ADDR, (ulong)vmx.MsrAutoloadHost.Values);
        vmx.Write32(VM_ENTRY_MSR_LOAD_COUNT, 0);
        vmx.Write64(VM_ENTRY_MSR_LOAD_ADDR, (ulong)vmx.MsrAutoloadGuest.Values);
        if ((VmcsConfig.VmentryCtrl & VM_ENTRY_LOAD_IA32_PAT) != 0)
            vmx.Write64(GUEST_IA32_PAT, vmx.Pat);
        vmx.VmExitControlsSet(VmexitCtrl());
        vmx.VmEntryControlsSet(VmentryCtrl());

        vmx.Cr0GuestOwnedBits = L1GuestOwnedCr0Bits();
        vmx.Writel(CR0_GUEST_HOST_MASK, ~vmx.Cr0GuestOwnedBits);
        SetCr4GuestHostMask(vmx);

        InitOptionalFeatures(vmx);
        SetupUretMsrs(vmx);
    }

    private void InitExecControls(VcpuVmx vmx)
    {
        vmx.PinControlsSet(PinBasedExecCtrl(vmx));
        vmx.ExecControlsSet(ExecControl(vmx));
        if (CpuHasSecondaryExecCtrls)
            vmx.SecondaryExecControlsSet(SecondaryExecControl(vmx));
        if (CpuHasTertiaryExecCtrls)
            vmx.TertiaryExecControlsSet(TertiaryExecControl(vmx));
        if (EnableApicv && vmx.LapicInKernel)
        {
            vmx.Write64(EOI_EXIT_BITMAP0, 0);
            vmx.Write64(EOI_EXIT_BITMAP1, 0);
            vmx.Write64(EOI_EXIT_BITMAP2, 0);
            vmx.Write64(EOI_EXIT_BITMAP3, 0);
            vmx.Write16(GUEST_INTR_STATUS, 0);
            vmx.Write16(POSTED_INTR_NV, POSTED_INTR_VECTOR);
            vmx.Write64(POSTED_INTR_DESC_ADDR, (ulong)vmx.PiDesc);
        }
        if (CanUseIpiv(vmx))
        {
            vmx.Write64(PID_POINTER_TABLE, ToKvmVmx(vmx.Vm).PidTable);
            vmx.Write16(LAST_PID_POINTER_INDEX, (ushort)(vmx.Vm.MaxVcpuIds - 1));
        }
        if (!vmx.Vm.PauseInGuest)
        {
            vmx.Write32(PLE_GAP, PleGap);
            vmx.PleWindow = PleWindow;
            vmx.PleWindowDirty = true;
        }
        if (NotifyVmexitEnabled(vmx.Vm))
            vmx.Write32(NOTIFY_WINDOW, vmx.Vm.NotifyWindow);
    }

    private void InitOptionalFeatures(VcpuVmx vmx)
    {
        if (vmx.Vpid != 0)
            vmx.Write16(VIRTUAL_PROCESSOR_ID, (ushort)vmx.Vpid);
        if (CpuHasVmxXsaves)
            vmx.Write64(XSS_EXIT_BITMAP, 0);
        if (EnablePml)
        {
            vmx.Write64(PML_ADDRESS, vmx.PmlPage);
            vmx.Write16(GUEST_PML_INDEX, PML_ENTITY_NUM - 1);
        }
        WriteEnclsBitmap(vmx);
        vmx.Write32(GUEST_SYSENTER_CS, 0);
        vmx.Writel(GUEST_SYSENTER_ESP, 0);
        vmx.Writel(GUEST_SYSENTER_EIP, 0);
        GuestDebugctlWrite(vmx, 0);
        if (CpuHasVmxTprShadow)
        {
            vmx.Write64(VIRTUAL_APIC_PAGE_ADDR, 0);
            if (CpuNeedTprShadow(vmx))
                vmx.Write64(VIRTUAL_APIC_PAGE_ADDR, (ulong)vmx.Apic!.Regs);
            vmx.Write32(TPR_THRESHOLD, 0);
        }
    }

    [KernelFunction("__vmx_vcpu_reset", File = "arch/x86/kvm/vmx/vmx.c")]
    private void VcpuResetFull(VcpuVmx vmx)
    {
        InitVmcs(vmx);
        if (Nested)
            vmx.NestedMsrs = VmcsConfig.Nested;
        SetupSgxLepubkeyhash(vmx);
        vmx.MicrocodeVersion = 0x100000000;
        vmx.MsrIa32FeatureControlValidBits = FEAT_CTL_LOCKED;
        // The notification vector is always the normal or the wakeup one.
        vmx.PiDesc->Nv = POSTED_INTR_VECTOR;
        vmx.PiDesc->Control |= 2;
    }

    /// <summary>RESET (INIT: <paramref name="initEvent"/>) state of the fields that the processor architecture prescribes.</summary>
    [KernelFunction("vmx_vcpu_reset", File = "arch/x86/kvm/vmx/vmx.c")]
    public void VcpuReset(X86Vcpu vcpu, bool initEvent)
    {
        using var _ = FunctionTrace.Enter("vmx_vcpu_reset");
        VcpuVmx vmx = ToVmx(vcpu);
        if (!initEvent)
            VcpuResetFull(vmx);

        vmx.Rmode.Vm86Active = false;
        vmx.SpecCtrl = 0;
        vmx.MsrIa32UmwaitControl = 0;
        vmx.SetCr8(0);

        SegmentCacheClear(vmx);
        vmx.RegisterMarkAvailable(VCPU_EXREG_SEGMENTS);
        SegSetup(vmx, VCPU_SREG_CS);
        vmx.Write16(GUEST_CS_SELECTOR, 0xf000);
        vmx.Writel(GUEST_CS_BASE, 0xffff0000);
        SegSetup(vmx, VCPU_SREG_DS);
        SegSetup(vmx, VCPU_SREG_ES);
        SegSetup(vmx, VCPU_SREG_FS);
        SegSetup(vmx, VCPU_SREG_GS);
        SegSetup(vmx, VCPU_SREG_SS);

        vmx.Write16(GUEST_TR_SELECTOR, 0);
        vmx.Writel(GUEST_TR_BASE, 0);
        vmx.Write32(GUEST_TR_LIMIT, 0xffff);
        vmx.Write32(GUEST_TR_AR_BYTES, 0x8b);
        vmx.Write16(GUEST_LDTR_SELECTOR, 0);
        vmx.Writel(GUEST_LDTR_BASE, 0);
        vmx.Write32(GUEST_LDTR_LIMIT, 0xffff);
        vmx.Write32(GUEST_LDTR_AR_BYTES, 0x82);
        vmx.Writel(GUEST_GDTR_BASE, 0);
        vmx.Write32(GUEST_GDTR_LIMIT, 0xffff);
        vmx.Writel(GUEST_IDTR_BASE, 0);
        vmx.Write32(GUEST_IDTR_LIMIT, 0xffff);
        vmx.Write32(GUEST_ACTIVITY_STATE, GUEST_ACTIVITY_ACTIVE);
        vmx.Write32(GUEST_INTERRUPTIBILITY_INFO, 0);
        vmx.Writel(GUEST_PENDING_DBG_EXCEPTIONS, 0);
        if (KvmMpxSupported)
            vmx.Write64(GUEST_BNDCFGS, 0);
        vmx.Write32(VM_ENTRY_INTR_INFO_FIELD, 0);

        vmx.MakeRequest(KVM_REQ_APIC_PAGE_RELOAD);
        VpidSyncContext(vmx.Vpid);
        UpdateFbClearDis(vmx);
    }
}
