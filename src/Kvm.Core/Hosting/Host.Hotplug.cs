using Kvm.Abi;
using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <remarks>CPU hotplug, suspend and resume, reboot.</remarks>
public sealed partial class Host
{
    private sealed record HotplugState(string Name, bool Online, Func<HostCpu, KvmResult> Startup, Func<HostCpu, KvmResult> Teardown);

    private sealed record SyscoreOps(Action Suspend, Action Resume);

    private readonly KernelMutex _hotplug = new();
    private readonly List<HotplugState> _hotplugStates = [];
    private readonly List<SyscoreOps> _syscore = [];
    private readonly List<Action> _rebootNotifiers = [];
    private readonly LinkedList<Func<PmEvent, KvmResult>> _pmNotifiers = [];

    /// <summary>
    /// cpuhp_setup_state_nocalls for a state of the STARTING section: the callbacks run on the CPU that comes or goes, interrupts off; they are not called for
    /// CPUs that are online already. Dispose the result to remove the state (cpuhp_remove_state_nocalls).
    /// </summary>
    public KvmResult CpuHotplugSetupNoCalls(string name, Func<HostCpu, KvmResult> startup, Func<HostCpu, KvmResult> teardown, out IDisposable? state)
    {
        state = null;
        if (Faults.ShouldFail("cpuhp_setup_state", name)) return Errno.ENOMEM;
        var s = new HotplugState(name, Online: false, startup, teardown);
        lock (_hotplugStates) _hotplugStates.Add(s);
        state = new Removal(() => { lock (_hotplugStates) _hotplugStates.Remove(s); });
        return 0;
    }

    /// <summary>
    /// cpuhp_setup_state for a state of the ONLINE section: the callbacks run in the CPU's hotplug thread and may sleep; startup is called now for each online
    /// CPU. Dispose the result to remove the state: teardown is called for each online CPU (cpuhp_remove_state), or not (cpuhp_remove_state_nocalls) when
    /// <paramref name="callsAtRemoval"/> is false.
    /// </summary>
    public KvmResult CpuHotplugSetup(string name, Func<HostCpu, KvmResult> startup, Func<HostCpu, KvmResult> teardown, out IDisposable? state, bool callsAtRemoval = true)
    {
        state = null;
        if (Faults.ShouldFail("cpuhp_setup_state", name)) return Errno.ENOMEM;
        var s = new HotplugState(name, Online: true, startup, teardown);
        using KernelScope scope = EnterKernel("cpuhp");
        using var _ = _hotplug.Enter();
        foreach (HostCpu cpu in OnlineCpus) InHotplugThread(scope.Task, cpu, () => startup(cpu));
        lock (_hotplugStates) _hotplugStates.Add(s);
        state = new Removal(() =>
        {
            using KernelScope inner = EnterKernel("cpuhp");
            using var __ = _hotplug.Enter();
            lock (_hotplugStates) _hotplugStates.Remove(s);
            if (!callsAtRemoval) return;
            foreach (HostCpu cpu in OnlineCpus) InHotplugThread(inner.Task, cpu, () => teardown(cpu));
        });
        return 0;
    }

    /// <summary>register_reboot_notifier.</summary>
    public IDisposable RegisterRebootNotifier(Action notifier)
    {
        lock (_rebootNotifiers) _rebootNotifiers.Add(notifier);
        return new Removal(() => { lock (_rebootNotifiers) _rebootNotifiers.Remove(notifier); });
    }

    /// <summary>register_syscore_ops: called with one CPU online and interrupts off.</summary>
    public IDisposable RegisterSyscoreOps(Action suspend, Action resume)
    {
        var ops = new SyscoreOps(suspend, resume);
        lock (_syscore) _syscore.Add(ops);
        return new Removal(() => { lock (_syscore) _syscore.Remove(ops); });
    }

    /// <summary>register_pm_notifier: told before tasks are frozen and after they are thawed.</summary>
    public IDisposable RegisterPmNotifier(Func<PmEvent, KvmResult> notifier)
    {
        LinkedListNode<Func<PmEvent, KvmResult>> node;
        lock (_pmNotifiers) node = _pmNotifiers.AddFirst(notifier);
        return new Removal(() => { lock (_pmNotifiers) _pmNotifiers.Remove(node); });
    }

    /// <summary>Takes a CPU offline: its occupant is preempted, teardown callbacks run on it. -EBUSY for the last one, -EINVAL when it is offline.</summary>
    [KernelFunction("cpu_down", File = "kernel/cpu.c")]
    public KvmResult CpuDown(int cpu)
    {
        if ((uint)cpu >= (uint)Cpus.Count) return Errno.EINVAL;
        using KernelScope scope = EnterKernel("cpuhp");
        using var _ = _hotplug.Enter();
        return CpuDownLocked(scope.Task, Cpus[cpu]);
    }

    /// <summary>Brings a CPU online: startup callbacks run on it. -EINVAL when it is online.</summary>
    [KernelFunction("cpu_up", File = "kernel/cpu.c")]
    public KvmResult CpuUp(int cpu)
    {
        if ((uint)cpu >= (uint)Cpus.Count) return Errno.EINVAL;
        using KernelScope scope = EnterKernel("cpuhp");
        using var _ = _hotplug.Enter();
        return CpuUpLocked(scope.Task, Cpus[cpu]);
    }

    /// <summary>
    /// Suspend to RAM and resume at once: PM notifiers, all CPUs but the first offline, syscore suspend, <paramref name="asleep"/> (the power is off), and the
    /// same backwards.
    /// </summary>
    public KvmResult SuspendResume(Action? asleep = null)
    {
        using KernelScope scope = EnterKernel("suspend");
        HostTask task = scope.Task;
        foreach (var n in Snapshot(_pmNotifiers))
        {
            KvmResult r = n(PmEvent.SuspendPrepare);
            if (r.IsError) return r;
        }

        using (_hotplug.Enter())
        {
            var offlined = new List<HostCpu>();
            foreach (HostCpu cpu in Cpus.Skip(1).Where(c => c.Online))
                if (CpuDownLocked(task, cpu).IsOk) offlined.Add(cpu);
            Stop(task, Cpus[0], stopper =>
            {
                stopper.IrqDepth++;
                foreach (SyscoreOps ops in Enumerable.Reverse(Snapshot(_syscore))) ops.Suspend();
                Cpus[0].Hardware?.OnDead();
                asleep?.Invoke();
                Cpus[0].Hardware?.OnStarting();
                foreach (SyscoreOps ops in Snapshot(_syscore)) ops.Resume();
                stopper.IrqDepth--;
            });
            foreach (HostCpu cpu in offlined) CpuUpLocked(task, cpu);
        }

        foreach (var n in Snapshot(_pmNotifiers)) _ = n(PmEvent.PostSuspend);
        return 0;
    }

    /// <summary>The machine is about to reboot: reboot notifiers run (kvm_reboot disables virtualization everywhere).</summary>
    public void Reboot()
    {
        using KernelScope scope = EnterKernel("reboot");
        foreach (Action notifier in Snapshot(_rebootNotifiers)) notifier();
    }

    private KvmResult CpuDownLocked(HostTask task, HostCpu cpu)
    {
        if (!cpu.Online) return Errno.EINVAL;
        if (OnlineCpuCount == 1) return Errno.EBUSY;
        HotplugState[] states = [.. Enumerable.Reverse(Snapshot(_hotplugStates))];
        foreach (HotplugState s in states.Where(s => s.Online)) InHotplugThread(task, cpu, () => s.Teardown(cpu));
        Stop(task, cpu, stopper =>
        {
            stopper.IrqDepth++;
            cpu.Online = false;
            foreach (HotplugState s in states.Where(s => !s.Online)) _ = s.Teardown(cpu);
            cpu.RunCalls();
            cpu.Hardware?.OnDead();
            stopper.IrqDepth--;
        });
        lock (_schedGate)
            foreach (HostTask waiter in _runQueue)
                if (waiter.Affinity is { } mask && !AnyOnline(mask))
                    Log.Info($"process {waiter.Pid} ({waiter.Name}) no longer affine to cpu{cpu.Id}");
        return 0;
    }

    private KvmResult CpuUpLocked(HostTask task, HostCpu cpu)
    {
        if (cpu.Online) return Errno.EINVAL;
        var spin = new SpinWait();
        while (!cpu.TryOccupy(task)) spin.SpinOnce();
        HostCpu? own = task.Cpu;
        task.Cpu = cpu;
        task.IrqDepth++;
        HotplugState[] states = Snapshot(_hotplugStates);
        using (FunctionTrace.OnOtherCpu(cpu))
        {
            cpu.Hardware?.OnStarting();
            foreach (HotplugState s in states.Where(s => !s.Online)) _ = s.Startup(cpu);
        }

        cpu.Online = true;
        task.IrqDepth--;
        task.Cpu = own;
        ReleaseOccupied(cpu);
        foreach (HotplugState s in states.Where(s => s.Online)) InHotplugThread(task, cpu, () => s.Startup(cpu));
        return 0;
    }

    /// <summary>The CPU's hotplug thread (cpuhp/N) runs the callback while the caller waits.</summary>
    private void InHotplugThread(HostTask caller, HostCpu cpu, Func<KvmResult> callback) =>
        OnThreadOf(caller, cpu, "cpuhp/" + cpu.Id, first: false, _ => callback());

    /// <summary>The CPU's stopper thread (migration/N) gets the CPU before everyone else and runs the action while the caller waits.</summary>
    private void Stop(HostTask caller, HostCpu cpu, Action<HostTask> action) => OnThreadOf(caller, cpu, "migration/" + cpu.Id, first: true, action);

    private void OnThreadOf(HostTask caller, HostCpu cpu, string name, bool first, Action<HostTask> action)
    {
        caller.LeaveCpu(preempted: false);
        var thread = new HostTask(this, null, AllocatePid(), name) { KernelDepth = 1, LastCpu = cpu };
        thread.SetAffinity(cpu.Id);
        HostTask.Current = thread;
        try
        {
            AcquireFor(thread, first);
            using (FunctionTrace.OnOtherCpu(cpu, "task " + thread)) action(thread);
            ReleaseCpu(thread);
        }
        finally
        {
            HostTask.Current = caller;
        }

        caller.ReturnToCpu();
    }

    private static T[] Snapshot<T>(ICollection<T> list)
    {
        lock (list) return [.. list];
    }

    private sealed class Removal(Action remove) : IDisposable
    {
        private Action? _remove = remove;
        public void Dispose() => Interlocked.Exchange(ref _remove, null)?.Invoke();
    }
}
