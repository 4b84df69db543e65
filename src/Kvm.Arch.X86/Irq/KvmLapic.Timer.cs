using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.ApicConst;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>
/// The timer: one-shot and periodic counts of the bus clock (1 GHz), and the TSC deadline. It runs on a timer of the host, or on the processor's own while the guest
/// runs (the "hv timer": VMX's preemption timer).
/// </remarks>
public sealed unsafe partial class KvmLapic
{
    private const uint TimerAdvanceNsInit = 1000, TimerAdvanceNsMax = 5000, AdvanceAdjustStep = 8;
    private const long AdvanceAdjustMin = 100, AdvanceAdjustMax = 10000;

    private readonly HrTimer _timer;
    private readonly bool _timerAdvanceDynamic;

    /// <summary>Nanoseconds of the period.</summary>
    private long _period;

    /// <summary>Host time of the next expiry.</summary>
    private long _targetExpiration;
    private uint _timerMode;
    private ulong _tscDeadline;
    private ulong _expiredTscDeadline;
    private int _timerPending;

    /// <summary>Bits of LVTT that choose the mode; deadline mode needs its CPUID bit.</summary>
    public uint TimerModeMask { get; set; }

    /// <summary>How much too early the timer is set, so that the interrupt is in time (lapic_timer_advance_ns).</summary>
    public uint TimerAdvanceNs { get; private set; }

    public bool HvTimerInUse { get; private set; }

    private bool OneshotMode => _timerMode == APIC_LVT_TIMER_ONESHOT;

    private bool PeriodicMode => _timerMode == APIC_LVT_TIMER_PERIODIC;

    private bool TscDeadlineMode => _timerMode == APIC_LVT_TIMER_TSCDEADLINE;

    /// <summary>rdtsc; also on a thread that occupies no CPU: the counters of all CPUs agree.</summary>
    private ulong Rdtsc() => _arch.HostX86.Cpus[Math.Max(0, Vcpu.Cpu)].Rdtsc();

    private long Now => Vcpu.Host.KtimeNs;

    // ---- registers ----

    private uint GetTmcct()
    {
        if (GetReg(APIC_TMICT) == 0 || _period == 0)
            return 0;
        long remaining = Math.Max(0, _targetExpiration - Now);
        return (uint)(remaining % _period / (APIC_BUS_CYCLE_NS * _divideCount));
    }

    private void UpdateDivideCount()
    {
        uint tdcr = GetReg(APIC_TDCR) & 0xf;
        uint code = ((tdcr & 3) | ((tdcr & 8) >> 1)) + 1;
        _divideCount = 1u << (int)(code & 7);
    }

    private void LimitPeriodicFrequency()
    {
        if (!PeriodicMode || _period == 0)
            return;
        long min = _arch.Params.MinTimerPeriodUs * 1000L;
        if (_period >= min)
            return;
        Vcpu.Host.Log.Ratelimited(LogLevel.Info, "limit_periodic_timer_frequency", $"kvm: vcpu {Vcpu.VcpuId}: requested {_period} ns lapic timer period limited to {min} ns");
        _period = min;
    }

    /// <summary>apic_update_lvtt: switching to or from deadline mode disarms the timer.</summary>
    [KernelFunction("apic_update_lvtt", File = "arch/x86/kvm/lapic.c")]
    private void UpdateLvtt()
    {
        using var _ = FunctionTrace.Enter("apic_update_lvtt");
        uint mode = GetReg(APIC_LVTT) & TimerModeMask;
        if (_timerMode == mode)
            return;
        if (TscDeadlineMode != (mode == APIC_LVT_TIMER_TSCDEADLINE))
        {
            CancelTimer();
            SetReg(APIC_TMICT, 0);
            _period = 0;
            _tscDeadline = 0;
        }

        _timerMode = mode;
        LimitPeriodicFrequency();
    }

    private void WriteTmict(uint value)
    {
        if (TscDeadlineMode)
            return;
        CancelTimer();
        SetReg(APIC_TMICT, value);
        StartTimer(APIC_TMICT);
    }

    private void WriteTdcr(uint value)
    {
        uint old = _divideCount;
        SetReg(APIC_TDCR, value & 0xb);
        UpdateDivideCount();
        if (_divideCount == old || _period == 0)
            return;
        _timer.Cancel();
        UpdateTargetExpiration(old);
        RestartTimer();
    }

    /// <summary>kvm_get_lapic_tscdeadline_msr.</summary>
    public ulong TscDeadlineMsr => HwEnabled && TscDeadlineMode ? _tscDeadline : 0;

    /// <summary>kvm_set_lapic_tscdeadline_msr: 0 disarms; ignored in other modes.</summary>
    public void SetTscDeadlineMsr(ulong data)
    {
        if (!HwEnabled || !TscDeadlineMode)
            return;
        _timer.Cancel();
        _tscDeadline = data;
        StartTimer(APIC_TMICT);
    }

    // ---- arming ----

    private long TmictToNs(uint tmict) => (long)((ulong)tmict * APIC_BUS_CYCLE_NS * _divideCount);

    private void UpdateTargetExpiration(uint oldDivisor)
    {
        _period = TmictToNs(GetReg(APIC_TMICT));
        LimitPeriodicFrequency();
        long now = Now;
        ulong old = (ulong)Math.Max(0, _targetExpiration - now);
        ulong next = (ulong)((UInt128)old * _divideCount / oldDivisor);
        _tscDeadline += Vcpu.NsecToCycles(next) - Vcpu.NsecToCycles(old);
        _targetExpiration = now + (long)next;
    }

    /// <summary>set_target_expiration: from the initial count, or from the current count of a restored state. False when there is nothing to count.</summary>
    private bool SetTargetExpiration(int countReg)
    {
        ulong tsc = Rdtsc();
        long now = Now;
        _period = TmictToNs(GetReg(APIC_TMICT));
        if (_period == 0)
        {
            _tscDeadline = 0;
            return false;
        }

        LimitPeriodicFrequency();
        long deadline = _period;
        if (countReg != APIC_TMICT)
        {
            deadline = TmictToNs(GetReg(countReg));
            if (deadline <= 0)
            {
                deadline = PeriodicMode ? _period : 0;
            }
            else if (deadline > _period)
            {
                Vcpu.Host.Log.Info($"kvm: vcpu {Vcpu.VcpuId}: requested lapic timer restore with starting count register 0x{countReg:x}={GetReg(countReg)} "
                    + $"({deadline} ns) > initial count ({_period} ns). Using initial count to start timer.");
                SetReg(countReg, 0);
                deadline = _period;
            }
        }

        _tscDeadline = Vcpu.ReadL1Tsc(tsc) + Vcpu.NsecToCycles((ulong)deadline);
        _targetExpiration = now + deadline;
        return true;
    }

    /// <summary>The next period. Missed ones are not made up: one interrupt stands for all of them.</summary>
    private void AdvancePeriodicTarget()
    {
        long now = Now;
        ulong tsc = Rdtsc();
        _targetExpiration += _period;
        if (_targetExpiration < now)
            _targetExpiration = now;
        _tscDeadline = Vcpu.ReadL1Tsc(tsc) + Vcpu.NsecToCycles((ulong)(_targetExpiration - now));
    }

    /// <summary>__start_apic_timer.</summary>
    [KernelFunction("__start_apic_timer", File = "arch/x86/kvm/lapic.c")]
    private void StartTimer(int countReg)
    {
        using var _ = FunctionTrace.Enter("__start_apic_timer");
        Volatile.Write(ref _timerPending, 0);
        if ((PeriodicMode || OneshotMode) && !SetTargetExpiration(countReg))
            return;
        RestartTimer();
    }

    [KernelFunction("restart_apic_timer", File = "arch/x86/kvm/lapic.c")]
    private void RestartTimer()
    {
        using var _ = FunctionTrace.Enter("restart_apic_timer");

        // To be loaded again would restart the timer in the middle of this.
        HostTask task = HostTask.Current;
        task.PreemptDisable();
        if ((PeriodicMode || Volatile.Read(ref _timerPending) == 0) && !StartHvTimer())
            StartSwTimer();
        task.PreemptEnable();
    }

    [KernelFunction("start_hv_timer", File = "arch/x86/kvm/lapic.c")]
    private bool StartHvTimer()
    {
        using var _ = FunctionTrace.Enter("start_hv_timer");
        if (!CanUseHvTimer || _tscDeadline == 0 || Vcpu.Ops.SetHvTimer(Vcpu, _tscDeadline, out bool expired) != 0)
            return false;
        HvTimerInUse = true;
        _timer.Cancel();

        // A periodic one is left to the exit that it causes, which computes the next period.
        if (!PeriodicMode)
        {
            if (Volatile.Read(ref _timerPending) != 0)
            {
                CancelHvTimer();
            }
            else if (expired)
            {
                TimerExpired(false);
                CancelHvTimer();
            }
        }

        TraceHvTimer(HvTimerInUse);
        return true;
    }

    private void TraceHvTimer(bool inUse)
    {
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_hv_timer_state", $"vcpu_id {Vcpu.VcpuId:x} hv_timer {(inUse ? 1 : 0)}");
    }

    [KernelFunction("start_sw_timer", File = "arch/x86/kvm/lapic.c")]
    private void StartSwTimer()
    {
        using var _ = FunctionTrace.Enter("start_sw_timer");
        if (HvTimerInUse)
            CancelHvTimer();
        if (!PeriodicMode && Volatile.Read(ref _timerPending) != 0)
            return;
        if (TscDeadlineMode)
            StartSwTscDeadline();
        else
            StartSwPeriod();
        TraceHvTimer(false);
    }

    private void StartSwTscDeadline()
    {
        if (_tscDeadline == 0 || Vcpu.VirtualTscKhz == 0)
            return;

        // The counter before the clock: this thread may stand still between the two, whatever the kernel's local_irq_disable says, and the timer may be late then but not early.
        ulong guestTsc = Vcpu.ReadL1Tsc(Rdtsc());
        long now = Now;
        ulong ns = unchecked((_tscDeadline - guestTsc) * 1000000) / Vcpu.VirtualTscKhz;
        if (_tscDeadline > guestTsc && ns > TimerAdvanceNs)
            _timer.Start((long)Math.Min((ulong)now + ns - TimerAdvanceNs, long.MaxValue));
        else
            TimerExpired(false);
    }

    private void StartSwPeriod()
    {
        if (_period == 0)
            return;
        if (Now > _targetExpiration)
        {
            TimerExpired(false);
            if (OneshotMode)
                return;
            AdvancePeriodicTarget();
        }

        _timer.Start(_targetExpiration);
    }

    // ---- expiry ----

    /// <summary>apic_timer_fn: on the timer's thread.</summary>
    [KernelFunction("apic_timer_fn", File = "arch/x86/kvm/lapic.c")]
    private bool TimerFn()
    {
        TimerExpired(true);
        if (!PeriodicMode || _period == 0)
            return false;
        AdvancePeriodicTarget();
        _timer.Expires = _targetExpiration;
        return true;
    }

    [KernelFunction("apic_timer_expired", File = "arch/x86/kvm/lapic.c")]
    private void TimerExpired(bool fromTimerFn)
    {
        using var _ = FunctionTrace.Enter("apic_timer_expired");
        if (Volatile.Read(ref _timerPending) != 0)
            return;
        if (TscDeadlineMode || HvTimerInUse)
            _expiredTscDeadline = _tscDeadline;
        if (!fromTimerFn && ApicvActive && Vcpu.WantsToRun)
        {
            InjectPendingTimerIrq();
            return;
        }

        if (CanPostTimerInterrupt && Volatile.Read(ref Vcpu.Mode) == VcpuMode.IN_GUEST_MODE)
        {
            if (_expiredTscDeadline != 0 && TimerAdvanceNs != 0)
                WaitExpire();
            InjectPendingTimerIrq();
            return;
        }

        Interlocked.Increment(ref _timerPending);
        Vcpu.MakeRequest(KvmRequest.KVM_REQ_UNBLOCK);
        if (fromTimerFn)
            Vcpu.Kick();
    }

    private void InjectPendingTimerIrq()
    {
        LocalDeliver(APIC_LVTT);
        if (TscDeadlineMode)
        {
            _tscDeadline = 0;
        }
        else if (OneshotMode)
        {
            _tscDeadline = 0;
            _targetExpiration = 0;
        }
    }

    /// <summary>apic_has_pending_timer: it has expired and its interrupt is not masked.</summary>
    [KernelFunction("apic_has_pending_timer", File = "arch/x86/kvm/lapic.c")]
    public bool HasPendingTimer
    {
        get
        {
            FunctionTrace.Leaf("apic_has_pending_timer");
            return Enabled && (GetReg(APIC_LVTT) & APIC_LVT_MASKED) == 0 && Volatile.Read(ref _timerPending) != 0;
        }
    }

    /// <summary>kvm_inject_apic_timer_irqs: by the vCPU's own thread.</summary>
    [KernelFunction("kvm_inject_apic_timer_irqs", File = "arch/x86/kvm/lapic.c")]
    public void InjectTimerIrqs()
    {
        using var _ = FunctionTrace.Enter("kvm_inject_apic_timer_irqs");
        if (Volatile.Read(ref _timerPending) <= 0)
            return;
        InjectPendingTimerIrq();
        Volatile.Write(ref _timerPending, 0);
    }

    private void CancelTimer()
    {
        _timer.Cancel();
        HostTask task = HostTask.Current;
        task.PreemptDisable();
        if (HvTimerInUse)
            CancelHvTimer();
        task.PreemptEnable();
        Volatile.Write(ref _timerPending, 0);
    }

    /// <summary>__kvm_migrate_apic_timer: the timer follows its vCPU; timers of the model have no CPU, only an expired one is noticed here.</summary>
    [KernelFunction("__kvm_migrate_apic_timer", File = "arch/x86/kvm/lapic.c")]
    internal static void Migrate(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("__kvm_migrate_apic_timer");
        if (vcpu.Apic is not { } apic || apic.CanPostTimerInterrupt)
            return;
        if (apic._timer.Cancel())
            apic._timer.Start(apic._timer.Expires);
    }

    // ---- the processor's timer ----

    [KernelFunction("kvm_can_post_timer_interrupt", File = "arch/x86/kvm/lapic.c")]
    private bool CanPostTimerInterrupt
    {
        get
        {
            FunctionTrace.Leaf("kvm_can_post_timer_interrupt");
            return _arch.Params.PiInjectTimer > 0 && ApicvActive && (Vcpu.Vm.MwaitInGuest || Vcpu.Vm.HltInGuest);
        }
    }

    /// <summary>kvm_can_use_hv_timer.</summary>
    internal bool CanUseHvTimer => Vcpu.Ops.HasHvTimer && !Vcpu.Vm.MwaitInGuest && !CanPostTimerInterrupt;

    [KernelFunction("cancel_hv_timer", File = "arch/x86/kvm/lapic.c")]
    private void CancelHvTimer()
    {
        using var _ = FunctionTrace.Enter("cancel_hv_timer");
        Vcpu.Ops.CancelHvTimer(Vcpu);
        HvTimerInUse = false;
    }

    /// <summary>kvm_lapic_expired_hv_timer: the guest's run ended because of it.</summary>
    [KernelFunction("kvm_lapic_expired_hv_timer", File = "arch/x86/kvm/lapic.c")]
    public void ExpiredHvTimer()
    {
        using var _ = FunctionTrace.Enter("kvm_lapic_expired_hv_timer");
        HostTask task = HostTask.Current;
        task.PreemptDisable();

        // If the vCPU was loaded again meanwhile, that has seen the expiry.
        if (HvTimerInUse)
        {
            TimerExpired(false);
            CancelHvTimer();
            if (PeriodicMode && _period != 0)
            {
                AdvancePeriodicTarget();
                RestartTimer();
            }
        }

        task.PreemptEnable();
    }

    /// <summary>kvm_lapic_switch_to_hv_timer.</summary>
    public void SwitchToHvTimer() => RestartTimer();

    /// <summary>kvm_lapic_switch_to_sw_timer: the vCPU stops running; only a timer of the host can wake it.</summary>
    public void SwitchToSwTimer()
    {
        HostTask task = HostTask.Current;
        task.PreemptDisable();
        if (HvTimerInUse)
            StartSwTimer();
        task.PreemptEnable();
    }

    /// <summary>kvm_lapic_restart_hv_timer: the vCPU was loaded, its TSC offset may have changed.</summary>
    public void RestartHvTimer() => RestartTimer();

    // ---- waiting for the exact deadline ----

    /// <summary>kvm_wait_lapic_expire: the timer was set a little early; its interrupt is about to be delivered, and not before its time.</summary>
    [KernelFunction("kvm_wait_lapic_expire", File = "arch/x86/kvm/lapic.c")]
    public static void WaitLapicExpire(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("kvm_wait_lapic_expire");
        if (vcpu.Apic is { _expiredTscDeadline: not 0 } apic && apic.TimerAdvanceNs != 0 && apic.TimerIntInjected)
            apic.WaitExpire();
    }

    private bool TimerIntInjected =>
        HwEnabled && TestVector((int)(GetReg(APIC_LVTT) & APIC_VECTOR_MASK), ApicvActive ? APIC_IRR : APIC_ISR);

    [KernelFunction("__kvm_wait_lapic_expire", File = "arch/x86/kvm/lapic.c")]
    private void WaitExpire()
    {
        using var _ = FunctionTrace.Enter("__kvm_wait_lapic_expire");
        ulong deadline = _expiredTscDeadline;
        _expiredTscDeadline = 0;
        ulong guestTsc = Vcpu.ReadL1Tsc(Rdtsc());
        long delta = (long)(guestTsc - deadline);
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_wait_lapic_expire", $"vcpu {Vcpu.VcpuId}: delta {delta} ({(delta < 0 ? "early" : "late")})");
        if (_timerAdvanceDynamic)
            AdjustTimerAdvance(delta);

        // Never longer than the advance, whatever the counters say.
        long end = Now + TimerAdvanceNs;
        while (Vcpu.ReadL1Tsc(Rdtsc()) < deadline && Now < end)
            Thread.SpinWait(4);
    }

    private void AdjustTimerAdvance(long delta)
    {
        long distance = Math.Abs(delta);
        if (distance is > AdvanceAdjustMax or < AdvanceAdjustMin || Vcpu.VirtualTscKhz == 0)
            return;
        uint step = (uint)((ulong)distance * 1000000 / Vcpu.VirtualTscKhz) / AdvanceAdjustStep;
        uint advance = delta < 0 ? TimerAdvanceNs - step : TimerAdvanceNs + step;
        TimerAdvanceNs = advance > TimerAdvanceNsMax ? TimerAdvanceNsInit : advance;
    }
}
