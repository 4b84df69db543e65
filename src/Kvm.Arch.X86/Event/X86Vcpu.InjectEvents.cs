using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>Event injection, in order of priority: what must be re-injected, exceptions, SMI, NMI, interrupts.</remarks>
public unsafe partial class X86Vcpu
{
    /// <summary>kvm_inject_exception: real mode delivers no error codes.</summary>
    private void InjectQueuedException()
    {
        Exception.HasErrorCode &= IsProtmode;
        if (Tracepoints.Enabled)
            EmitInjException();
        Ops.InjectException(this);
    }

    private void EmitInjException()
    {
        string code = Exception.HasErrorCode ? $" (0x{Exception.ErrorCode:x})" : "";
        Tracepoints.Emit("kvm_inj_exception", $"#{ExceptionName(Exception.Vector)}{code}{(Exception.Injected ? " [reinjected]" : "")}");
    }

    private static string ExceptionName(int vector) => vector switch
    {
        DE_VECTOR => "DE",
        DB_VECTOR => "DB",
        BP_VECTOR => "BP",
        OF_VECTOR => "OF",
        BR_VECTOR => "BR",
        UD_VECTOR => "UD",
        NM_VECTOR => "NM",
        DF_VECTOR => "DF",
        TS_VECTOR => "TS",
        NP_VECTOR => "NP",
        SS_VECTOR => "SS",
        GP_VECTOR => "GP",
        PF_VECTOR => "PF",
        MF_VECTOR => "MF",
        AC_VECTOR => "AC",
        MC_VECTOR => "MC",
        _ => vector.ToString(),
    };

    /// <summary>kvm_check_nested_events.</summary>
    private int CheckNestedEvents()
    {
        if (TestRequest(KVM_REQ_TRIPLE_FAULT))
        {
            Ops.NestedOps.TripleFault(this);
            return 1;
        }

        return Ops.NestedOps.CheckEvents(this);
    }

    /// <summary>
    /// Hands the event with the highest priority to the vendor; what cannot go now gets its window. 0, or -errno. <paramref name="reqImmediateExit"/>:
    /// enter and leave at once, because another event waits.
    /// </summary>
    [KernelFunction("kvm_check_and_inject_events", File = "arch/x86/kvm/x86.c")]
    private int CheckAndInjectEvents(ref bool reqImmediateExit)
    {
        using var _ = FunctionTrace.Enter("kvm_check_and_inject_events");
        int r = IsGuestMode ? CheckNestedEvents() : 0;

        // A pending exception came first: it happened while the injected event was delivered, or before userspace queued an interrupt.
        if (Exception.Injected)
            InjectQueuedException();
        else if (!IsExceptionPending)
        {
            if (NmiInjected)
                Ops.InjectNmi(this);
            else if (Interrupt.Injected)
                Ops.InjectIrq(this, true);
        }

        if (r < 0)
            return EventResult(r, ref reqImmediateExit);

        bool canInject = !EventNeedsReinjection;
        if (Exception.Pending)
        {
            InjectPendingException();
            canInject = false;
        }

        if ((GuestDebug & KVM_GUESTDBG_BLOCKIRQ) != 0)
            return 0;
        r = InjectSmiOrNmi(ref canInject);
        if (r < 0)
            return EventResult(r, ref reqImmediateExit);

        if (CpuHasInjectableIntr())
        {
            r = canInject ? Ops.InterruptAllowed(this, true) : -EBUSY;
            if (r < 0)
                return EventResult(r, ref reqImmediateExit);
            if (r != 0)
            {
                int irq = CpuGetInterrupt();
                if (irq != -1)
                {
                    QueueInterrupt((byte)irq, false);
                    Ops.InjectIrq(this, false);
                }
            }

            if (CpuHasInjectableIntr())
                Ops.EnableIrqWindow(this);
        }

        if (IsGuestMode && Ops.NestedOps.HasEvents(this, true))
            reqImmediateExit = true;
        return 0;
    }

    private static int EventResult(int r, ref bool reqImmediateExit)
    {
        if (r != -EBUSY)
            return r;
        reqImmediateExit = true;
        return 0;
    }

    private void InjectPendingException()
    {
        // Faults other than #DB push RFLAGS.RF = 1, so that the restarted instruction does not hit its breakpoint again.
        if (TypeOf(Exception.Vector) == ExceptionType.Fault)
            SetRflagsNoEvent(ReadRflags() | X86_EFLAGS_RF);
        if (Exception.Vector == DB_VECTOR)
        {
            DeliverExceptionPayload(ref Exception);
            if ((Dr7 & DR7_GD) != 0)
            {
                Dr7 &= ~DR7_GD;
                UpdateDr7();
            }
        }

        InjectQueuedException();
        Exception.Pending = false;
        Exception.Injected = true;
    }

    private int InjectSmiOrNmi(ref bool canInject)
    {
        int r;
        if (SmiPending)
        {
            r = canInject ? Ops.SmiAllowed(this, true) : -EBUSY;
            if (r < 0)
                return r;
            if (r != 0)
            {
                SmiPending = false;
                SmiCount++;
                EnterSmm();
                canInject = false;
            }
            else
            {
                Ops.EnableSmiWindow(this);
            }
        }

        if (NmiPending == 0)
            return 0;
        r = canInject ? Ops.NmiAllowed(this, true) : -EBUSY;
        if (r < 0)
            return r;
        if (r != 0)
        {
            NmiPending--;
            NmiInjected = true;
            Ops.InjectNmi(this);
            canInject = false;
        }

        if (NmiPending != 0)
            Ops.EnableNmiWindow(this);
        return 0;
    }

    /// <summary>Turns queued NMIs into pending ones: at most one running and one waiting.</summary>
    [KernelFunction("process_nmi", File = "arch/x86/kvm/x86.c")]
    private void ProcessNmi()
    {
        using var _ = FunctionTrace.Enter("process_nmi");

        // One NMI runs and one waits on hardware; while none runs, two can be taken.
        uint limit = Ops.GetNmiMask(this) || NmiInjected ? 1u : 2u;
        NmiPending += (uint)Interlocked.Exchange(ref NmiQueued, 0);
        NmiPending = Math.Min(NmiPending, limit);
        MakeRequest(KVM_REQ_EVENT);
    }

    [KernelFunction("process_smi", File = "arch/x86/kvm/x86.c")]
    private void ProcessSmi()
    {
        SmiPending = true;
        MakeRequest(KVM_REQ_EVENT);
    }
}
