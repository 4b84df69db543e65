using System.Numerics;
using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <remarks>Halt: polling first, then sleeping; directed yield.</remarks>
public abstract unsafe partial class KvmVcpu
{
    /// <summary>kvm_vcpu_check_block: false (-EINTR) when there is a reason not to sleep.</summary>
    [KernelFunction("kvm_vcpu_check_block", File = "virt/kvm/kvm_main.c")]
    private bool MayBlock()
    {
        int index = Vm.Srcu.ReadLock();
        bool wakeup = Arch.VcpuRunnable(this) || Arch.CpuHasPendingTimer(this) || HostTask.Current.SignalPending ||
                      CheckRequest(KvmRequest.KVM_REQ_UNBLOCK);
        Vm.Srcu.ReadUnlock(index);
        return !wakeup;
    }

    /// <summary>kvm_vcpu_block: sleeps until the vCPU is runnable or a signal comes. True when it slept.</summary>
    [KernelFunction("kvm_vcpu_block", File = "virt/kvm/kvm_main.c")]
    public bool Block()
    {
        using var _ = FunctionTrace.Enter("kvm_vcpu_block");
        HostTask task = HostTask.Current;
        bool waited = false;
        Stat.Blocking = 1;
        task.PreemptDisable();
        Arch.VcpuBlocking(this);
        Wait.Prepare();
        task.PreemptEnable();
        for (; ; )
        {
            // The state before the check: a wake-up after the check finds a sleeper.
            task.SetState(TaskState.Interruptible);
            if (!MayBlock()) break;
            waited = true;
            task.Schedule();
        }

        task.PreemptDisable();
        Wait.Finish();
        Arch.VcpuUnblocking(this);
        task.PreemptEnable();
        Stat.Blocking = 0;
        return waited;
    }

    /// <summary>kvm_vcpu_halt: the vCPU halted. Polls for a while when polling pays, then blocks.</summary>
    [KernelFunction("kvm_vcpu_halt", File = "virt/kvm/kvm_main.c")]
    public void Halt()
    {
        using var _ = FunctionTrace.Enter("kvm_vcpu_halt");
        uint max = MaxHaltPollNs;
        bool allowed = !Arch.NoPoll(this);
        bool waited = false;
        if (HaltPollNs > max) HaltPollNs = max;
        bool poll = allowed && HaltPollNs != 0;
        long start = Host.KtimeNs, now = start, pollEnd = start;
        bool blocked = true;
        if (poll)
        {
            long stop = start + HaltPollNs;
            do
            {
                if (!MayBlock())
                {
                    blocked = false;
                    break;
                }

                Thread.SpinWait(8);
                pollEnd = now = Host.KtimeNs;
            }
            while (Host.RunQueueLength == 0 && !Host.NeedResched && now < stop);
        }

        if (blocked)
        {
            waited = Block();
            now = Host.KtimeNs;
            if (waited)
            {
                Stat.HaltWaitNs += (ulong)(now - pollEnd);
                fixed (ulong* hist = Stat.HaltWaitHist) Histogram(hist, now - pollEnd);
            }
        }

        long haltNs = now - start;
        if (poll) UpdateHaltPollStats(pollEnd - start, success: !waited);
        if (allowed) AdjustHaltPoll(haltNs);
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_vcpu_wakeup", $"{(waited ? "wait" : "poll")} time {haltNs} ns, polling {(VcpuValidWakeup ? "valid" : "invalid")}");
    }

    /// <summary>kvm_vcpu_on_spin: the guest spins; a vCPU that waits for a CPU may be worth running instead.</summary>
    [KernelFunction("kvm_vcpu_on_spin", File = "virt/kvm/kvm_main.c")]
    public void OnSpin(bool yieldToKernelMode)
    {
        using var _ = FunctionTrace.Enter("kvm_vcpu_on_spin");
        int last = Volatile.Read(ref Vm.LastBoostedVcpu);
        bool yielded = false;
        InSpinLoop = true;
        for (int pass = 0; pass < 2 && !yielded; pass++)
        {
            ReadOnlySpan<KvmVcpu> vcpus = Vm.Vcpus;
            for (int i = 0; i < vcpus.Length; i++)
            {
                if (pass == 0 && i <= last) continue;
                if (pass == 1 && i > last) break;
                KvmVcpu v = vcpus[i];
                if (!Volatile.Read(ref v.Ready) || v == this) continue;
                if (v.IsBlocking && !Arch.DyRunnable(v)) continue;
                if (Volatile.Read(ref v.Preempted) && yieldToKernelMode && !Arch.DyHasPendingInterrupt(v) && !Arch.VcpuInKernel(v)) continue;
                if (!v.EligibleForDirectedYield()) continue;
                yielded = YieldTo(v);
                if (!yielded) continue;
                Volatile.Write(ref Vm.LastBoostedVcpu, i);
                break;
            }
        }

        InSpinLoop = false;
        DyEligible = false;
    }

    /// <summary>kvm_vcpu_yield_to: gives this CPU away when the target's thread waits for one.</summary>
    public bool YieldTo(KvmVcpu target)
    {
        if (target.Pid is null || Host.RunQueueLength == 0 || !target.Ready) return false;
        Host.Yield();
        return true;
    }

    private bool VcpuValidWakeup => !ValidWakeupRequired || ValidWakeup;

    /// <summary>Only architectures with CONFIG_HAVE_KVM_INVALID_WAKEUPS tell valid from invalid wake-ups; x86 does not.</summary>
    private static bool ValidWakeupRequired => false;

    private uint MaxHaltPollNs => Vm.OverrideHaltPollNs ? Vm.MaxHaltPollNs : Vm.Module.HaltPollNs;

    private bool EligibleForDirectedYield()
    {
        bool eligible = !InSpinLoop || DyEligible;
        if (InSpinLoop) DyEligible = !DyEligible;
        return eligible;
    }

    private void UpdateHaltPollStats(long ns, bool success)
    {
        Stat.HaltAttemptedPoll++;
        if (success)
        {
            Stat.HaltSuccessfulPoll++;
            if (!VcpuValidWakeup) Stat.HaltPollInvalid++;
            Stat.HaltPollSuccessNs += (ulong)ns;
            fixed (ulong* hist = Stat.HaltPollSuccessHist) Histogram(hist, ns);
        }
        else
        {
            Stat.HaltPollFailNs += (ulong)ns;
            fixed (ulong* hist = Stat.HaltPollFailHist) Histogram(hist, ns);
        }
    }

    private void AdjustHaltPoll(long haltNs)
    {
        uint max = MaxHaltPollNs; // it may have changed meanwhile
        if (!VcpuValidWakeup) ShrinkHaltPollNs();
        else if (max == 0) HaltPollNs = 0;
        else if (haltNs <= HaltPollNs) { }
        else if (HaltPollNs != 0 && haltNs > max) ShrinkHaltPollNs();
        else if (HaltPollNs < max && haltNs < max) GrowHaltPollNs();
    }

    [KernelFunction("grow_halt_poll_ns", File = "virt/kvm/kvm_main.c")]
    internal void GrowHaltPollNs()
    {
        uint old = HaltPollNs, grow = Vm.Module.HaltPollNsGrow;
        if (grow != 0) HaltPollNs = Math.Max(unchecked(old * grow), Vm.Module.HaltPollNsGrowStart);
        if (Tracepoints.Enabled) Tracepoints.Emit("kvm_halt_poll_ns", $"vcpu {VcpuId}: halt_poll_ns {HaltPollNs} (grow {old})");
    }

    [KernelFunction("shrink_halt_poll_ns", File = "virt/kvm/kvm_main.c")]
    internal void ShrinkHaltPollNs()
    {
        uint old = HaltPollNs, shrink = Vm.Module.HaltPollNsShrink;
        uint value = shrink == 0 ? 0 : old / shrink;
        HaltPollNs = value < Vm.Module.HaltPollNsGrowStart ? 0 : value;
        if (Tracepoints.Enabled) Tracepoints.Emit("kvm_halt_poll_ns", $"vcpu {VcpuId}: halt_poll_ns {HaltPollNs} (shrink {old})");
    }

    private static void Histogram(ulong* hist, long value)
    {
        int bucket = value <= 0 ? 0 : BitOperations.Log2((ulong)value) + 1;
        hist[Math.Min(bucket, KvmVcpuStat.HistogramBuckets - 1)]++;
    }
}
