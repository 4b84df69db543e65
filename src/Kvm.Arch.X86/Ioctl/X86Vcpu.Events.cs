using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>KVM_GET/SET_VCPU_EVENTS, DEBUGREGS, XCRS, KVM_INTERRUPT, guest debugging, MP state, TRANSLATE.</remarks>
public unsafe partial class X86Vcpu
{
    private static bool ExceptionIsSoft(int nr) => nr is BP_VECTOR or OF_VECTOR;

    [KernelFunction("kvm_vcpu_ioctl_x86_get_vcpu_events", File = "arch/x86/kvm/x86.c")]
    internal void GetVcpuEvents(ref kvm_vcpu_events events)
    {
        using var _ = FunctionTrace.Enter("kvm_vcpu_ioctl_x86_get_vcpu_events");
        ProcessNmi();
        if (CheckRequest(KVM_REQ_SMI))
            ProcessSmi();

        ref KvmQueuedException ex = ref Exception;
        if (ExceptionVmexit.Pending && !Exception.Pending && !Exception.Injected)
            ex = ref ExceptionVmexit;

        // Without the payload capability userspace cannot carry it over, so it is delivered now.
        if (!Vm.ExceptionPayloadEnabled && ex.Pending && ex.HasPayload)
            DeliverExceptionPayload(ref ex);

        // The instruction length of #BP and #OF is not part of the interface: running the instruction again raises them anew.
        bool soft = ExceptionIsSoft(ex.Vector);
        bool injected = !soft && (ex.Injected || (!Vm.ExceptionPayloadEnabled && ex.Pending));
        events.exception.injected = Bit(injected);
        events.exception.pending = Bit(!soft && ex.Pending);
        events.exception.nr = ex.Vector;
        events.exception.has_error_code = Bit(ex.HasErrorCode);
        events.exception.error_code = ex.ErrorCode;
        events.exception_has_payload = Bit(ex.HasPayload);
        events.exception_payload = ex.Payload;

        events.interrupt.injected = Bit(Interrupt.Injected && !Interrupt.Soft);
        events.interrupt.nr = Interrupt.Nr;
        events.interrupt.soft = 0;
        events.interrupt.shadow = (byte)Ops.GetInterruptShadow(this);

        events.nmi.injected = Bit(NmiInjected);
        events.nmi.pending = Bit(NmiPending != 0);
        events.nmi.masked = Bit(Ops.GetNmiMask(this));
        events.nmi.pad = 0;
        events.sipi_vector = 0;

        events.smi.smm = Bit(IsSmm);
        events.smi.pending = Bit(SmiPending);
        events.smi.smm_inside_nmi = Bit((Hflags & HF_SMM_INSIDE_NMI_MASK) != 0);
        events.smi.latched_init = Bit(Apic is { LatchedInit: true });

        events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM;
        if (Vm.ExceptionPayloadEnabled)
            events.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
        if (Vm.TripleFaultEvent)
        {
            events.triple_fault.pending = Bit(TestRequest(KVM_REQ_TRIPLE_FAULT));
            events.flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
        }

        events.reserved = default;
    }

    private static byte Bit(bool value) => value ? (byte)1 : (byte)0;

    /// <summary>-EINVAL for unknown flags, a capability that was not enabled, or an exception above 31 or NMI. The triple-fault flag is checked last.</summary>
    [KernelFunction("kvm_vcpu_ioctl_x86_set_vcpu_events", File = "arch/x86/kvm/x86.c")]
    internal int SetVcpuEvents(kvm_vcpu_events events)
    {
        const uint valid = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR | KVM_VCPUEVENT_VALID_SHADOW
            | KVM_VCPUEVENT_VALID_SMM | KVM_VCPUEVENT_VALID_PAYLOAD | KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
        if ((events.flags & ~valid) != 0)
            return -EINVAL;
        if ((events.flags & KVM_VCPUEVENT_VALID_PAYLOAD) != 0)
        {
            if (!Vm.ExceptionPayloadEnabled)
                return -EINVAL;
            if (events.exception.pending != 0)
                events.exception.injected = 0;
            else
                events.exception_has_payload = 0;
        }
        else
        {
            events.exception.pending = 0;
            events.exception_has_payload = 0;
        }

        if ((events.exception.injected != 0 || events.exception.pending != 0) && (events.exception.nr > 31 || events.exception.nr == 2))
            return -EINVAL;
        if ((events.flags & KVM_VCPUEVENT_VALID_SMM) != 0 && (events.smi.smm != 0 || events.smi.pending != 0) && MpState == KVM_MP_STATE_INIT_RECEIVED)
            return -EINVAL;

        ProcessNmi();
        ExceptionFromUserspace = events.exception.pending != 0;
        ExceptionVmexit.Pending = false;
        Exception.Injected = events.exception.injected != 0;
        Exception.Pending = events.exception.pending != 0;
        Exception.Vector = events.exception.nr;
        Exception.HasErrorCode = events.exception.has_error_code != 0;
        Exception.ErrorCode = events.exception.error_code;
        Exception.HasPayload = events.exception_has_payload != 0;
        Exception.Payload = events.exception_payload;

        Interrupt.Injected = events.interrupt.injected != 0;
        Interrupt.Nr = events.interrupt.nr;
        Interrupt.Soft = events.interrupt.soft != 0;
        if ((events.flags & KVM_VCPUEVENT_VALID_SHADOW) != 0)
            Ops.SetInterruptShadow(this, events.interrupt.shadow);

        NmiInjected = events.nmi.injected != 0;
        if ((events.flags & KVM_VCPUEVENT_VALID_NMI_PENDING) != 0)
            NmiPending = events.nmi.pending;
        Ops.SetNmiMask(this, events.nmi.masked != 0);

        if ((events.flags & KVM_VCPUEVENT_VALID_SIPI_VECTOR) != 0 && Apic is { } apic)
            apic.SipiVector = events.sipi_vector;
        if ((events.flags & KVM_VCPUEVENT_VALID_SMM) != 0)
            SetSmmEvents(events.smi);
        if ((events.flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT) != 0)
        {
            if (!Vm.TripleFaultEvent)
                return -EINVAL;
            if (events.triple_fault.pending != 0)
                MakeRequest(KVM_REQ_TRIPLE_FAULT);
            else
                ClearRequest(KVM_REQ_TRIPLE_FAULT);
        }

        MakeRequest(KVM_REQ_EVENT);
        return 0;
    }

    private void SetSmmEvents(in kvm_vcpu_events.smi_struct smi)
    {
        bool smm = smi.smm != 0;
        if (IsSmm != smm)
        {
            Ops.NestedOps.LeaveNested(this);
            SmmChanged(smm);
        }

        SmiPending = smi.pending != 0;
        if (smm && smi.smm_inside_nmi != 0)
            Hflags |= HF_SMM_INSIDE_NMI_MASK;
        else if (smm)
            Hflags &= ~HF_SMM_INSIDE_NMI_MASK;
        if (Apic is { } apic)
            apic.LatchedInit = smi.latched_init != 0;
    }

    internal kvm_debugregs GetDebugregs()
    {
        var regs = default(kvm_debugregs);
        for (int i = 0; i < 4; i++)
            regs.db[i] = Db[i];
        regs.dr6 = Dr6;
        regs.dr7 = Dr7;
        return regs;
    }

    internal KvmResult SetDebugregs(in kvm_debugregs regs)
    {
        if (regs.flags != 0 || regs.dr6 >> 32 != 0 || regs.dr7 >> 32 != 0)
            return -EINVAL;
        for (int i = 0; i < 4; i++)
            Db[i] = regs.db[i];
        UpdateDr0123();
        Dr6 = regs.dr6;
        Dr7 = regs.dr7;
        UpdateDr7();
        return 0;
    }

    internal kvm_xcrs GetXcrs()
    {
        var xcrs = default(kvm_xcrs);
        if (!Arch.HostX86.BootCpuHas(X86Feature.XSAVE))
            return xcrs;
        xcrs.nr_xcrs = 1;
        xcrs.xcrs[0].value = Xcr0;
        return xcrs;
    }

    internal KvmResult SetXcrs(in kvm_xcrs xcrs)
    {
        if (!Arch.HostX86.BootCpuHas(X86Feature.XSAVE))
            return -EINVAL;
        if (xcrs.nr_xcrs > KVM_MAX_XCRS || xcrs.flags != 0)
            return -EINVAL;
        for (int i = 0; i < xcrs.nr_xcrs; i++)
        {
            if (xcrs.xcrs[i].xcr == 0)
                return SetXcr(0, xcrs.xcrs[i].value) != 0 ? -EINVAL : 0;
        }

        return 0;
    }

    /// <summary>
    /// KVM_INTERRUPT: the vector waits for the next entry that may take it; a second one replaces the first. With the split controller it is the ExtINT of userspace's
    /// PIC: -EEXIST while one waits. -ENXIO with the PIC in the kernel.
    /// </summary>
    [KernelFunction("kvm_vcpu_ioctl_interrupt", File = "arch/x86/kvm/x86.c")]
    internal KvmResult IoctlInterrupt(uint irq)
    {
        if (irq >= KVM_NR_INTERRUPTS)
            return -EINVAL;
        if (!Vm.IrqchipInKernel)
        {
            QueueInterrupt((byte)irq, false);
            MakeRequest(KVM_REQ_EVENT);
            return 0;
        }

        if (Vm.PicInKernel)
            return -ENXIO;
        if (PendingExternalVector != -1)
            return -EEXIST;
        PendingExternalVector = (int)irq;
        MakeRequest(KVM_REQ_EVENT);
        return 0;
    }

    internal KvmResult SetTscOffsetAttr(ulong offset)
    {
        lock (Vm.TscWriteLock)
        {
            bool matched = VirtualTscKhz != 0 && Vm.LastTscKhz == VirtualTscKhz && Vm.LastTscOffset == offset;
            ulong tsc = Arch.ScaleTsc(Arch.HostX86.Rdtsc(), L1TscScalingRatio) + offset;
            SynchronizeTscLocked(offset, tsc, (ulong)Arch.KvmclockBaseNs(), matched);
        }

        return 0;
    }

    /// <summary>KVM_SET_GUEST_DEBUG: -EBUSY when an exception shall be injected while one is pending.</summary>
    internal KvmResult SetGuestDebug(in kvm_guest_debug dbg)
    {
        if ((dbg.control & (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP)) != 0)
        {
            if (IsExceptionPending)
                return -EBUSY;
            QueueException((dbg.control & KVM_GUESTDBG_INJECT_DB) != 0 ? DB_VECTOR : BP_VECTOR);
        }

        // Read while a trace flag that KVM added is still filtered out.
        ulong rflags = ReadRflags();
        GuestDebug = (dbg.control & KVM_GUESTDBG_ENABLE) != 0 ? dbg.control : 0;
        if ((GuestDebug & KVM_GUESTDBG_USE_HW_BP) != 0)
        {
            for (int i = 0; i < 4; i++)
                EffDb[i] = dbg.arch.debugreg[i];
            GuestDebugDr7 = dbg.arch.debugreg[7];
        }
        else
        {
            Db.CopyTo(EffDb, 0);
        }

        UpdateDr7();
        if ((GuestDebug & KVM_GUESTDBG_SINGLESTEP) != 0)
            SinglestepRip = GetLinearRip();
        SetRflags(rflags);
        Ops.UpdateExceptionBitmap(this);
        Vm.UpdateBlockIrqInhibit();
        return 0;
    }

    /// <summary>KVM_SET_MP_STATE: only RUNNABLE exists without an in-kernel local APIC; -EINVAL also for INIT and SIPI while they are blocked or an SMI waits.</summary>
    internal KvmResult SetMpState(uint state)
    {
        bool known = state is KVM_MP_STATE_UNINITIALIZED or KVM_MP_STATE_HALTED or KVM_MP_STATE_AP_RESET_HOLD or KVM_MP_STATE_INIT_RECEIVED
            or KVM_MP_STATE_SIPI_RECEIVED;
        if (state != KVM_MP_STATE_RUNNABLE && !(known && LapicInKernel))
            return -EINVAL;
        if (state is KVM_MP_STATE_SIPI_RECEIVED or KVM_MP_STATE_INIT_RECEIVED && (!InitSipiAllowed || SmiPending))
            return -EINVAL;
        if (state == KVM_MP_STATE_SIPI_RECEIVED)
        {
            MpState = KVM_MP_STATE_INIT_RECEIVED;
            Interlocked.Or(ref Apic!.PendingEvents, 1L << ApicConst.KVM_APIC_SIPI);
        }
        else
        {
            MpState = (int)state;
        }

        MakeRequest(KVM_REQ_EVENT);
        return 0;
    }
}
