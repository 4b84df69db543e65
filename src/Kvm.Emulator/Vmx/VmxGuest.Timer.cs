namespace Kvm.Emulator.Vmx;

/// <summary>The VMX-preemption timer and waiting in a halted guest.</summary>
/// <remarks>
/// SDM vol 3C, "VMX-Preemption Timer": counts down by one each time bit X of the TSC changes, X from IA32_VMX_MISC[4:0]. One host timer serves all entries: it is
/// re-armed only when a deadline is earlier than the one it is armed for, and re-arms itself when it fires early.
/// </remarks>
internal sealed unsafe partial class VmxGuest
{
    private readonly int preemptionShift;
    private ITimer? timer;
    private ulong deadline = ulong.MaxValue;
    private ulong armedFor = ulong.MaxValue;
    private bool timerRuns;
    private volatile bool timerFired;

    /// <summary>Software's way to switch the timer off. Its deadline, minutes away, is not computed at entry but from the moment the host timer looks.</summary>
    private const uint Idle = uint.MaxValue;
    private const ulong IdleDeadline = ulong.MaxValue - 1;

    /// <summary>Counter value now, for "save VMX-preemption timer value".</summary>
    internal uint PreemptionTimerValue
    {
        get
        {
            ulong now = cpu.ReadTsc() >> preemptionShift, end = deadline >> preemptionShift;
            return end > now ? (uint)Math.Min(end - now, uint.MaxValue) : 0;
        }
    }

    private void StartTimer()
    {
        timerRuns = Has(PinBasedControls.PreemptionTimer);
        if (!timerRuns)
            return;
        uint value = vmcs->VmxPreemptionTimerValue;
        if (value == 0)
        {
            deadline = 0;
            cpu.Request(ExitRequests.Timer | ExitRequests.Reevaluate);
            return;
        }
        // DIVERGES: D-HW-1
        if (value == Idle && (unit.ExitControls & VmExitControls.SavePreemptionTimer) == 0)
        {
            deadline = IdleDeadline;
            if (armedFor == ulong.MaxValue)
                LookLater();
            return;
        }
        ulong now = cpu.ReadTsc();
        deadline = ((now >> preemptionShift) + value) << preemptionShift;
        if (deadline < armedFor || armedFor <= now)
            Arm(now);
    }

    private bool PreemptionTimerExpired()
    {
        if (!timerRuns || vmcs->GuestActivityState == (uint)ActivityState.WaitForSipi)
            return false;
        if (deadline == 0)
            return true;
        if (deadline == IdleDeadline)
        {
            if (timerFired)
                LookLater();
            return false;
        }
        ulong now = cpu.ReadTsc();
        if (now >= deadline)
            return true;
        // Host timers count whole milliseconds and may fire early: then there is none left to wait for.
        if (timerFired || armedFor <= now)
            Arm(now);
        return false;
    }

    /// <summary>The idle value's full time from now on.</summary>
    private void LookLater()
    {
        ulong now = cpu.ReadTsc();
        deadline = ((now >> preemptionShift) + Idle) << preemptionShift;
        Arm(now);
    }

    private void Arm(ulong now)
    {
        armedFor = deadline;
        timerFired = false;
        double seconds = Math.Min((double)(deadline - now) / cpu.Model.TscHz, 86_400);
        timer ??= cpu.Machine.Time.CreateTimer(static state => ((VmxGuest)state!).TimerFired(), this, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
        timer.Change(TimeSpan.FromTicks(Math.Max(1, (long)(seconds * TimeSpan.TicksPerSecond))), Timeout.InfiniteTimeSpan);
    }

    private void TimerFired()
    {
        timerFired = true;
        cpu.RequestTimer();
    }

    private void StopTimer()
    {
        deadline = armedFor = ulong.MaxValue;
        timer?.Change(Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
    }
}
