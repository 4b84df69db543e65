using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.KvmX86RunFlags;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Request;
using static Kvm.Core.KvmRequest;

namespace Kvm.Arch.X86;

/// <remarks>One guest entry: requests, events, MMU, the protocol of vcpu->mode, the vendor's run and exit handler.</remarks>
public unsafe partial class X86Vcpu
{
    /// <summary>vcpu_enter_guest: 1 to go on, 0 to leave KVM_RUN, -errno.</summary>
    private int EnterGuest(HostTask task)
    {
        bool reqIntWin = DmRequestForIrqInjection && AcceptDmIntr;
        bool reqImmediateExit = false;

        if (DirtyRing is { SoftFull: true })
        {
            Run->exit_reason = KVM_EXIT_DIRTY_RING_FULL;
            return 0;
        }

        int r;
        if (RequestPending && (OtherRequestPending || FunctionTrace.Enabled))
        {
            r = HandleRequests();
            if (r != RequestsDone)
                return r;
        }

        if (CheckRequest(KVM_REQ_EVENT) || reqIntWin)
        {
            Stat.ReqEvent++;
            if (ApicAcceptEvents() < 0)
                return 0;
            if (MpState == KVM_MP_STATE_INIT_RECEIVED)
                return 1;
            r = CheckAndInjectEvents(ref reqImmediateExit);
            if (r < 0)
                return 0;
            if (reqIntWin)
                Ops.EnableIrqWindow(this);
            if (LapicEnabled)
            {
                UpdateCr8Intercept();
                Apic!.SyncToVapic();
            }
        }

        r = MmuReload();
        if (r != 0)
        {
            CancelInjection(reqImmediateExit);
            return r;
        }

        task.PreemptDisable();
        Ops.PrepareSwitchToGuest(this);

        // Interrupts go off before the mode says IN_GUEST_MODE: a kick that follows is a physical interrupt, which the entry takes as an exit.
        task.LocalIrqDisable();
        Volatile.Write(ref Mode, VcpuMode.IN_GUEST_MODE);
        SrcuReadUnlock(task);

        // The mode before the requests are read: whoever makes a request after this sees the mode and kicks.
        Interlocked.MemoryBarrier();

        // Interrupts posted while the vCPU was not in the guest; those that come now exit it or are taken by the processor.
        if (Ops.HasSyncPirToIrr && LapicEnabled)
            Ops.SyncPirToIrr(this);
        if (ExitRequest(task))
        {
            Volatile.Write(ref Mode, VcpuMode.OUTSIDE_GUEST_MODE);
            task.LocalIrqEnable();
            task.PreemptEnable();
            SrcuReadLock(task);
            CancelInjection(reqImmediateExit);
            return 1;
        }

        ExitFastpathCompletion fastpath = RunInGuestMode(task, reqImmediateExit);
        SrcuReadLock(task);
        if (TscAlwaysCatchup)
            MakeRequest(KVM_REQ_CLOCK_UPDATE);
        if (ApicAttention != 0)
            Apic!.SyncFromVapic();
        return Ops.HandleExit(this, fastpath);
    }

    private ExitFastpathCompletion RunInGuestMode(HostTask task, bool reqImmediateExit)
    {
        KvmX86RunFlags flags = None;
        HostX86Cpu cpu = LoadedCpu;

        // switch_fpu_return: the thread may have come from another CPU, or another vCPU may have been here meanwhile.
        GuestFpu.Load(cpu);
        if (reqImmediateExit)
        {
            flags |= KVM_RUN_FORCE_IMMEDIATE_EXIT;
            MakeRequest(KVM_REQ_EVENT);
        }

        if (SwitchDbRegs != 0)
        {
            cpu.SetDebugreg(7, 0);
            for (int i = 0; i < KVM_NR_DB_REGS; i++)
                cpu.SetDebugreg(i, EffDb[i]);
            if ((SwitchDbRegs & KVM_DEBUGREG_WONT_EXIT) != 0)
                flags |= KVM_RUN_LOAD_GUEST_DR6;
        }

        // With interrupts off: a cross call could change the register until then.
        ulong debugctl = cpu.Rdmsr(MsrIndex.MSR_IA32_DEBUGCTLMSR);
        if (((debugctl ^ HostDebugctl) & Ops.HostOwnedDebugctl) != 0)
            flags |= KVM_RUN_LOAD_DEBUGCTL;
        HostDebugctl = debugctl;

        ExitFastpathCompletion fastpath;
        for (; ; )
        {
            fastpath = Ops.VcpuRun(this, flags);
            if (fastpath != ExitFastpathCompletion.EXIT_FASTPATH_REENTER_GUEST)
                break;
            if (Ops.HasSyncPirToIrr && LapicEnabled)
                Ops.SyncPirToIrr(this);
            if (ExitRequest(task))
            {
                fastpath = ExitFastpathCompletion.EXIT_FASTPATH_EXIT_HANDLED;
                break;
            }

            flags = None;
            Stat.Exits++;
        }

        // Before the exit is handled: a DR access exit must read what the guest has written.
        if ((SwitchDbRegs & KVM_DEBUGREG_WONT_EXIT) != 0)
        {
            Ops.SyncDirtyDebugRegs(this);
            UpdateDr0123();
            UpdateDr7();
        }

        LastVmentryCpu = Cpu;
        LastGuestTscDue = true;
        Volatile.Write(ref Mode, VcpuMode.OUTSIDE_GUEST_MODE);
        Ops.HandleExitIrqoff(this);

        // Interrupts that ended the guest's run, or came since, are taken here.
        task.LocalIrqEnable();
        Stat.Exits++;
        task.PreemptEnable();
        return fastpath;
    }

    /// <summary>kvm_vcpu_exit_request: something came up between the last look at the requests and now.</summary>
    private bool ExitRequest(HostTask task) =>
        Volatile.Read(ref Mode) == VcpuMode.EXITING_GUEST_MODE || RequestPending || task.SignalPending || task.Cpu!.NeedResched;

    private void CancelInjection(bool reqImmediateExit)
    {
        if (reqImmediateExit)
            MakeRequest(KVM_REQ_EVENT);
        Ops.CancelInjection(this);
        if (ApicAttention != 0)
            Apic!.SyncFromVapic();
    }

    private const int RequestsDone = int.MaxValue;

    /// <summary>Something besides KVM_REQ_EVENT, which most ends of interrupts ask for and which is looked at apart from the others.</summary>
    private bool OtherRequestPending => (Volatile.Read(ref Requests) & ~(1ul << (int)(KVM_REQ_EVENT & 63))) != 0;

    /// <summary>Serves the pending requests in the kernel's order; <see cref="RequestsDone"/> to enter the guest, else the result of the entry.</summary>
    private int HandleRequests()
    {
        if (CheckRequest(KVM_REQ_VM_DEAD))
            return -EIO;
        if (CheckRequest(KVM_REQ_GET_NESTED_STATE_PAGES) && !Ops.NestedOps.GetNestedStatePages(this))
            return 0;
        if (CheckRequest(KVM_REQ_MMU_FREE_OBSOLETE_ROOTS))
            MmuFreeObsoleteRoots();
        if (CheckRequest(KVM_REQ_MIGRATE_TIMER))
            MigrateTimers();
        if (CheckRequest(KVM_REQ_MASTERCLOCK_UPDATE))
            Vm.UpdateMasterclock();
        if (CheckRequest(KVM_REQ_GLOBAL_CLOCK_UPDATE))
            Vm.GenKvmclockUpdate(this);
        if (CheckRequest(KVM_REQ_CLOCK_UPDATE))
            GuestTimeUpdate();
        if (CheckRequest(KVM_REQ_MMU_SYNC))
            MmuSyncRoots();
        if (CheckRequest(KVM_REQ_LOAD_MMU_PGD))
            LoadMmuPgd();
        if (CheckRequest(KVM_REQ_TLB_FLUSH))
        {
            Stat.TlbFlush++;
            Ops.FlushTlbAll(this);
            ClearRequest(KVM_REQ_TLB_FLUSH_CURRENT);
        }

        ServiceLocalTlbFlushRequests();
        if (CheckRequest(KVM_REQ_REPORT_TPR_ACCESS))
        {
            Run->exit_reason = KVM_EXIT_TPR_ACCESS;
            return 0;
        }

        if (TestRequest(KVM_REQ_TRIPLE_FAULT))
        {
            if (IsGuestMode)
                Ops.NestedOps.TripleFault(this);
            if (CheckRequest(KVM_REQ_TRIPLE_FAULT))
            {
                Run->exit_reason = KVM_EXIT_SHUTDOWN;
                MmioNeeded = false;
                return 0;
            }
        }

        if (CheckRequest(KVM_REQ_APF_HALT))
        {
            ApfHalted = true;
            return 1;
        }

        if (CheckRequest(KVM_REQ_STEAL_UPDATE))
            FunctionTrace.Leaf("record_steal_time");
        if (CheckRequest(KVM_REQ_SMI))
            ProcessSmi();
        if (CheckRequest(KVM_REQ_NMI))
            ProcessNmi();
        if (CheckRequest(KVM_REQ_PMU))
            PmuHandleEvent();
        if (CheckRequest(KVM_REQ_PMI))
            PmuDeliverPmi();
        if (CheckRequest(KVM_REQ_IOAPIC_EOI_EXIT) && IoapicEoiExit())
            return 0;
        if (CheckRequest(KVM_REQ_SCAN_IOAPIC))
            ScanIoapic();
        if (CheckRequest(KVM_REQ_LOAD_EOI_EXITMAP))
            LoadEoiExitmap();
        if (CheckRequest(KVM_REQ_APIC_PAGE_RELOAD) && LapicInKernel)
            Ops.SetApicAccessPageAddr(this);
        if (HvExitRequest())
            return 0;

        // After the clock's update, which the timers go by.
        if (CheckRequest(KVM_REQ_HV_STIMER))
            Hv?.ProcessStimers();
        if (CheckRequest(KVM_REQ_APICV_UPDATE))
            UpdateApicv();
        ClearRequest(KVM_REQ_APF_READY);
        if (CheckRequest(KVM_REQ_MSR_FILTER_CHANGED))
            Ops.MsrFilterChanged(this);
        if (CheckRequest(KVM_REQ_UPDATE_CPU_DIRTY_LOGGING))
            Ops.UpdateCpuDirtyLogging(this);
        return RequestsDone;
    }

    /// <summary>Flushes that only concern this vCPU's own translations.</summary>
    [KernelFunction("kvm_service_local_tlb_flush_requests", File = "arch/x86/kvm/x86.c")]
    public void ServiceLocalTlbFlushRequests()
    {
        using var _ = FunctionTrace.Enter("kvm_service_local_tlb_flush_requests");
        if (CheckRequest(KVM_REQ_TLB_FLUSH_CURRENT))
        {
            Stat.TlbFlush++;
            Ops.FlushTlbCurrent(this);
        }

        if (CheckRequest(KVM_REQ_TLB_FLUSH_GUEST))
        {
            FlushTlbGuest();
        }
    }

    /// <summary>kvm_vcpu_flush_tlb_guest: the guest flushes all of its translations; what shadows its tables has to follow.</summary>
    private void FlushTlbGuest()
    {
        Stat.TlbFlush++;
        if (!Arch.TdpEnabled)
        {
            MmuSyncRoots();
            MmuSyncPrevRoots();
        }

        Ops.FlushTlbGuest(this);
    }
}
