using Kvm.Core.Tracing;
using Kvm.Emulator.Svm;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.KvmReg;
using static Kvm.Arch.X86.Svm.SvmConst;
using static Kvm.Arch.X86.Svm.SvmIntercept;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86.Svm;

/// <summary>Control and debug registers, EFER, the register cache.</summary>
public sealed unsafe partial class KvmAmd
{
    /// <summary>
    /// The VMCB's EFER always has SVME: VMRUN demands it. Turning SVME off ends nested operation; turning it on intercepts #GP where some processors
    /// raise it for SVM instructions with operands in reserved memory.
    /// </summary>
    [KernelFunction("svm_set_efer", File = "arch/x86/kvm/svm/svm.c")]
    public int SetEfer(X86Vcpu vcpu, ulong efer)
    {
        using var _ = FunctionTrace.Enter("svm_set_efer");
        VcpuSvm svm = ToSvm(vcpu);
        ulong oldEfer = vcpu.Efer;
        vcpu.Efer = efer;
        if (!Params.Npt)
        {
            // Shadow paging takes NX for granted.
            efer |= EFER_NX;
            if ((efer & EFER_LMA) == 0)
                efer &= ~EFER_LME;
        }

        if (((oldEfer ^ efer) & EFER_SVME) != 0)
        {
            if ((efer & EFER_SVME) == 0)
            {
                NestedOps.LeaveNested(vcpu);
                SetGif(svm, true);
                if (!arch.Params.EnableVmwareBackdoor)
                    ClrExceptionIntercept(svm, GP_VECTOR);
                FunctionTrace.Leaf("svm_free_nested");
            }
            else if (svmGpErratumIntercept)
            {
                SetExceptionIntercept(svm, GP_VECTOR);
            }
        }

        svm.Vmcb->Save.Efer = efer | EFER_SVME;
        MarkDirty(svm.Vmcb, VMCB_CR);
        return 0;
    }

    /// <summary>PDPTEs are read from guest memory when somebody asks: the processor does the same.</summary>
    [KernelFunction("svm_cache_reg", File = "arch/x86/kvm/svm/svm.c")]
    public void CacheReg(X86Vcpu vcpu, KvmReg reg)
    {
        vcpu.RegisterMarkAvailable(reg);
        if (reg == VCPU_EXREG_PDPTR && Params.Npt)
            vcpu.LoadPdptrs(vcpu.ReadCr3());
    }

    [KernelFunction("svm_is_valid_cr0", File = "arch/x86/kvm/svm/svm.c")]
    public bool IsValidCr0(X86Vcpu vcpu, ulong cr0)
    {
        FunctionTrace.Leaf("svm_is_valid_cr0");
        return true;
    }

    [KernelFunction("svm_set_cr0", File = "arch/x86/kvm/svm/svm.c")]
    public void SetCr0(X86Vcpu vcpu, ulong cr0)
    {
        using var _ = FunctionTrace.Enter("svm_set_cr0");
        VcpuSvm svm = ToSvm(vcpu);
        ulong hcr0 = cr0;
        bool oldPaging = vcpu.IsPaging;
        if ((vcpu.Efer & EFER_LME) != 0)
        {
            if (!oldPaging && (cr0 & X86_CR0_PG) != 0)
            {
                vcpu.Efer |= EFER_LMA;
                svm.Vmcb->Save.Efer |= EFER_LMA | EFER_LME;
            }

            if (oldPaging && (cr0 & X86_CR0_PG) == 0)
            {
                vcpu.Efer &= ~EFER_LMA;
                svm.Vmcb->Save.Efer &= ~(EFER_LMA | EFER_LME);
            }
        }

        vcpu.Cr0 = cr0;
        if (!Params.Npt)
        {
            hcr0 |= X86_CR0_PG | X86_CR0_WP;
            if (oldPaging != vcpu.IsPaging)
                SetCr4(vcpu, vcpu.ReadCr4());
        }

        // Firmware that forgets to enable caches would run slowly: they are on unless userspace turned the quirk off.
        if (vcpu.Vm.CheckHasQuirk(Abi.Uapi.KVM_X86_QUIRK_CD_NW_CLEARED))
            hcr0 &= ~(X86_CR0_CD | X86_CR0_NW);
        svm.Vmcb->Save.Cr0 = hcr0;
        MarkDirty(svm.Vmcb, VMCB_CR);
        if (hcr0 == cr0)
        {
            // The selective intercept stays.
            ClrIntercept(svm, INTERCEPT_CR0_READ);
            ClrIntercept(svm, INTERCEPT_CR0_WRITE);
        }
        else
        {
            SetIntercept(svm, INTERCEPT_CR0_READ);
            SetIntercept(svm, INTERCEPT_CR0_WRITE);
        }
    }

    [KernelFunction("sev_post_set_cr3", File = "arch/x86/kvm/svm/svm.c")]
    public void PostSetCr3(X86Vcpu vcpu, ulong cr3) => FunctionTrace.Leaf("sev_post_set_cr3");

    [KernelFunction("svm_is_valid_cr4", File = "arch/x86/kvm/svm/svm.c")]
    public bool IsValidCr4(X86Vcpu vcpu, ulong cr4)
    {
        FunctionTrace.Leaf("svm_is_valid_cr4");
        return true;
    }

    [KernelFunction("svm_set_cr4", File = "arch/x86/kvm/svm/svm.c")]
    public void SetCr4(X86Vcpu vcpu, ulong cr4)
    {
        using var _ = FunctionTrace.Enter("svm_set_cr4");
        VcpuSvm svm = ToSvm(vcpu);
        ulong hostCr4Mce = ThisCpu.Cr4Shadow & X86_CR4_MCE;
        ulong oldCr4 = vcpu.Cr4;
        if (Params.Npt && ((oldCr4 ^ cr4) & X86_CR4_PGE) != 0)
            FlushTlbCurrent(vcpu);
        vcpu.Cr4 = cr4;
        if (!Params.Npt)
        {
            cr4 |= X86_CR4_PAE;
            if (!vcpu.IsPaging)
                cr4 &= ~(X86_CR4_SMEP | X86_CR4_SMAP | X86_CR4_PKE);
        }

        cr4 |= hostCr4Mce;
        svm.Vmcb->Save.Cr4 = cr4;
        MarkDirty(svm.Vmcb, VMCB_CR);
        if (((cr4 ^ oldCr4) & (X86_CR4_OSXSAVE | X86_CR4_PKE)) != 0)
            vcpu.UpdateCpuidRuntime();
    }

    private static void SetDr6(VcpuSvm svm, ulong value)
    {
        if (svm.Vmcb->Save.Dr6 == value)
            return;
        svm.Vmcb->Save.Dr6 = value;
        MarkDirty(svm.Vmcb, VMCB_DR);
    }

    [KernelFunction("svm_set_dr7", File = "arch/x86/kvm/svm/svm.c")]
    public void SetDr7(X86Vcpu vcpu, ulong value)
    {
        FunctionTrace.Leaf("svm_set_dr7");
        Vmcb* vmcb = ToSvm(vcpu).Vmcb;
        vmcb->Save.Dr7 = value;
        MarkDirty(vmcb, VMCB_DR);
    }

    /// <summary>The guest had its debug registers to itself: reads them back and intercepts accesses again.</summary>
    [KernelFunction("svm_sync_dirty_debug_regs", File = "arch/x86/kvm/svm/svm.c")]
    public void SyncDirtyDebugRegs(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("svm_sync_dirty_debug_regs");
        VcpuSvm svm = ToSvm(vcpu);
        HostX86Cpu cpu = ThisCpu;
        for (int i = 0; i < 4; i++)
            vcpu.Db[i] = cpu.GetDebugreg(i);
        // The VMCB's DR6 is left alone: the #DB handler may still need it.
        vcpu.Dr6 = svm.Vmcb->Save.Dr6;
        vcpu.Dr7 = svm.Vmcb->Save.Dr7;
        vcpu.SwitchDbRegs &= ~KVM_DEBUGREG_WONT_EXIT;
        SetDrIntercepts(svm);
    }
}
