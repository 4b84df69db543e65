using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>The queue of exceptions for the guest: one pending or injected at a time, merged to #DF or a triple fault as the manuals say.</remarks>
public partial class X86Vcpu
{
    private enum ExceptionClass
    {
        Benign,
        Contributory,
        PageFault,
    }

    /// <summary>EXCPT_FAULT … EXCPT_DB: how RFLAGS.RF and RIP are treated.</summary>
    private enum ExceptionType
    {
        Fault,
        Trap,
        Abort,
        Interrupt,
        Db,
    }

    private static ExceptionClass ClassOf(int vector) => vector switch
    {
        PF_VECTOR => ExceptionClass.PageFault,
        DE_VECTOR or TS_VECTOR or NP_VECTOR or SS_VECTOR or GP_VECTOR => ExceptionClass.Contributory,
        _ => ExceptionClass.Benign,
    };

    private static ExceptionType TypeOf(int vector) => vector switch
    {
        > 31 or 2 => ExceptionType.Interrupt,
        DB_VECTOR => ExceptionType.Db,
        BP_VECTOR or OF_VECTOR => ExceptionType.Trap,
        DF_VECTOR or MC_VECTOR => ExceptionType.Abort,
        _ => ExceptionType.Fault,
    };

    /// <summary>kvm_is_exception_pending.</summary>
    public bool IsExceptionPending => Exception.Pending || ExceptionVmexit.Pending || TestRequest(KVM_REQ_TRIPLE_FAULT);

    /// <summary>kvm_event_needs_reinjection: an exit interrupted the delivery of an event.</summary>
    public bool EventNeedsReinjection => Exception.Injected || Interrupt.Injected || NmiInjected;

    public void ClearExceptionQueue()
    {
        Exception.Pending = false;
        Exception.Injected = false;
        ExceptionVmexit.Pending = false;
    }

    public void QueueInterrupt(byte vector, bool soft)
    {
        Interrupt.Injected = true;
        Interrupt.Soft = soft;
        Interrupt.Nr = vector;
    }

    public void ClearInterruptQueue() => Interrupt.Injected = false;

    /// <summary>Moves the payload of #DB (into DR6) or #PF (into CR2) to where the guest reads it.</summary>
    [KernelFunction("kvm_deliver_exception_payload", File = "arch/x86/kvm/x86.c")]
    public void DeliverExceptionPayload(ref KvmQueuedException ex)
    {
        if (!ex.HasPayload)
            return;

        if (ex.Vector == DB_VECTOR)
        {
            // The payload has the format of the pending-debug-exceptions field: the bits that DR6 keeps active-low are active-high there.
            Dr6 &= ~DR_TRAP_BITS;
            Dr6 |= DR6_ACTIVE_LOW;
            Dr6 |= ex.Payload;
            Dr6 ^= ex.Payload & DR6_ACTIVE_LOW;

            // Bit 12 (enabled breakpoint) exists in that field only.
            Dr6 &= ~(1ul << 12);
        }
        else if (ex.Vector == PF_VECTOR)
        {
            Cr2 = ex.Payload;
        }

        ex.HasPayload = false;
        ex.Payload = 0;
    }

    private void QueueExceptionVmexit(byte vector, bool hasErrorCode, uint errorCode, bool hasPayload, ulong payload)
    {
        ExceptionVmexit = new KvmQueuedException
        {
            Vector = vector,
            Pending = true,
            HasErrorCode = hasErrorCode,
            ErrorCode = errorCode,
            HasPayload = hasPayload,
            Payload = payload,
        };
    }

    [KernelFunction("kvm_multiple_exception", File = "arch/x86/kvm/x86.c")]
    private void MultipleException(int nr, bool hasError, uint errorCode, bool hasPayload, ulong payload, bool reinject)
    {
        using var _ = FunctionTrace.Enter("kvm_multiple_exception");
        MakeRequest(KVM_REQ_EVENT);

        if (!reinject && IsGuestMode && Ops.NestedOps.IsExceptionVmexit(this, (byte)nr, errorCode))
        {
            QueueExceptionVmexit((byte)nr, hasError, errorCode, hasPayload, payload);
            return;
        }

        if (Exception.Pending || Exception.Injected)
        {
            int previous = Exception.Vector;
            if (previous == DF_VECTOR)
            {
                // A fault while delivering #DF: shutdown.
                MakeRequest(KVM_REQ_TRIPLE_FAULT);
                return;
            }

            ExceptionClass class1 = ClassOf(previous);
            ExceptionClass class2 = ClassOf(nr);
            if ((class1 == ExceptionClass.Contributory && class2 == ExceptionClass.Contributory)
                || (class1 == ExceptionClass.PageFault && class2 != ExceptionClass.Benign))
            {
                // Clear the first one, or queueing #DF would be seen as a fault on top of it.
                Exception.Injected = false;
                Exception.Pending = false;
                QueueExceptionE(DF_VECTOR, 0);
                return;
            }

            // Otherwise the new one replaces the old: executing the instruction again raises it anew.
        }

        if (reinject)
        {
            Exception.Injected = true;
            hasPayload = false;
            payload = 0;
        }
        else
        {
            Exception.Pending = true;
            Exception.Injected = false;
        }

        Exception.HasErrorCode = hasError;
        Exception.Vector = (byte)nr;
        Exception.ErrorCode = errorCode;
        Exception.HasPayload = hasPayload;
        Exception.Payload = payload;
        if (!IsGuestMode)
            DeliverExceptionPayload(ref Exception);
    }

    [KernelFunction("kvm_queue_exception", File = "arch/x86/kvm/x86.c")]
    public void QueueException(int nr) => MultipleException(nr, false, 0, false, 0, false);

    [KernelFunction("kvm_queue_exception_e", File = "arch/x86/kvm/x86.c")]
    public void QueueExceptionE(int nr, uint errorCode) => MultipleException(nr, true, errorCode, false, 0, false);

    /// <summary>Queues an exception with a payload: DR6 bits of #DB, CR2 of #PF.</summary>
    [KernelFunction("kvm_queue_exception_p", File = "arch/x86/kvm/x86.c")]
    public void QueueExceptionP(int nr, ulong payload) => MultipleException(nr, false, 0, true, payload, false);

    [KernelFunction("kvm_queue_exception_e_p", File = "arch/x86/kvm/x86.c")]
    public void QueueExceptionEP(int nr, uint errorCode, ulong payload) => MultipleException(nr, true, errorCode, true, payload, false);

    /// <summary>Puts back an exception whose delivery an exit interrupted.</summary>
    [KernelFunction("kvm_requeue_exception", File = "arch/x86/kvm/x86.c")]
    public void RequeueException(int nr) => MultipleException(nr, false, 0, false, 0, true);

    [KernelFunction("kvm_requeue_exception_e", File = "arch/x86/kvm/x86.c")]
    public void RequeueExceptionE(int nr, uint errorCode) => MultipleException(nr, true, errorCode, false, 0, true);

    /// <summary>kvm_inject_gp.</summary>
    public void InjectGp(uint errorCode) => QueueExceptionE(GP_VECTOR, errorCode);

    [KernelFunction("kvm_inject_page_fault", File = "arch/x86/kvm/x86.c")]
    public void InjectPageFault(in X86Exception fault)
    {
        Stat.PfGuest++;
        if (IsGuestMode && fault.AsyncPageFault != 0)
            QueueExceptionVmexit(PF_VECTOR, true, fault.ErrorCode, true, fault.Address);
        else
            QueueExceptionEP(PF_VECTOR, fault.ErrorCode, fault.Address);
    }

    [KernelFunction("kvm_inject_emulated_page_fault", File = "arch/x86/kvm/x86.c")]
    public void InjectEmulatedPageFault(in X86Exception fault)
    {
        // The processor may hold the very translation that faulted: as on hardware, the fault drops it.
        if ((fault.ErrorCode & PFERR_PRESENT_MASK) != 0 && (fault.ErrorCode & PFERR_RSVD_MASK) == 0)
            MmuInvalidateGva(fault.Address, Mmu.RootHpa);
        InjectPageFault(fault);
    }

    /// <summary>
    /// kvm_fixup_and_inject_pf_error: an intercepted #PF of a guest whose MAXPHYADDR is smaller than the processor's: the error code is looked up anew.
    /// </summary>
    [KernelFunction("kvm_fixup_and_inject_pf_error", File = "arch/x86/kvm/x86.c")]
    public void FixupAndInjectPfError(ulong gva, ushort errorCode)
    {
        ulong access = errorCode & (ulong)(PFERR_WRITE_MASK | PFERR_FETCH_MASK | PFERR_USER_MASK);
        X86Exception fault = default;
        if ((errorCode & PFERR_PRESENT_MASK) == 0 || GvaToGpa(gva, access, out fault) != INVALID_GPA)
            fault = new X86Exception { Vector = PF_VECTOR, ErrorCodeValid = true, ErrorCode = errorCode, Address = gva };
        InjectPageFault(fault);
    }

    /// <summary>inject_emulated_exception: queues what the emulator raised.</summary>
    public void InjectException(in X86Exception fault)
    {
        if (fault.Vector == PF_VECTOR)
            InjectEmulatedPageFault(fault);
        else if (fault.ErrorCodeValid)
            QueueExceptionE(fault.Vector, fault.ErrorCode);
        else
            QueueException(fault.Vector);
    }

    /// <summary>Any thread: an NMI for the guest.</summary>
    [KernelFunction("kvm_inject_nmi", File = "arch/x86/kvm/x86.c")]
    public void InjectNmi()
    {
        Interlocked.Increment(ref NmiQueued);
        MakeRequest(KVM_REQ_NMI);
    }

    /// <summary>Skips the instruction, or raises #GP when <paramref name="err"/>; an exit handler's result.</summary>
    [KernelFunction("kvm_complete_insn_gp", File = "arch/x86/kvm/x86.c")]
    public int CompleteInsnGp(int err)
    {
        using var _ = FunctionTrace.Enter("kvm_complete_insn_gp");
        if (err == 0)
            return SkipInstruction();
        InjectGp(0);
        return 1;
    }

    /// <summary>True if CPL &lt;= <paramref name="requiredCpl"/>; otherwise #GP is queued.</summary>
    [KernelFunction("kvm_require_cpl", File = "arch/x86/kvm/x86.c")]
    public bool RequireCpl(int requiredCpl)
    {
        if (Ops.GetCpl(this) <= requiredCpl)
            return true;
        QueueExceptionE(GP_VECTOR, 0);
        return false;
    }

    /// <summary>False and #UD queued when DR4 or DR5 is used with CR4.DE set.</summary>
    [KernelFunction("kvm_require_dr", File = "arch/x86/kvm/x86.c")]
    public bool RequireDr(int dr)
    {
        if ((dr != 4 && dr != 5) || ReadCr4Bits(X86_CR4_DE) == 0)
            return true;
        QueueException(UD_VECTOR);
        return false;
    }

    [KernelFunction("kvm_handle_invalid_op", File = "arch/x86/kvm/x86.c")]
    public int HandleInvalidOp()
    {
        QueueException(UD_VECTOR);
        return 1;
    }
}
