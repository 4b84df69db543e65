using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Request;
using static Kvm.Core.KvmRequest;

namespace Kvm.Arch.X86;

/// <remarks>KVM_RUN: the loop around guest entries.</remarks>
public unsafe partial class X86Vcpu
{
    /// <summary>How far below its top the kernel stack of this KVM_RUN begins: 64 places in turn.</summary>
    /// <remarks>add_random_kstack_offset; DIVERGES: D-VMX-2, a fixed order instead of random numbers.</remarks>
    public uint KstackOffset { get; private set; }

    /// <summary>kvm_arch_vcpu_ioctl_run: 0 with an exit reason in kvm_run, or -errno.</summary>
    [KernelFunction("kvm_arch_vcpu_ioctl_run", File = "arch/x86/kvm/x86.c")]
    internal KvmResult IoctlRun()
    {
        using var _ = FunctionTrace.Enter("kvm_arch_vcpu_ioctl_run");
        KstackOffset = (KstackOffset + 0x130) & 0x3f0;
        HostTask task = HostTask.Current;
        Load(task);
        SigsetActivate();
        Run->flags = 0;
        SwapFpstate(enterGuest: true);
        SrcuReadLock(task);

        int r = RunLoaded(task);

        using (FunctionTrace.Enter("kvm_put_guest_fpu"))
        {
            SwapFpstate(enterGuest: false);
            Stat.FpuReload++;
        }

        if (Run->kvm_valid_regs != 0)
            StoreRegs();
        PostKvmRunSave();
        SrcuReadUnlock(task);
        SigsetDeactivate();
        Put(task);
        return r;
    }

    private int RunLoaded(HostTask task)
    {
        if (MpState == KVM_MP_STATE_UNINITIALIZED)
            return RunUninitialized();
        if ((Run->kvm_valid_regs & ~(ulong)KVM_SYNC_X86_VALID_FIELDS) != 0 || (Run->kvm_dirty_regs & ~(ulong)KVM_SYNC_X86_VALID_FIELDS) != 0)
            return -EINVAL;
        if (Run->kvm_dirty_regs != 0)
        {
            int sync = SyncRegs();
            if (sync != 0)
                return sync;
        }

        // When userspace has the local APIC its TPR comes with every entry.
        if (!LapicInKernel)
        {
            if ((Run->cr8 & CR8_RESERVED_BITS) != 0)
                return -EINVAL;
            Cr8 = Run->cr8;
        }

        if (ExceptionFromUserspace && IsGuestMode && Ops.NestedOps.IsExceptionVmexit(this, Exception.Vector, Exception.ErrorCode))
        {
            QueueExceptionVmexit(Exception.Vector, Exception.HasErrorCode, Exception.ErrorCode, Exception.HasPayload, Exception.Payload);
            Exception.Injected = false;
            Exception.Pending = false;
        }

        ExceptionFromUserspace = false;
        if (CompleteUserspaceIo != null)
        {
            delegate*<X86Vcpu, int> complete = CompleteUserspaceIo;
            CompleteUserspaceIo = null;
            int done = complete(this);
            if (done <= 0)
                return done;
        }

        if (!WantsToRun)
            return -EINTR;
        int r = Ops.VcpuPreRun(this);
        return r <= 0 ? r : VcpuRun(task);
    }

    /// <summary>An AP that waits for INIT and SIPI: -EAGAIN once they came.</summary>
    private int RunUninitialized()
    {
        if (!WantsToRun)
            return -EINTR;
        SrcuReadUnlock();
        Block();
        SrcuReadLock();
        if (ApicAcceptEvents() < 0)
            return 0;
        if (!HostTask.Current.SignalPending)
            return -EAGAIN;
        Run->exit_reason = KVM_EXIT_INTR;
        Stat.SignalExits++;
        return -EINTR;
    }

    /// <summary>kvm_vcpu_running.</summary>
    private bool IsRunning => MpState == KVM_MP_STATE_RUNNABLE && !ApfHalted;

    /// <summary>vcpu_run: enters the guest until something concerns userspace. Inside the SRCU section.</summary>
    private int VcpuRun(HostTask task)
    {
        L1tfFlushL1d = true;
        for (; ; )
        {
            AtInstructionBoundary = false;
            int r = IsRunning ? EnterGuest(task) : BlockInRun();
            if (r <= 0)
                return r;

            ClearRequest(KVM_REQ_UNBLOCK);
            if (CpuHasPendingTimer())
                InjectPendingTimerIrqs();
            if (DmRequestForIrqInjection && ReadyForInterruptInjection)
            {
                Run->exit_reason = KVM_EXIT_IRQ_WINDOW_OPEN;
                Stat.RequestIrqExits++;
                return 0;
            }

            if (task.SignalPending || task.Cpu!.NeedResched)
            {
                SrcuReadUnlock();
                r = HandleGuestModeWork(task);
                SrcuReadLock();
                if (r != 0)
                    return r;
            }
        }
    }

    /// <summary>xfer_to_guest_mode_handle_work: signals end KVM_RUN, other threads get their turn.</summary>
    [KernelFunction("xfer_to_guest_mode_handle_work", File = "kernel/entry/kvm.c")]
    private int HandleGuestModeWork(HostTask task)
    {
        using var _ = FunctionTrace.Enter("xfer_to_guest_mode_handle_work");
        while (task.SignalPending || task.Cpu!.NeedResched)
        {
            if (task.SignalPending)
            {
                Run->exit_reason = KVM_EXIT_INTR;
                Stat.SignalExits++;
                return -EINTR;
            }

            Host.CondResched();
        }

        return 0;
    }

    /// <summary>vcpu_block: sleeps while the vCPU is not runnable.</summary>
    private int BlockInRun()
    {
        if (!IsRunnable)
        {
            // The processor's timer stands still while the guest does not run.
            bool hvTimer = Apic is { HvTimerInUse: true };
            if (hvTimer)
                Apic!.SwitchToSwTimer();
            SrcuReadUnlock();
            if (MpState == KVM_MP_STATE_HALTED)
                Halt();
            else
                Block();
            SrcuReadLock();
            if (hvTimer)
                Apic!.SwitchToHvTimer();
            if (!IsRunnable)
                return 1;
        }

        if (IsGuestMode)
        {
            int r = CheckNestedEvents();
            if (r < 0 && r != -EBUSY)
                return 0;
        }

        if (ApicAcceptEvents() < 0)
            return 0;
        if (MpState is KVM_MP_STATE_HALTED or KVM_MP_STATE_AP_RESET_HOLD)
        {
            PvUnhalted = false;
            MpState = KVM_MP_STATE_RUNNABLE;
        }

        if (MpState == KVM_MP_STATE_RUNNABLE)
            ApfHalted = false;
        return 1;
    }

    /// <summary>kvm_arch_vcpu_runnable.</summary>
    internal bool IsRunnable => IsRunning || HasEvents;

    /// <summary>kvm_vcpu_has_events.</summary>
    private bool HasEvents =>
        (Apic is { HasPendingInitOrSipi: true } && InitSipiAllowed)
        || PvUnhalted
        || IsExceptionPending
        || TestRequest(KVM_REQ_NMI)
        || (NmiPending != 0 && Ops.NmiAllowed(this, false) > 0)
        || TestRequest(KVM_REQ_SMI)
        || (SmiPending && Ops.SmiAllowed(this, false) > 0)
        || (InterruptAllowed && CpuHasInterrupt())
        || Hv is { HasStimerPending: true }
        || (IsGuestMode && Ops.NestedOps.HasEvents(this, false));

    /// <summary>kvm_arch_interrupt_allowed.</summary>
    public bool InterruptAllowed => Ops.InterruptAllowed(this, false) > 0;

    /// <summary>dm_request_for_irq_injection: userspace waits for a moment to inject.</summary>
    private bool DmRequestForIrqInjection => Run->request_interrupt_window != 0 && !Vm.PicInKernel;

    /// <summary>kvm_cpu_accept_dm_intr: there is a place to keep a vector, and LINT0 would let it through.</summary>
    private bool AcceptDmIntr => !CpuHasExtint() && (Apic is not { } apic || apic.AcceptPicIntr());

    /// <summary>kvm_vcpu_ready_for_interrupt_injection: an instruction boundary, interrupts on, nothing half injected.</summary>
    [KernelFunction("kvm_vcpu_ready_for_interrupt_injection", File = "arch/x86/kvm/x86.c")]
    private bool ReadyForInterruptInjection
    {
        get
        {
            using var _ = FunctionTrace.Enter("kvm_vcpu_ready_for_interrupt_injection");
            return InterruptAllowed && AcceptDmIntr && !EventNeedsReinjection && !IsExceptionPending;
        }
    }

    /// <summary>post_kvm_run_save: what kvm_run tells about interrupts.</summary>
    private void PostKvmRunSave()
    {
        Run->if_flag = Bit(Ops.GetIfFlag(this));
        Run->cr8 = GetCr8();
        Run->apic_base = ApicBase;
        Run->ready_for_interrupt_injection = Bit(Vm.PicInKernel || ReadyForInterruptInjection);
        if (IsSmm)
            Run->flags |= KVM_RUN_X86_SMM;
    }
}
