using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Arch.X86.Vmx.VmxControls;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx;

/// <summary>The root of the guest's translation, and what is flushed when it changes.</summary>
public sealed unsafe partial class KvmIntel
{
    [KernelFunction("vmx_get_max_tdp_level", File = "arch/x86/kvm/vmx/vmx.c")]
    private int GetMaxTdpLevel() => CpuHasVmxEpt5Levels ? 5 : 4;

    [KernelFunction("construct_eptp", File = "arch/x86/kvm/vmx/vmx.c")]
    internal ulong ConstructEptp(ulong rootHpa, int rootLevel)
    {
        ulong eptp = VMX_EPTP_MT_WB;
        eptp |= rootLevel == 5 ? VMX_EPTP_PWL_5 : VMX_EPTP_PWL_4;
        if (EnableEptAdBits)
            eptp |= VMX_EPTP_AD_ENABLE_BIT;
        return eptp | rootHpa;
    }

    [KernelFunction("vmx_load_mmu_pgd", File = "arch/x86/kvm/vmx/vmx.c")]
    public void LoadMmuPgd(X86Vcpu vcpu, ulong rootHpa, int rootLevel)
    {
        using var _ = FunctionTrace.Enter("vmx_load_mmu_pgd");
        VcpuVmx vmx = ToVmx(vcpu);
        ulong guestCr3;
        if (EnableEpt)
        {
            vmx.Write64(EPT_POINTER, ConstructEptp(rootHpa, rootLevel));
            FunctionTrace.Leaf("hv_track_root_tdp");
            bool update = true;
            if (!EnableUnrestrictedGuest && !vmx.IsPaging)
            {
                guestCr3 = ToKvmVmx(vmx.Vm).EptIdentityMapAddr;
            }
            else if (vmx.RegisterIsDirty(VCPU_EXREG_CR3))
            {
                guestCr3 = vmx.Cr3;
            }
            else
            {
                guestCr3 = 0;
                update = false; // the VMCS has it
            }
            EptLoadPdptrs(vmx);
            if (!update)
                return;
        }
        else
        {
            guestCr3 = rootHpa | (vmx.ReadCr4Bits(X86_CR4_PCIDE) != 0 ? vmx.ReadCr3() & 0xfff : 0);
        }
        vmx.Writel(GUEST_CR3, guestCr3);
    }

    [KernelFunction("vmx_ept_load_pdptrs", File = "arch/x86/kvm/vmx/vmx.c")]
    private static void EptLoadPdptrs(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("vmx_ept_load_pdptrs");
        if (!vmx.RegisterIsDirty(VCPU_EXREG_PDPTR) || !vmx.IsPaePaging)
            return;
        vmx.Write64(GUEST_PDPTR0, vmx.WalkMmu.Pdptrs[0]);
        vmx.Write64(GUEST_PDPTR1, vmx.WalkMmu.Pdptrs[1]);
        vmx.Write64(GUEST_PDPTR2, vmx.WalkMmu.Pdptrs[2]);
        vmx.Write64(GUEST_PDPTR3, vmx.WalkMmu.Pdptrs[3]);
    }

    [KernelFunction("ept_save_pdptrs", File = "arch/x86/kvm/vmx/vmx.c")]
    private void EptSavePdptrs(VcpuVmx vmx)
    {
        if (!vmx.IsPaePaging)
        {
            WarnOnOnce(true);
            return;
        }
        vmx.WalkMmu.Pdptrs[0] = vmx.Read64(GUEST_PDPTR0);
        vmx.WalkMmu.Pdptrs[1] = vmx.Read64(GUEST_PDPTR1);
        vmx.WalkMmu.Pdptrs[2] = vmx.Read64(GUEST_PDPTR2);
        vmx.WalkMmu.Pdptrs[3] = vmx.Read64(GUEST_PDPTR3);
        vmx.RegisterMarkAvailable(VCPU_EXREG_PDPTR);
    }

    /// <summary>INVEPT even with VPIDs: guest-physical translations belong to the EPT root, not to a VPID.</summary>
    [KernelFunction("vmx_flush_tlb_all", File = "arch/x86/kvm/vmx/vmx.c")]
    public void FlushTlbAll(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_flush_tlb_all");
        if (EnableEpt)
            EptSyncGlobal();
        else if (EnableVpid)
        {
            if (CpuHasVmxInvvpidGlobal)
                VpidSyncVcpuGlobal();
            else
                VpidSyncVcpuSingle(ToVmx(vcpu).Vpid);
        }
    }

    [KernelFunction("vmx_flush_tlb_current", File = "arch/x86/kvm/vmx/vmx.c")]
    public void FlushTlbCurrent(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_flush_tlb_current");
        if (vcpu.Mmu.RootHpa == X86Const.INVALID_PAGE)
            return;
        if (EnableEpt)
            EptSyncContext(ConstructEptp(vcpu.Mmu.RootHpa, vcpu.Mmu.RootLevel));
        else
            VpidSyncContext(ToVmx(vcpu).Vpid);
    }

    [KernelFunction("vmx_flush_tlb_gva", File = "arch/x86/kvm/vmx/vmx.c")]
    public void FlushTlbGva(X86Vcpu vcpu, ulong address) => VpidSyncVcpuAddr(ToVmx(vcpu).Vpid, address);

    /// <summary>Without a VPID every VM entry and exit flushes linear translations, so nothing is left to do.</summary>
    [KernelFunction("vmx_flush_tlb_guest", File = "arch/x86/kvm/vmx/vmx.c")]
    public void FlushTlbGuest(X86Vcpu vcpu) => VpidSyncContext(ToVmx(vcpu).Vpid);

    /// <summary>EPT memory type and ignore-PAT bit: uncacheable for MMIO; write-back and nothing else where no device does non-coherent DMA.</summary>
    [KernelFunction("vmx_get_mt_mask", File = "arch/x86/kvm/vmx/vmx.c")]
    public byte GetMtMask(X86Vcpu vcpu, ulong gfn, bool isMmio)
    {
        using var _ = FunctionTrace.Enter("vmx_get_mt_mask");
        const byte uncachable = 0, writeBack = 6;
        if (isMmio)
            return uncachable << VMX_EPT_MT_EPTE_SHIFT;
        FunctionTrace.Leaf("kvm_arch_has_noncoherent_dma");
        // No device is assigned, hence none does DMA that bypasses the caches.
        return writeBack << VMX_EPT_MT_EPTE_SHIFT | VMX_EPT_IPAT_BIT;
    }
}
