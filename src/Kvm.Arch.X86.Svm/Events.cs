using Kvm.Core.Tracing;
using Kvm.Emulator.Svm;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.Svm.SvmConst;
using static Kvm.Arch.X86.Svm.SvmIntercept;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86.Svm;

/// <summary>Injection of exceptions, interrupts and NMIs; windows in which they can be injected; what an exit interrupted.</summary>
public sealed unsafe partial class KvmAmd
{
    private static bool ExceptionIsSoft(int vector) => vector is BP_VECTOR or OF_VECTOR;

    [KernelFunction("svm_get_interrupt_shadow", File = "arch/x86/kvm/svm/svm.c")]
    public uint GetInterruptShadow(X86Vcpu vcpu)
    {
        FunctionTrace.Leaf("svm_get_interrupt_shadow");
        return (ToSvm(vcpu).Vmcb->Control.IntState & SvmIntState.InterruptShadow) != 0
            ? (uint)(Abi.Uapi.KVM_X86_SHADOW_INT_STI | Abi.Uapi.KVM_X86_SHADOW_INT_MOV_SS) : 0;
    }

    [KernelFunction("svm_set_interrupt_shadow", File = "arch/x86/kvm/svm/svm.c")]
    public void SetInterruptShadow(X86Vcpu vcpu, uint mask)
    {
        Vmcb* vmcb = ToSvm(vcpu).Vmcb;
        vmcb->Control.IntState = mask == 0 ? vmcb->Control.IntState & ~SvmIntState.InterruptShadow : vmcb->Control.IntState | SvmIntState.InterruptShadow;
    }

    [KernelFunction("svm_skip_emulated_instruction", File = "arch/x86/kvm/svm/svm.c", Formerly = "skip_emulated_instruction")]
    public int SkipEmulatedInstruction(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("svm_skip_emulated_instruction");
        return SkipEmulatedInstruction(ToSvm(vcpu), EmulType.EMULTYPE_SKIP, commitSideEffects: true);
    }

    /// <summary>
    /// Advances RIP: by the VMCB's next RIP where the processor gives one, else by decoding. Side effects (interrupt shadow, RFLAGS.RF) are left out when
    /// the instruction is only measured. 1, or 0 when it can't be decoded.
    /// </summary>
    [KernelFunction("__svm_skip_emulated_instruction", File = "arch/x86/kvm/svm/svm.c")]
    private int SkipEmulatedInstruction(VcpuSvm svm, EmulType emulType, bool commitSideEffects)
    {
        using var _ = FunctionTrace.Enter("__svm_skip_emulated_instruction");
        if (Params.Nrips != 0 && svm.Vmcb->Control.NextRip != 0)
            svm.NextRip = svm.Vmcb->Control.NextRip;
        if (svm.NextRip == 0)
        {
            if (!CanEmulateInstruction(svm, EmulType.EMULTYPE_SKIP, default))
                return 0;
            ulong oldRflags = svm.Vmcb->Save.Rflags;
            if (svm.EmulateInstruction(emulType) == 0)
                return 0;
            if (!commitSideEffects)
                svm.Vmcb->Save.Rflags = oldRflags;
        }
        else
        {
            svm.Rip = svm.NextRip;
        }

        if (commitSideEffects)
            SetInterruptShadow(svm, 0);
        return 1;
    }

    /// <summary>
    /// Finds where a software interrupt or INT3/INTO returns to. With NRIP save the hardware takes it from the VMCB and RIP stays; otherwise RIP itself moves.
    /// What was injected is remembered, because the next exit clears the VMCB's copy.
    /// </summary>
    [KernelFunction("svm_update_soft_interrupt_rip", File = "arch/x86/kvm/svm/svm.c")]
    private int UpdateSoftInterruptRip(VcpuSvm svm)
    {
        ulong oldRip = svm.Rip;
        if (SkipEmulatedInstruction(svm, EmulType.EMULTYPE_SKIP, commitSideEffects: Params.Nrips == 0) == 0)
            return -EIO;
        ulong rip = svm.Rip;
        svm.SoftIntInjected = true;
        svm.SoftIntCsbase = svm.Vmcb->Save.Cs.Base;
        svm.SoftIntOldRip = oldRip;
        svm.SoftIntNextRip = rip;
        if (Params.Nrips != 0)
            svm.Rip = oldRip;
        if (BootCpuHas(X86Feature.NRIPS))
            svm.Vmcb->Control.NextRip = rip;
        return 0;
    }

    [KernelFunction("svm_inject_exception", File = "arch/x86/kvm/svm/svm.c", Formerly = "svm_queue_exception")]
    public void InjectException(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("svm_inject_exception");
        VcpuSvm svm = ToSvm(vcpu);
        ref KvmQueuedException ex = ref vcpu.Exception;
        vcpu.DeliverExceptionPayload(ref ex);
        if (ExceptionIsSoft(ex.Vector) && UpdateSoftInterruptRip(svm) != 0)
            return;
        svm.Vmcb->Control.EventInj = ex.Vector | SVM_EVTINJ_VALID | (ex.HasErrorCode ? SVM_EVTINJ_VALID_ERR : 0) | SVM_EVTINJ_TYPE_EXEPT;
        svm.Vmcb->Control.EventInjError = ex.ErrorCode;
    }

    [KernelFunction("svm_inject_nmi", File = "arch/x86/kvm/svm/svm.c")]
    public void InjectNmi(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("svm_inject_nmi");
        VcpuSvm svm = ToSvm(vcpu);
        svm.Vmcb->Control.EventInj = SVM_EVTINJ_VALID | SVM_EVTINJ_TYPE_NMI;
        // No NMI blocking in hardware: it lasts until the guest's IRET, which exits.
        vcpu.Hflags |= HF_NMI_MASK;
        SetIntercept(svm, INTERCEPT_IRET);
        vcpu.Stat.NmiInjections++;
    }

    [KernelFunction("svm_inject_irq", File = "arch/x86/kvm/svm/svm.c")]
    public void InjectIrq(X86Vcpu vcpu, bool reinjected)
    {
        using var _ = FunctionTrace.Enter("svm_inject_irq");
        VcpuSvm svm = ToSvm(vcpu);
        ref KvmQueuedInterrupt intr = ref vcpu.Interrupt;
        uint type = SVM_EVTINJ_TYPE_INTR;
        if (intr.Soft)
        {
            if (UpdateSoftInterruptRip(svm) != 0)
                return;
            type = SVM_EVTINJ_TYPE_SOFT;
        }

        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_inj_virq", $"{(intr.Soft ? "Soft/INTn" : "IRQ")} 0x{intr.Nr:x}{(reinjected ? " [reinjected]" : "")}");
        vcpu.Stat.IrqInjections++;
        svm.Vmcb->Control.EventInj = intr.Nr | SVM_EVTINJ_VALID | type;
    }

    /// <summary>An entry that was prepared does not happen: what it would have injected goes back to the queues.</summary>
    [KernelFunction("svm_cancel_injection", File = "arch/x86/kvm/svm/svm.c")]
    public void CancelInjection(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("svm_cancel_injection");
        VcpuSvm svm = ToSvm(vcpu);
        VmcbControlArea* control = &svm.Vmcb->Control;
        control->ExitIntInfo = control->EventInj;
        control->ExitIntInfoError = control->EventInjError;
        control->EventInj = 0;
        CompleteInterrupts(svm);
    }

    /// <summary>
    /// Requeues the event whose delivery the exit interrupted. An IRET that exited is over once RIP has moved: NMIs are possible again.
    /// </summary>
    [KernelFunction("svm_complete_interrupts", File = "arch/x86/kvm/svm/svm.c")]
    private void CompleteInterrupts(VcpuSvm svm)
    {
        using var _ = FunctionTrace.Enter("svm_complete_interrupts");
        uint info = svm.Vmcb->Control.ExitIntInfo;
        bool softIntInjected = svm.SoftIntInjected;
        svm.SoftIntInjected = false;
        if ((svm.Hflags & HF_IRET_MASK) != 0 && svm.Rip != svm.NmiIretRip)
        {
            svm.Hflags &= ~(HF_NMI_MASK | HF_IRET_MASK);
            svm.MakeRequest(X86Request.KVM_REQ_EVENT);
        }

        svm.NmiInjected = false;
        svm.ClearExceptionQueue();
        svm.ClearInterruptQueue();
        if ((info & SVM_EVTINJ_VALID) == 0)
            return;

        svm.MakeRequest(X86Request.KVM_REQ_EVENT);
        byte vector = (byte)info;
        uint type = info & SVM_EVTINJ_TYPE_MASK;
        if (softIntInjected)
            CompleteSoftInterrupt(svm, vector, type);
        switch (type)
        {
            case SVM_EVTINJ_TYPE_NMI:
                svm.NmiInjected = true;
                break;
            case SVM_EVTINJ_TYPE_EXEPT:
                const byte vcVector = 29;
                if (vector == vcVector)
                    break;
                if ((info & SVM_EVTINJ_VALID_ERR) != 0)
                    svm.RequeueExceptionE(vector, svm.Vmcb->Control.ExitIntInfoError);
                else
                    svm.RequeueException(vector);
                break;
            case SVM_EVTINJ_TYPE_INTR:
                svm.QueueInterrupt(vector, false);
                break;
            case SVM_EVTINJ_TYPE_SOFT:
                svm.QueueInterrupt(vector, true);
                break;
        }
    }

    /// <summary>A software event did not get through: restores the next RIP that the exit cleared, or takes back the step that was made without NRIP save.</summary>
    [KernelFunction("svm_complete_soft_interrupt", File = "arch/x86/kvm/svm/svm.c")]
    private void CompleteSoftInterrupt(VcpuSvm svm, byte vector, uint type)
    {
        bool isException = type == SVM_EVTINJ_TYPE_EXEPT, isSoft = type == SVM_EVTINJ_TYPE_SOFT;
        if (Params.Nrips != 0)
        {
            if ((isSoft || (isException && ExceptionIsSoft(vector))) && svm.IsLinearRip(svm.SoftIntOldRip + svm.SoftIntCsbase))
                svm.Vmcb->Control.NextRip = svm.SoftIntNextRip;
        }
        else if ((isSoft || isException) && svm.IsLinearRip(svm.SoftIntNextRip + svm.SoftIntCsbase))
        {
            svm.Rip = svm.SoftIntOldRip;
        }
    }

    [KernelFunction("svm_nmi_blocked", File = "arch/x86/kvm/svm/svm.c")]
    private bool NmiBlocked(VcpuSvm svm)
    {
        FunctionTrace.Leaf("svm_nmi_blocked");
        return !GifSet(svm) || (svm.Vmcb->Control.IntState & SvmIntState.InterruptShadow) != 0 || (svm.Hflags & HF_NMI_MASK) != 0;
    }

    [KernelFunction("svm_nmi_allowed", File = "arch/x86/kvm/svm/svm.c")]
    public int NmiAllowed(X86Vcpu vcpu, bool forInjection)
    {
        using var _ = FunctionTrace.Enter("svm_nmi_allowed");
        return NmiBlocked(ToSvm(vcpu)) ? 0 : 1;
    }

    [KernelFunction("svm_get_nmi_mask", File = "arch/x86/kvm/svm/svm.c")]
    public bool GetNmiMask(X86Vcpu vcpu)
    {
        FunctionTrace.Leaf("svm_get_nmi_mask");
        return (vcpu.Hflags & HF_NMI_MASK) != 0;
    }

    [KernelFunction("svm_set_nmi_mask", File = "arch/x86/kvm/svm/svm.c")]
    public void SetNmiMask(X86Vcpu vcpu, bool masked)
    {
        using var _ = FunctionTrace.Enter("svm_set_nmi_mask");
        if (masked)
        {
            vcpu.Hflags |= HF_NMI_MASK;
            SetIntercept(ToSvm(vcpu), INTERCEPT_IRET);
        }
        else
        {
            vcpu.Hflags &= ~HF_NMI_MASK;
            ClrIntercept(ToSvm(vcpu), INTERCEPT_IRET);
        }
    }

    [KernelFunction("svm_interrupt_blocked", File = "arch/x86/kvm/svm/svm.c")]
    private bool InterruptBlocked(VcpuSvm svm)
    {
        using var _ = FunctionTrace.Enter("svm_interrupt_blocked");
        if (!GifSet(svm))
            return true;
        if ((svm.GetRflags() & X86_EFLAGS_IF) == 0)
            return true;
        return (svm.Vmcb->Control.IntState & SvmIntState.InterruptShadow) != 0;
    }

    [KernelFunction("svm_interrupt_allowed", File = "arch/x86/kvm/svm/svm.c")]
    public int InterruptAllowed(X86Vcpu vcpu, bool forInjection)
    {
        using var _ = FunctionTrace.Enter("svm_interrupt_allowed");
        return InterruptBlocked(ToSvm(vcpu)) ? 0 : 1;
    }

    /// <summary>A dummy virtual interrupt of the highest priority, intercepted: it exits as soon as the guest could take an interrupt.</summary>
    [KernelFunction("svm_set_vintr", File = "arch/x86/kvm/svm/svm.c")]
    private static void SetVintr(VcpuSvm svm)
    {
        SetIntercept(svm, INTERCEPT_VINTR);
        VmcbControlArea* control = &svm.Vmcb->Control;
        control->IntVector = 0;
        uint ctl = (uint)control->IntControl & ~V_INTR_PRIO_MASK;
        control->IntControl = (SvmIntControl)(ctl | V_IRQ_MASK | (0xfu << V_INTR_PRIO_SHIFT));
        MarkDirty(svm.Vmcb, VMCB_INTR);
    }

    [KernelFunction("svm_clear_vintr", File = "arch/x86/kvm/svm/svm.c")]
    private static void ClearVintr(VcpuSvm svm)
    {
        using var _ = FunctionTrace.Enter("svm_clear_vintr");
        ClrIntercept(svm, INTERCEPT_VINTR);
        svm.Vmcb->Control.IntControl &= (SvmIntControl)~V_IRQ_INJECTION_BITS_MASK;
        MarkDirty(svm.Vmcb, VMCB_INTR);
    }

    /// <summary>With virtual GIF the window waits for GIF too; without it STGI exits and this is asked again.</summary>
    [KernelFunction("svm_enable_irq_window", File = "arch/x86/kvm/svm/svm.c", Formerly = "enable_irq_window")]
    public void EnableIrqWindow(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("svm_enable_irq_window");
        VcpuSvm svm = ToSvm(vcpu);
        if (Params.Vgif != 0 || GifSet(svm))
            SetVintr(svm);
    }

    /// <summary>An NMI waits: for the IRET of the one in progress, for STGI, or for one single step past whatever else blocks it.</summary>
    [KernelFunction("svm_enable_nmi_window", File = "arch/x86/kvm/svm/svm.c", Formerly = "enable_nmi_window")]
    public void EnableNmiWindow(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("svm_enable_nmi_window");
        VcpuSvm svm = ToSvm(vcpu);
        if ((vcpu.Hflags & (HF_NMI_MASK | HF_IRET_MASK)) == HF_NMI_MASK)
            return;
        if (!GifSet(svm))
        {
            if (Params.Vgif != 0)
                SetIntercept(svm, INTERCEPT_STGI);
            return;
        }

        svm.NmiSinglestepGuestRflags = GetRflags(vcpu);
        svm.NmiSinglestep = true;
        svm.Vmcb->Save.Rflags |= X86_EFLAGS_TF | X86_EFLAGS_RF;
    }

    [KernelFunction("disable_nmi_singlestep", File = "arch/x86/kvm/svm/svm.c")]
    private static void DisableNmiSinglestep(VcpuSvm svm)
    {
        svm.NmiSinglestep = false;
        if ((svm.GuestDebug & Abi.Uapi.KVM_GUESTDBG_SINGLESTEP) != 0)
            return;
        if ((svm.NmiSinglestepGuestRflags & X86_EFLAGS_TF) == 0)
            svm.Vmcb->Save.Rflags &= ~X86_EFLAGS_TF;
        if ((svm.NmiSinglestepGuestRflags & X86_EFLAGS_RF) == 0)
            svm.Vmcb->Save.Rflags &= ~X86_EFLAGS_RF;
    }

    /// <summary>CR8 writes exit only while lowering it could release a pending interrupt.</summary>
    [KernelFunction("svm_update_cr8_intercept", File = "arch/x86/kvm/svm/svm.c", Formerly = "update_cr8_intercept")]
    public void UpdateCr8Intercept(X86Vcpu vcpu, int tpr, int irr)
    {
        using var _ = FunctionTrace.Enter("svm_update_cr8_intercept");
        VcpuSvm svm = ToSvm(vcpu);
        ClrIntercept(svm, INTERCEPT_CR8_WRITE);
        if (irr != -1 && tpr >= irr)
            SetIntercept(svm, INTERCEPT_CR8_WRITE);
    }

    [KernelFunction("svm_apic_init_signal_blocked", File = "arch/x86/kvm/svm/svm.c")]
    public bool ApicInitSignalBlocked(X86Vcpu vcpu) => !GifSet(ToSvm(vcpu));

    [KernelFunction("svm_vcpu_deliver_sipi_vector", File = "arch/x86/kvm/svm/svm.c")]
    public void VcpuDeliverSipiVector(X86Vcpu vcpu, byte vector)
    {
        GetSegment(vcpu, out Abi.kvm_segment cs, VcpuSreg.VCPU_SREG_CS);
        cs.selector = (ushort)(vector << 8);
        cs.@base = (ulong)vector << 12;
        SetSegment(vcpu, in cs, VcpuSreg.VCPU_SREG_CS);
        vcpu.Rip = 0;
    }

    [KernelFunction("svm_smi_allowed", File = "arch/x86/kvm/svm/svm.c")]
    public int SmiAllowed(X86Vcpu vcpu, bool forInjection) => !GifSet(ToSvm(vcpu)) || vcpu.IsSmm ? 0 : 1;

    [KernelFunction("svm_enter_smm", File = "arch/x86/kvm/svm/svm.c")]
    public int EnterSmm(X86Vcpu vcpu, Span<byte> smstate) => 0;

    /// <summary>Only a state that was saved in nested operation has anything vendor-specific; such a state can't be resumed here.</summary>
    [KernelFunction("svm_leave_smm", File = "arch/x86/kvm/svm/svm.c")]
    public int LeaveSmm(X86Vcpu vcpu, ReadOnlySpan<byte> smstate)
    {
        const int guestFlag = 0x7ed8 - 0x7e00;
        if (!vcpu.GuestCpuidHas(X86Feature.LM))
            return 0;
        return System.Buffers.Binary.BinaryPrimitives.ReadUInt64LittleEndian(smstate[guestFlag..]) == 0 ? 0 : 1;
    }

    [KernelFunction("svm_enable_smi_window", File = "arch/x86/kvm/svm/svm.c")]
    public void EnableSmiWindow(X86Vcpu vcpu)
    {
        VcpuSvm svm = ToSvm(vcpu);
        if (!GifSet(svm) && Params.Vgif != 0)
            SetIntercept(svm, INTERCEPT_STGI);
    }

    [KernelFunction("svm_setup_mce", File = "arch/x86/kvm/svm/svm.c")]
    public void SetupMce(X86Vcpu vcpu) => vcpu.McgCap &= 0x1ff;

    [KernelFunction("svm_can_emulate_instruction", File = "arch/x86/kvm/svm/svm.c")]
    public bool CanEmulateInstruction(X86Vcpu vcpu, EmulType emulType, ReadOnlySpan<byte> insn)
    {
        FunctionTrace.Leaf("svm_can_emulate_instruction");
        return true;
    }

    [KernelFunction("svm_patch_hypercall", File = "arch/x86/kvm/svm/svm.c")]
    public void PatchHypercall(X86Vcpu vcpu, Span<byte> hypercall)
    {
        FunctionTrace.Leaf("svm_patch_hypercall");
        hypercall[0] = 0x0f;
        hypercall[1] = 0x01;
        hypercall[2] = 0xd9;
    }

    [KernelFunction("svm_has_wbinvd_exit", File = "arch/x86/kvm/svm/svm.c")]
    public bool HasWbinvdExit() => true;

    /// <summary>Without AVIC: a request and a kick.</summary>
    [KernelFunction("svm_deliver_interrupt", File = "arch/x86/kvm/svm/svm.c")]
    [KernelFunction("svm_complete_interrupt_delivery", File = "arch/x86/kvm/svm/svm.c")]
    public void DeliverInterrupt(X86Vcpu vcpu, int deliveryMode, uint trigMode, int vector)
    {
        using var _ = FunctionTrace.Enter("svm_deliver_interrupt");
        vcpu.Apic!.SetIrr(vector);
        using var complete = FunctionTrace.Enter("svm_complete_interrupt_delivery");
        vcpu.MakeRequest(X86Request.KVM_REQ_EVENT);
        vcpu.Kick();
    }

    public bool CheckApicvInhibitReasons(ApicvInhibit reason) => true;

    public void RefreshApicvExecCtrl(X86Vcpu vcpu)
    {
    }

    public bool X2apicIcrIsSplit => true;
}
