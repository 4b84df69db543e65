using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.ApicConst;
using static Kvm.Arch.X86.Vmx.VmxControls;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx;

/// <summary>The APIC-access page, x2APIC MSRs, and the exits that virtualized APIC accesses make.</summary>
public sealed unsafe partial class KvmIntel
{
    private const byte msrBitmapModeX2apic = 1, msrBitmapModeX2apicApicv = 2;

    /// <summary>The page that guest-physical 0xfee00000 maps to: one for the VM, never read. 0, or what the memory slot answers.</summary>
    [KernelFunction("alloc_apic_access_page", File = "arch/x86/kvm/vmx/vmx.c")]
    private int AllocApicAccessPage(X86Vm kvm)
    {
        KvmVmx kvmVmx = ToKvmVmx(kvm);
        using var slots = kvm.SlotsLock.Enter();
        if (kvmVmx.ApicAccessMemslotEnabled)
            return 0;
        int r = arch.SetMemoryRegion(kvm, APIC_ACCESS_PAGE_PRIVATE_MEMSLOT, X86Const.APIC_DEFAULT_PHYS_BASE, 4096, out ulong _);
        if (r != 0)
            return r;
        if (ApicAccessPage(kvm) == 0)
            return -(int)Errno.EFAULT;
        kvmVmx.ApicAccessMemslotEnabled = true;
        return 0;
    }

    /// <summary>gfn_to_page of the APIC-access page; 0 when there is none.</summary>
    private static ulong ApicAccessPage(X86Vm kvm)
    {
        using var _ = FunctionTrace.Enter("gfn_to_page");
        FunctionTrace.Leaf("gfn_to_memslot");
        FunctionTrace.Leaf("__gfn_to_hva_many");
        const ulong gfn = X86Const.APIC_DEFAULT_PHYS_BASE >> 12;
        ulong pfn = kvm.GfnToPfn(kvm.GfnToMemslot(gfn), gfn, writeFault: true, out bool _, out ulong _);
        FunctionTrace.Leaf("kvm_pfn_to_refcounted_page");
        return KvmPfn.IsErrorOrNoslot(pfn) ? 0 : pfn << 12;
    }

    [KernelFunction("vmx_set_apic_access_page_addr", File = "arch/x86/kvm/vmx/vmx.c")]
    public void SetApicAccessPageAddr(X86Vcpu vcpu)
    {
        if (!FlexpriorityEnabled)
            return;
        using var _ = FunctionTrace.Enter("vmx_set_apic_access_page_addr");
        VcpuVmx vmx = ToVmx(vcpu);
        if ((vmx.SecondaryExecControlsGet() & SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES) == 0)
            return;
        ulong page = ApicAccessPage(vcpu.Vm);
        if (page == 0)
            return;
        vmx.Write64(APIC_ACCESS_ADDR, page);
        FlushTlbCurrent(vcpu);
    }

    /// <summary>xAPIC mode has the access page, x2APIC mode its MSRs; one excludes the other.</summary>
    [KernelFunction("vmx_set_virtual_apic_mode", File = "arch/x86/kvm/vmx/vmx.c")]
    public void SetVirtualApicMode(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_set_virtual_apic_mode");
        VcpuVmx vmx = ToVmx(vcpu);
        if (!vmx.LapicInKernel || (!FlexpriorityEnabled && !CpuHasVmxVirtualizeX2apicMode))
            return;
        uint controls = vmx.SecondaryExecControlsGet() & ~(SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES | SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE);
        switch (vcpu.ApicBase & (X86Const.MSR_IA32_APICBASE_ENABLE | X86Const.X2APIC_ENABLE))
        {
            case X86Const.MSR_IA32_APICBASE_ENABLE when FlexpriorityEnabled:
                controls |= SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES;
                vcpu.MakeRequest(KVM_REQ_APIC_PAGE_RELOAD);

                // While the page was off the guest may have got other translations there.
                vcpu.MakeRequest(KVM_REQ_TLB_FLUSH_CURRENT);
                break;
            case X86Const.MSR_IA32_APICBASE_ENABLE | X86Const.X2APIC_ENABLE when CpuHasVmxVirtualizeX2apicMode:
                controls |= SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE;
                break;
        }

        vmx.SecondaryExecControlsSet(controls);
        UpdateMsrBitmapX2apic(vmx);
    }

    /// <summary>x2APIC MSRs without exits: TPR always; with APICv all reads but the current count, and EOI and self-IPI.</summary>
    [KernelFunction("vmx_update_msr_bitmap_x2apic", File = "arch/x86/kvm/vmx/vmx.c")]
    private void UpdateMsrBitmapX2apic(VcpuVmx vmx)
    {
        if (!CpuHasVmxMsrBitmap)
            return;
        byte mode = 0;
        if (CpuHasSecondaryExecCtrls && (vmx.SecondaryExecControlsGet() & SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE) != 0)
            mode = EnableApicv && vmx.ApicvActive ? (byte)(msrBitmapModeX2apic | msrBitmapModeX2apicApicv) : msrBitmapModeX2apic;
        if (mode == vmx.X2apicMsrBitmapMode)
            return;
        vmx.X2apicMsrBitmapMode = mode;

        byte* bitmap = (byte*)vmx.Vmcs01.MsrBitmap;
        bool apicv = (mode & msrBitmapModeX2apicApicv) != 0;
        new Span<byte>(bitmap + 0x100, 0x20).Fill(apicv ? (byte)0 : (byte)0xff);
        new Span<byte>(bitmap + 0x900, 0x20).Fill(0xff);
        SetInterceptForMsr(vmx, X2apicMsr(APIC_TASKPRI), MSR_TYPE_RW, mode == 0);
        if (!apicv)
            return;
        EnableInterceptForMsr(vmx, X2apicMsr(APIC_TMCCT), MSR_TYPE_RW);
        DisableInterceptForMsr(vmx, X2apicMsr(APIC_EOI), MSR_TYPE_W);
        DisableInterceptForMsr(vmx, X2apicMsr(APIC_SELF_IPI), MSR_TYPE_W);
        if (EnableIpiv)
            DisableInterceptForMsr(vmx, X2apicMsr(APIC_ICR), MSR_TYPE_RW);
    }

    private static uint X2apicMsr(int register) => APIC_BASE_MSR + ((uint)register >> 4);

    // ---- exits ----

    [KernelFunction("handle_tpr_below_threshold", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleTprBelowThreshold(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("handle_tpr_below_threshold");
        vmx.Apic!.UpdatePpr();
        return 1;
    }

    /// <summary>A sane guest ends an interrupt with a MOV whose value does not matter: no need to decode it (fasteoi).</summary>
    [KernelFunction("handle_apic_access", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleApicAccess(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("handle_apic_access");
        if (kvmIntel.Fasteoi)
        {
            ulong qualification = GetExitQual(vmx);
            if ((qualification & APIC_ACCESS_TYPE) == TYPE_LINEAR_APIC_INST_WRITE && (qualification & APIC_ACCESS_OFFSET) == APIC_EOI)
            {
                vmx.Apic!.LapicSetEoi();
                return vmx.SkipEmulatedInstruction();
            }
        }

        return vmx.EmulateInstruction(EmulType.None);
    }

    /// <summary>The processor has ended the interrupt and names its vector; RIP is past the instruction.</summary>
    [KernelFunction("handle_apic_eoi_induced", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleApicEoiInduced(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("handle_apic_eoi_induced");
        vmx.Apic!.SetEoiAccelerated((byte)GetExitQual(vmx));
        return 1;
    }

    /// <summary>The value is in the virtual-APIC page already; RIP is past the instruction.</summary>
    [KernelFunction("handle_apic_write", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleApicWrite(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("handle_apic_write");
        vmx.Apic!.WriteNodecode((int)(GetExitQual(vmx) & 0xff0));
        return 1;
    }
}
