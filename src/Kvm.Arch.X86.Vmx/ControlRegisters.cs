using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Arch.X86.Vmx.VmxControls;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx;

/// <summary>CR0, CR3, CR4, EFER, RFLAGS and DR7 of the guest, and what the hardware runs with instead.</summary>
public sealed unsafe partial class KvmIntel
{
    private const ulong vmCr0AlwaysOff = Cr0.NW | Cr0.CD;
    private const ulong vmCr0AlwaysOnUnrestrictedGuest = Cr0.NE;
    private const ulong vmCr0AlwaysOn = Cr0.NE | Cr0.PG | Cr0.PE;
    private const ulong vmCr4AlwaysOnUnrestrictedGuest = Cr4.VMXE;
    private const ulong pmodeVmCr4AlwaysOn = Cr4.PAE | Cr4.VMXE;
    private const ulong rmodeVmCr4AlwaysOn = Cr4.VME | Cr4.PAE | Cr4.VMXE;
    private const ulong rmodeGuestOwnedEflagsBits = ~(Flags.IOPL | Flags.VM);

    [KernelFunction("vmx_get_rflags", File = "arch/x86/kvm/vmx/vmx.c")]
    public ulong GetRflags(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_get_rflags");
        VcpuVmx vmx = ToVmx(vcpu);
        if (!vmx.RegisterIsAvailable(VCPU_EXREG_RFLAGS))
        {
            vmx.RegisterMarkAvailable(VCPU_EXREG_RFLAGS);
            ulong rflags = vmx.Readl(GUEST_RFLAGS);
            if (vmx.Rmode.Vm86Active)
                rflags = (rflags & rmodeGuestOwnedEflagsBits) | (vmx.Rmode.SaveRflags & ~rmodeGuestOwnedEflagsBits);
            vmx.RflagsCached = rflags;
        }
        return vmx.RflagsCached;
    }

    [KernelFunction("vmx_set_rflags", File = "arch/x86/kvm/vmx/vmx.c")]
    public void SetRflags(X86Vcpu vcpu, ulong rflags)
    {
        using var _ = FunctionTrace.Enter("vmx_set_rflags");
        VcpuVmx vmx = ToVmx(vcpu);
        if (EnableUnrestrictedGuest)
        {
            vmx.RegisterMarkAvailable(VCPU_EXREG_RFLAGS);
            vmx.RflagsCached = rflags;
            vmx.Writel(GUEST_RFLAGS, rflags);
            return;
        }
        ulong old = GetRflags(vmx);
        vmx.RflagsCached = rflags;
        if (vmx.Rmode.Vm86Active)
        {
            vmx.Rmode.SaveRflags = rflags;
            rflags |= Flags.IOPL | Flags.VM;
        }
        vmx.Writel(GUEST_RFLAGS, rflags);
        if (((old ^ vmx.RflagsCached) & Flags.VM) != 0)
            vmx.EmulationRequired = IsEmulationRequired(vmx);
    }

    [KernelFunction("vmx_get_if_flag", File = "arch/x86/kvm/vmx/vmx.c")]
    public bool GetIfFlag(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_get_if_flag");
        return (GetRflags(vcpu) & Flags.IF) != 0;
    }

    /// <summary>Reads a register that VM exits leave in the VMCS into the vCPU's cache.</summary>
    [KernelFunction("vmx_cache_reg", File = "arch/x86/kvm/vmx/vmx.c")]
    public void CacheReg(X86Vcpu vcpu, KvmReg reg)
    {
        using var _ = FunctionTrace.Enter("vmx_cache_reg");
        VcpuVmx vmx = ToVmx(vcpu);
        vmx.RegisterMarkAvailable(reg);
        switch (reg)
        {
            case VCPU_REGS_RSP:
                vmx.Regs[(int)VCPU_REGS_RSP] = vmx.Readl(GUEST_RSP);
                break;
            case VCPU_REGS_RIP:
                vmx.Regs[(int)VCPU_REGS_RIP] = vmx.Readl(GUEST_RIP);
                break;
            case VCPU_EXREG_PDPTR:
                if (EnableEpt)
                    EptSavePdptrs(vmx);
                break;
            case VCPU_EXREG_CR0:
                vmx.Cr0 = (vmx.Cr0 & ~vmx.Cr0GuestOwnedBits) | (vmx.Readl(GUEST_CR0) & vmx.Cr0GuestOwnedBits);
                break;
            case VCPU_EXREG_CR3:
                // While CR3 loads are intercepted the hardware runs with KVM's CR3, not the guest's.
                if ((vmx.ExecControlsGet() & CPU_BASED_CR3_LOAD_EXITING) == 0)
                    vmx.Cr3 = vmx.Readl(GUEST_CR3);
                break;
            case VCPU_EXREG_CR4:
                vmx.Cr4 = (vmx.Cr4 & ~vmx.Cr4GuestOwnedBits) | (vmx.Readl(GUEST_CR4) & vmx.Cr4GuestOwnedBits);
                break;
            default:
                vmx.Vm.BugOn(true);
                break;
        }
    }

    /// <summary>Nested virtualization would constrain CR0; without it any architecturally valid value is fine.</summary>
    [KernelFunction("vmx_is_valid_cr0", File = "arch/x86/kvm/vmx/vmx.c")]
    public bool IsValidCr0(X86Vcpu vcpu, ulong cr0)
    {
        using var _ = FunctionTrace.Enter("vmx_is_valid_cr0");
        return true;
    }

    [KernelFunction("vmx_set_cr0", File = "arch/x86/kvm/vmx/vmx.c")]
    public void SetCr0(X86Vcpu vcpu, ulong cr0)
    {
        using var _ = FunctionTrace.Enter("vmx_set_cr0");
        VcpuVmx vmx = ToVmx(vcpu);
        bool oldPg = (vmx.ReadCr0Bits(Cr0.PG)) != 0;
        bool newPg = (cr0 & Cr0.PG) != 0;
        ulong hwCr0 = cr0 & ~vmCr0AlwaysOff;
        if (EnableUnrestrictedGuest)
        {
            hwCr0 |= vmCr0AlwaysOnUnrestrictedGuest;
        }
        else
        {
            hwCr0 |= vmCr0AlwaysOn;
            if (!EnableEpt)
                hwCr0 |= Cr0.WP;
            if (vmx.Rmode.Vm86Active && (cr0 & Cr0.PE) != 0)
                EnterPmode(vmx);
            if (!vmx.Rmode.Vm86Active && (cr0 & Cr0.PE) == 0)
                EnterRmode(vmx);
        }

        vmx.Writel(CR0_READ_SHADOW, cr0);
        vmx.Writel(GUEST_CR0, hwCr0);
        vmx.Cr0 = cr0;
        vmx.RegisterMarkAvailable(VCPU_EXREG_CR0);
        if ((vmx.Efer & Efer.LME) != 0)
        {
            if (!oldPg && newPg)
                EnterLmode(vmx);
            else if (oldPg && !newPg)
                ExitLmode(vmx);
        }

        if (EnableEpt && !EnableUnrestrictedGuest)
            UpdateCr3Interception(vmx, oldPg, newPg);
        // Depends on the new Cr0.
        vmx.EmulationRequired = IsEmulationRequired(vmx);
    }

    /// <summary>With EPT but without unrestricted guest the processor runs on identity page tables while the guest's paging is off, so CR3 accesses must exit then.</summary>
    private void UpdateCr3Interception(VcpuVmx vmx, bool oldPg, bool newPg)
    {
        // While it is still the guest's: once loads exit, the cached value can no longer be refreshed from the VMCS.
        if (!vmx.RegisterIsAvailable(VCPU_EXREG_CR3))
            CacheReg(vmx, VCPU_EXREG_CR3);
        if (!newPg)
            vmx.ExecControlsSetbit(CR3_EXITING_BITS);
        else
            vmx.ExecControlsClearbit(CR3_EXITING_BITS);
        // vmx_set_cr4 consumes the new Cr0.
        if (oldPg != newPg)
            SetCr4(vmx, vmx.ReadCr4());
        if (!oldPg && newPg)
            vmx.RegisterMarkDirty(VCPU_EXREG_CR3);
    }

    /// <summary>CR4.VMXE can't be set in SMM; whether it may be set at all is the common code's question.</summary>
    [KernelFunction("vmx_is_valid_cr4", File = "arch/x86/kvm/vmx/vmx.c")]
    public bool IsValidCr4(X86Vcpu vcpu, ulong cr4)
    {
        using var _ = FunctionTrace.Enter("vmx_is_valid_cr4");
        return (cr4 & Cr4.VMXE) == 0 || !vcpu.IsSmm;
    }

    [KernelFunction("vmx_set_cr4", File = "arch/x86/kvm/vmx/vmx.c")]
    public void SetCr4(X86Vcpu vcpu, ulong cr4)
    {
        using var _ = FunctionTrace.Enter("vmx_set_cr4");
        VcpuVmx vmx = ToVmx(vcpu);
        ulong oldCr4 = vmx.Cr4;
        // The host's machine-check enable stays in force while the guest runs.
        ulong hwCr4 = (vmx.LoadedCpu.Cr4Shadow & Cr4.MCE) | (cr4 & ~Cr4.MCE);
        if (EnableUnrestrictedGuest)
            hwCr4 |= vmCr4AlwaysOnUnrestrictedGuest;
        else if (vmx.Rmode.Vm86Active)
            hwCr4 |= rmodeVmCr4AlwaysOn;
        else
            hwCr4 |= pmodeVmCr4AlwaysOn;

        if (!BootCpuHas(X86Feature.UMIP) && VmxUmipEmulated)
        {
            if ((cr4 & Cr4.UMIP) != 0)
            {
                vmx.SecondaryExecControlsSetbit(SECONDARY_EXEC_DESC);
                hwCr4 &= ~Cr4.UMIP;
            }
            else
            {
                vmx.SecondaryExecControlsClearbit(SECONDARY_EXEC_DESC);
            }
        }

        vmx.Cr4 = cr4;
        vmx.RegisterMarkAvailable(VCPU_EXREG_CR4);
        if (!EnableUnrestrictedGuest)
        {
            if (EnableEpt)
            {
                if (!vmx.IsPaging)
                    hwCr4 = (hwCr4 & ~Cr4.PAE) | Cr4.PSE;
                else if ((cr4 & Cr4.PAE) == 0)
                    hwCr4 &= ~Cr4.PAE;
            }
            // The processor always runs with paging on: emulate that these are off without it.
            if (!vmx.IsPaging)
                hwCr4 &= ~(Cr4.SMEP | Cr4.SMAP | Cr4.PKE);
        }
        vmx.Writel(CR4_READ_SHADOW, cr4);
        vmx.Writel(GUEST_CR4, hwCr4);
        if (((cr4 ^ oldCr4) & (Cr4.OSXSAVE | Cr4.PKE)) != 0)
            vmx.UpdateCpuidRuntime();
    }

    [KernelFunction("vmx_set_efer", File = "arch/x86/kvm/vmx/vmx.c")]
    public int SetEfer(X86Vcpu vcpu, ulong efer)
    {
        using var _ = FunctionTrace.Enter("vmx_set_efer");
        VcpuVmx vmx = ToVmx(vcpu);
        // Nothing to do on a processor without EFER.
        if (FindUretMsr(MSR_EFER) < 0)
            return 0;
        vmx.Efer = efer;
        if ((efer & Efer.LMA) != 0)
            vmx.VmEntryControlsSetbit(VM_ENTRY_IA32E_MODE);
        else
            vmx.VmEntryControlsClearbit(VM_ENTRY_IA32E_MODE);
        SetupUretMsrs(vmx);
        return 0;
    }

    /// <summary>Paging was turned on with EFER.LME set: long mode, which needs a 64-bit TSS.</summary>
    [KernelFunction("enter_lmode", File = "arch/x86/kvm/vmx/vmx.c")]
    private void EnterLmode(VcpuVmx vmx)
    {
        SegmentCacheClear(vmx);
        uint ar = vmx.Read32(GUEST_TR_AR_BYTES);
        if ((ar & VMX_AR_TYPE_MASK) != VMX_AR_TYPE_BUSY_64_TSS)
            vmx.Write32(GUEST_TR_AR_BYTES, (ar & ~VMX_AR_TYPE_MASK) | VMX_AR_TYPE_BUSY_64_TSS);
        SetEfer(vmx, vmx.Efer | Efer.LMA);
    }

    [KernelFunction("exit_lmode", File = "arch/x86/kvm/vmx/vmx.c")]
    private void ExitLmode(VcpuVmx vmx) => SetEfer(vmx, vmx.Efer & ~Efer.LMA);

    [KernelFunction("vmx_set_dr7", File = "arch/x86/kvm/vmx/vmx.c")]
    public void SetDr7(X86Vcpu vcpu, ulong value)
    {
        using var _ = FunctionTrace.Enter("vmx_set_dr7");
        ToVmx(vcpu).Writel(GUEST_DR7, value);
    }

    /// <summary>The guest ran with its own debug registers: read them back and intercept accesses again.</summary>
    [KernelFunction("vmx_sync_dirty_debug_regs", File = "arch/x86/kvm/vmx/vmx.c")]
    public void SyncDirtyDebugRegs(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_sync_dirty_debug_regs");
        VcpuVmx vmx = ToVmx(vcpu);
        for (int i = 0; i < 4; i++)
            vmx.Db[i] = vmx.Hw.ReadDr(i);
        vmx.Dr6 = vmx.Hw.ReadDr(6);
        vmx.Dr7 = vmx.Readl(GUEST_DR7);
        vmx.SwitchDbRegs &= ~KVM_DEBUGREG_WONT_EXIT;
        vmx.ExecControlsSetbit(CPU_BASED_MOV_DR_EXITING);
        // The host's #DB handler must not see the guest's status.
        vmx.Hw.WriteDr(6, DR6_ACTIVE_LOW);
    }
}
