using Kvm.Abi;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using Kvm.Emulator.Vmx;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Vmx.VmxControls;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx;

/// <summary>Events into the guest: exceptions, interrupts, NMIs, the windows that wait for them, and what a VM exit interrupted.</summary>
public sealed unsafe partial class KvmIntel
{
    private const int ebusy = -(int)Errno.EBUSY;

    [KernelFunction("vmx_update_exception_bitmap", File = "arch/x86/kvm/vmx/vmx.c")]
    public void UpdateExceptionBitmap(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_update_exception_bitmap");
        VcpuVmx vmx = ToVmx(vcpu);
        uint eb = 1u << PF_VECTOR | 1u << UD_VECTOR | 1u << MC_VECTOR | 1u << DB_VECTOR | 1u << AC_VECTOR;
        if (arch.Params.EnableVmwareBackdoor)
            eb |= 1u << GP_VECTOR;
        if ((vcpu.GuestDebug & (KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP)) == (KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP))
            eb |= 1u << BP_VECTOR;
        if (vmx.Rmode.Vm86Active)
            eb = uint.MaxValue;
        if (!NeedPfIntercept(vmx))
            eb &= ~(1u << PF_VECTOR);

        uint mask = 0, match = 0;
        if (EnableEpt && (eb & 1u << PF_VECTOR) != 0)
        {
            // With EPT #PF is wanted only for addresses the guest's smaller MAXPHYADDR forbids: present and not reserved.
            mask = PFERR_PRESENT_MASK | PFERR_RSVD_MASK;
            match = PFERR_PRESENT_MASK;
        }
        vmx.Write32(PAGE_FAULT_ERROR_CODE_MASK, mask);
        vmx.Write32(PAGE_FAULT_ERROR_CODE_MATCH, match);
        if (vmx.XfdNoWriteIntercept)
            eb |= 1u << NM_VECTOR;
        vmx.Write32(EXCEPTION_BITMAP, eb);
    }

    [KernelFunction("vmx_need_pf_intercept", File = "arch/x86/kvm/vmx/vmx.h")]
    private bool NeedPfIntercept(VcpuVmx vmx) => !EnableEpt || (AllowSmallerMaxphyaddr && vmx.Maxphyaddr < BootCpuPhysBits);

    [KernelFunction("vmx_get_interrupt_shadow", File = "arch/x86/kvm/vmx/vmx.c")]
    public uint GetInterruptShadow(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_get_interrupt_shadow");
        uint interruptibility = ToVmx(vcpu).Read32(GUEST_INTERRUPTIBILITY_INFO);
        uint shadow = 0;
        if ((interruptibility & GUEST_INTR_STATE_STI) != 0)
            shadow |= KVM_X86_SHADOW_INT_STI;
        if ((interruptibility & GUEST_INTR_STATE_MOV_SS) != 0)
            shadow |= KVM_X86_SHADOW_INT_MOV_SS;
        return shadow;
    }

    [KernelFunction("vmx_set_interrupt_shadow", File = "arch/x86/kvm/vmx/vmx.c")]
    public void SetInterruptShadow(X86Vcpu vcpu, uint mask)
    {
        using var _ = FunctionTrace.Enter("vmx_set_interrupt_shadow");
        VcpuVmx vmx = ToVmx(vcpu);
        uint old = vmx.Read32(GUEST_INTERRUPTIBILITY_INFO);
        uint interruptibility = old & ~(GUEST_INTR_STATE_STI | GUEST_INTR_STATE_MOV_SS);
        if ((mask & KVM_X86_SHADOW_INT_MOV_SS) != 0)
            interruptibility |= GUEST_INTR_STATE_MOV_SS;
        else if ((mask & KVM_X86_SHADOW_INT_STI) != 0)
            interruptibility |= GUEST_INTR_STATE_STI;
        if (interruptibility != old)
            vmx.Write32(GUEST_INTERRUPTIBILITY_INFO, interruptibility);
    }

    /// <summary>A guest that may HLT without exiting and sits in HLT is woken by an injected event: RIP is already past the instruction.</summary>
    [KernelFunction("vmx_clear_hlt", File = "arch/x86/kvm/vmx/vmx.c")]
    private static void ClearHlt(VcpuVmx vmx)
    {
        if (vmx.Vm.HltInGuest && vmx.Read32(GUEST_ACTIVITY_STATE) == GUEST_ACTIVITY_HLT)
            vmx.Write32(GUEST_ACTIVITY_STATE, GUEST_ACTIVITY_ACTIVE);
    }

    [KernelFunction("vmx_inject_exception", File = "arch/x86/kvm/vmx/vmx.c", Formerly = "vmx_queue_exception")]
    public void InjectException(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_inject_exception");
        VcpuVmx vmx = ToVmx(vcpu);
        ref KvmQueuedException ex = ref vcpu.Exception;
        uint intrInfo = ex.Vector | INTR_INFO_VALID_MASK;
        // VM entry insists on a pending single-step trap when TF is set under an interrupt shadow, and does not see that one is being injected.
        if (ex.Vector == DB_VECTOR && (GetRflags(vcpu) & Flags.TF) != 0 && GetInterruptShadow(vcpu) != 0)
            vmx.Writel(GUEST_PENDING_DBG_EXCEPTIONS, vmx.Readl(GUEST_PENDING_DBG_EXCEPTIONS) | DR6_BS);

        vcpu.DeliverExceptionPayload(ref ex);
        if (ex.HasErrorCode)
        {
            // Intel processors do not deliver bits 31:16; userspace may have put some there.
            vmx.Write32(VM_ENTRY_EXCEPTION_ERROR_CODE, (ushort)ex.ErrorCode);
            intrInfo |= INTR_INFO_DELIVER_CODE_MASK;
        }
        bool soft = ex.Vector is BP_VECTOR or OF_VECTOR;
        if (vmx.Rmode.Vm86Active)
        {
            InjectRealmodeInterrupt(vmx, ex.Vector, soft ? vcpu.EventExitInstLen : 0);
            return;
        }
        WarnOnOnce(vmx.EmulationRequired);
        if (soft)
        {
            vmx.Write32(VM_ENTRY_INSTRUCTION_LEN, vcpu.EventExitInstLen);
            intrInfo |= INTR_TYPE_SOFT_EXCEPTION;
        }
        else
        {
            intrInfo |= INTR_TYPE_HARD_EXCEPTION;
        }
        vmx.Write32(VM_ENTRY_INTR_INFO_FIELD, intrInfo);
        ClearHlt(vmx);
    }

    [KernelFunction("vmx_inject_irq", File = "arch/x86/kvm/vmx/vmx.c")]
    public void InjectIrq(X86Vcpu vcpu, bool reinjected)
    {
        using var _ = FunctionTrace.Enter("vmx_inject_irq");
        VcpuVmx vmx = ToVmx(vcpu);
        byte irq = vcpu.Interrupt.Nr;
        bool soft = vcpu.Interrupt.Soft;
        TraceInjVirq(vcpu, irq, soft, reinjected);
        vcpu.Stat.IrqInjections++;
        if (vmx.Rmode.Vm86Active)
        {
            InjectRealmodeInterrupt(vmx, irq, soft ? vcpu.EventExitInstLen : 0);
            return;
        }
        uint intr = irq | INTR_INFO_VALID_MASK;
        if (soft)
        {
            intr |= INTR_TYPE_SOFT_INTR;
            vmx.Write32(VM_ENTRY_INSTRUCTION_LEN, vcpu.EventExitInstLen);
        }
        else
        {
            intr |= INTR_TYPE_EXT_INTR;
        }
        vmx.Write32(VM_ENTRY_INTR_INFO_FIELD, intr);
        ClearHlt(vmx);
    }

    [KernelFunction("vmx_inject_nmi", File = "arch/x86/kvm/vmx/vmx.c")]
    public void InjectNmi(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_inject_nmi");
        VcpuVmx vmx = ToVmx(vcpu);
        if (!EnableVnmi)
        {
            // Without virtual NMIs the end of the handler can't be seen: the next open interrupt window stands in for it.
            vmx.LoadedVmcs.SoftVnmiBlocked = true;
            vmx.LoadedVmcs.VnmiBlockedTime = 0;
        }
        vcpu.Stat.NmiInjections++;
        vmx.LoadedVmcs.NmiKnownUnmasked = false;
        if (vmx.Rmode.Vm86Active)
        {
            InjectRealmodeInterrupt(vmx, NMI_VECTOR, 0);
            return;
        }
        vmx.Write32(VM_ENTRY_INTR_INFO_FIELD, INTR_TYPE_NMI_INTR | INTR_INFO_VALID_MASK | NMI_VECTOR);
        ClearHlt(vmx);
    }

    [KernelFunction("vmx_enable_irq_window", File = "arch/x86/kvm/vmx/vmx.c")]
    public void EnableIrqWindow(X86Vcpu vcpu) => ToVmx(vcpu).ExecControlsSetbit(CPU_BASED_INTR_WINDOW_EXITING);

    [KernelFunction("vmx_enable_nmi_window", File = "arch/x86/kvm/vmx/vmx.c")]
    public void EnableNmiWindow(X86Vcpu vcpu)
    {
        VcpuVmx vmx = ToVmx(vcpu);
        if (!EnableVnmi || (vmx.Read32(GUEST_INTERRUPTIBILITY_INFO) & GUEST_INTR_STATE_STI) != 0)
        {
            EnableIrqWindow(vcpu);
            return;
        }
        vmx.ExecControlsSetbit(CPU_BASED_NMI_WINDOW_EXITING);
    }

    [KernelFunction("vmx_get_nmi_mask", File = "arch/x86/kvm/vmx/vmx.c")]
    public bool GetNmiMask(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_get_nmi_mask");
        VcpuVmx vmx = ToVmx(vcpu);
        if (!EnableVnmi)
            return vmx.LoadedVmcs.SoftVnmiBlocked;
        if (vmx.LoadedVmcs.NmiKnownUnmasked)
            return false;
        bool masked = (vmx.Read32(GUEST_INTERRUPTIBILITY_INFO) & GUEST_INTR_STATE_NMI) != 0;
        vmx.LoadedVmcs.NmiKnownUnmasked = !masked;
        return masked;
    }

    [KernelFunction("vmx_set_nmi_mask", File = "arch/x86/kvm/vmx/vmx.c")]
    public void SetNmiMask(X86Vcpu vcpu, bool masked)
    {
        using var _ = FunctionTrace.Enter("vmx_set_nmi_mask");
        VcpuVmx vmx = ToVmx(vcpu);
        if (!EnableVnmi)
        {
            if (vmx.LoadedVmcs.SoftVnmiBlocked != masked)
            {
                vmx.LoadedVmcs.SoftVnmiBlocked = masked;
                vmx.LoadedVmcs.VnmiBlockedTime = 0;
            }
            return;
        }
        vmx.LoadedVmcs.NmiKnownUnmasked = !masked;
        if (masked)
            vmx.SetBits(GUEST_INTERRUPTIBILITY_INFO, GUEST_INTR_STATE_NMI);
        else
            vmx.ClearBits(GUEST_INTERRUPTIBILITY_INFO, GUEST_INTR_STATE_NMI);
    }

    [KernelFunction("vmx_nmi_blocked", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool NmiBlocked(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("vmx_nmi_blocked");
        if (!EnableVnmi && vmx.LoadedVmcs.SoftVnmiBlocked)
            return true;
        return (vmx.Read32(GUEST_INTERRUPTIBILITY_INFO) & (GUEST_INTR_STATE_MOV_SS | GUEST_INTR_STATE_STI | GUEST_INTR_STATE_NMI)) != 0;
    }

    [KernelFunction("vmx_nmi_allowed", File = "arch/x86/kvm/vmx/vmx.c")]
    public int NmiAllowed(X86Vcpu vcpu, bool forInjection)
    {
        using var _ = FunctionTrace.Enter("vmx_nmi_allowed");
        return NmiBlocked(ToVmx(vcpu)) ? 0 : 1;
    }

    [KernelFunction("__vmx_interrupt_blocked", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool InterruptBlocked(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("__vmx_interrupt_blocked");
        return (GetRflags(vmx) & Flags.IF) == 0 ||
            (vmx.Read32(GUEST_INTERRUPTIBILITY_INFO) & (GUEST_INTR_STATE_STI | GUEST_INTR_STATE_MOV_SS)) != 0;
    }

    [KernelFunction("vmx_interrupt_allowed", File = "arch/x86/kvm/vmx/vmx.c")]
    public int InterruptAllowed(X86Vcpu vcpu, bool forInjection)
    {
        using var _ = FunctionTrace.Enter("vmx_interrupt_allowed");
        return InterruptBlocked(ToVmx(vcpu)) ? 0 : 1;
    }

    /// <summary>NMIs are blocked again when the exit came from a faulting IRET (or hardware can't tell), else it is remembered that they are not.</summary>
    [KernelFunction("vmx_recover_nmi_blocking", File = "arch/x86/kvm/vmx/vmx.c")]
    private void RecoverNmiBlocking(VcpuVmx vmx)
    {
        bool vectoring = (vmx.IdtVectoringInfo & VECTORING_INFO_VALID_MASK) != 0;
        if (EnableVnmi)
        {
            if (vmx.LoadedVmcs.NmiKnownUnmasked)
                return;
            uint info = GetIntrInfo(vmx);
            bool unblock = (info & INTR_INFO_UNBLOCK_NMI) != 0;
            if ((info & INTR_INFO_VALID_MASK) != 0 && unblock && (byte)info != DF_VECTOR && !vectoring)
                vmx.SetBits(GUEST_INTERRUPTIBILITY_INFO, GUEST_INTR_STATE_NMI);
            else
                vmx.LoadedVmcs.NmiKnownUnmasked = (vmx.Read32(GUEST_INTERRUPTIBILITY_INFO) & GUEST_INTR_STATE_NMI) == 0;
        }
        else if (vmx.LoadedVmcs.SoftVnmiBlocked)
        {
            vmx.LoadedVmcs.VnmiBlockedTime += KtimeGet() - vmx.LoadedVmcs.EntryTime;
        }
    }

    /// <summary>Takes back an event whose delivery a VM exit interrupted (or that was never entered with), to be injected again.</summary>
    [KernelFunction("__vmx_complete_interrupts", File = "arch/x86/kvm/vmx/vmx.c")]
    private void CompleteInterrupts(VcpuVmx vmx, uint info, VmcsField instructionLength, VmcsField errorCode)
    {
        using var _ = FunctionTrace.Enter("__vmx_complete_interrupts");
        vmx.NmiInjected = false;
        vmx.ClearExceptionQueue();
        vmx.ClearInterruptQueue();
        if ((info & VECTORING_INFO_VALID_MASK) == 0)
            return;
        vmx.MakeRequest(KVM_REQ_EVENT);
        byte vector = (byte)info;
        uint type = info & VECTORING_INFO_TYPE_MASK;
        switch (type)
        {
            case INTR_TYPE_NMI_INTR:
                vmx.NmiInjected = true;
                // The NMI was not delivered, so it does not block others.
                SetNmiMask(vmx, false);
                break;
            case INTR_TYPE_SOFT_EXCEPTION:
            case INTR_TYPE_HARD_EXCEPTION:
                if (type == INTR_TYPE_SOFT_EXCEPTION)
                    vmx.EventExitInstLen = (byte)vmx.Read32(instructionLength);
                if ((info & VECTORING_INFO_DELIVER_CODE_MASK) != 0)
                    vmx.RequeueExceptionE(vector, vmx.Read32(errorCode));
                else
                    vmx.RequeueException(vector);
                break;
            case INTR_TYPE_SOFT_INTR:
            case INTR_TYPE_EXT_INTR:
                if (type == INTR_TYPE_SOFT_INTR)
                    vmx.EventExitInstLen = (byte)vmx.Read32(instructionLength);
                vmx.QueueInterrupt(vector, type == INTR_TYPE_SOFT_INTR);
                break;
        }
    }

    [KernelFunction("vmx_cancel_injection", File = "arch/x86/kvm/vmx/vmx.c")]
    public void CancelInjection(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_cancel_injection");
        VcpuVmx vmx = ToVmx(vcpu);
        CompleteInterrupts(vmx, vmx.Read32(VM_ENTRY_INTR_INFO_FIELD), VM_ENTRY_INSTRUCTION_LEN, VM_ENTRY_EXCEPTION_ERROR_CODE);
        vmx.Write32(VM_ENTRY_INTR_INFO_FIELD, 0);
    }

    [KernelFunction("vmx_smi_allowed", File = "arch/x86/kvm/vmx/vmx.c")]
    public int SmiAllowed(X86Vcpu vcpu, bool forInjection) => vcpu.IsSmm ? 0 : 1;

    [KernelFunction("vmx_apic_init_signal_blocked", File = "arch/x86/kvm/vmx/vmx.c")]
    public bool ApicInitSignalBlocked(X86Vcpu vcpu) => false;
}
