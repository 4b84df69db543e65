using System.Runtime.CompilerServices;

namespace Kvm.Core;

/// <remarks>CPU occupancy: who runs where, who waits, who is asked to leave.</remarks>
public sealed partial class Host
{
    private readonly object _schedGate = new();
    private readonly LinkedList<HostTask> _runQueue = new();
    private int _waiting;

    /// <summary>Threads that wait for a CPU.</summary>
    public int RunQueueLength => Volatile.Read(ref _waiting);

    /// <summary>
    /// Enters the kernel as a kernel thread (or stays in it, when the thread is inside already): occupies a CPU until disposed. System calls do this by
    /// themselves; timers, tests and module loading use it.
    /// </summary>
    public KernelScope EnterKernel(string name = "kthread")
    {
        HostTask? previous = HostTask.CurrentOrNull;
        HostTask task = previous is { KernelDepth: > 0 } && previous.Host == this ? previous : new HostTask(this, null, AllocatePid(), name);
        return Enter(task);
    }

    /// <summary>Enters the kernel as <paramref name="task"/>: a system call, or a test that plays one.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public KernelScope Enter(HostTask task)
    {
        ref HostTask? current = ref HostTask.CurrentSlot;
        HostTask? previous = current;
        current = task;
        if (task.KernelDepth++ == 0) AcquireCpu(task);
        return new KernelScope(task, previous, ref current);
    }

    /// <summary>In the kernel until disposed.</summary>
    public readonly ref struct KernelScope
    {
        private readonly HostTask _task;
        private readonly HostTask? _previous;
        private readonly ref HostTask? _current;

        internal KernelScope(HostTask task, HostTask? previous, ref HostTask? current)
        {
            _task = task;
            _previous = previous;
            _current = ref current;
        }

        /// <summary>The task that entered.</summary>
        public HostTask Task => _task;

        /// <summary>Leaves: services the CPU's interrupts, delivers signals, gives the CPU free.</summary>
        public void Dispose()
        {
            if (--_task.KernelDepth == 0)
            {
                if (_task.Cpu is { UserReturnNotifier: { } notify } cpu) notify(cpu);
                _task.Host.ReleaseCpu(_task);
                if (_task.LeftWork is not null) _task.Host.AwaitLeftWork(_task);
                if (_task.SignalPending) _task.DeliverSignals();
            }

            _current = _previous;
        }
    }

    /// <summary>need_resched(): another thread waits for this CPU, or the thread must move.</summary>
    public bool NeedResched => CurrentCpu.NeedResched;

    /// <summary>cond_resched(): services interrupts and gives the CPU to a waiting thread when one asked for it. True when it was given away.</summary>
    public bool CondResched()
    {
        HostTask task = HostTask.Current;
        if (task.Cpu is not { } cpu || task.IrqDepth > 0) return false;
        if (cpu.WorkPending) cpu.ServiceInterrupts();
        if (!cpu.NeedResched || task.PreemptCount > 0) return false;
        Yield(task);
        return true;
    }

    /// <summary>schedule() of a runnable task: leaves the CPU, waits for one, comes back (kvm_sched_out, kvm_sched_in).</summary>
    public void Yield() => Yield(HostTask.Current);

    private static void Yield(HostTask task)
    {
        task.AssertMaySleep();
        using var _ = Tracing.FunctionTrace.Enter("schedule");
        if (task.Cpu is { } cpu) cpu.NeedResched = false;
        task.LeaveCpu(preempted: true);
        task.ReturnToCpu();
    }

    /// <summary>Takes the task off its CPU and puts it on <paramref name="next"/>, or on another one when that is busy.</summary>
    internal static void Preempt(HostTask task, HostCpu next)
    {
        using var _ = Tracing.FunctionTrace.Enter("schedule");
        task.Cpu!.NeedResched = false;
        task.LeaveCpu(preempted: true);
        task.LastCpu = next;
        task.ReturnToCpu();
    }

    /// <summary>The moves of a task or a vCPU; null when nothing forces them.</summary>
    internal ForcedMoves? NewForcedMoves(ulong owner) => Options.PreemptionSeed is { } seed ? new ForcedMoves(seed, owner) : null;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void AcquireCpu(HostTask task)
    {
        HostCpu? last = task.LastCpu;
        if (last is not null && (task.Affinity is null || task.MayRunOn(last)) && last.TryOccupy(task))
        {
            if (last.Online)
            {
                task.Cpu = last;
                return;
            }

            ReleaseOccupied(last);
        }

        AcquireSlow(task);
    }

    internal void ReleaseCpu(HostTask task)
    {
        HostCpu cpu = task.Cpu!;
        if (cpu.WorkPending) cpu.ServiceInterrupts();
        task.LastCpu = cpu;
        task.Cpu = null;
        ReleaseOccupied(cpu);
    }

    /// <summary>Gives the CPU free; runs what was queued for it meanwhile; hands it to a waiter.</summary>
    private void ReleaseOccupied(HostCpu cpu)
    {
        // Vacate is a full fence: whoever queued before it is seen below, whoever queues after it finds the CPU idle.
        cpu.Vacate();
        if (cpu.HasCalls) RunOnIdle(cpu);
        if (Volatile.Read(ref _waiting) != 0) HandOver(cpu);
    }

    private void HandOver(HostCpu cpu)
    {
        lock (_schedGate)
        {
            for (var node = _runQueue.First; node is not null; node = node.Next)
            {
                HostTask waiter = node.Value;
                if (!cpu.Online || !waiter.MayRunOn(cpu)) continue;
                if (!cpu.TryOccupy(waiter)) return;
                cpu.NeedResched = false;
                _runQueue.Remove(node);
                Interlocked.Decrement(ref _waiting);
                lock (waiter.Gate)
                {
                    waiter.Cpu = cpu;
                    waiter.Granted = true;
                    Monitor.PulseAll(waiter.Gate);
                }

                return;
            }
        }
    }

    private bool TryAcquireAny(HostTask task)
    {
        int first = task.LastCpu?.Id ?? 0;
        for (int i = 0; i < Cpus.Count; i++)
        {
            HostCpu cpu = Cpus[(first + i) % Cpus.Count];
            if (!cpu.Online || !task.MayRunOn(cpu) || !cpu.TryOccupy(task)) continue;
            if (cpu.Online)
            {
                task.Cpu = cpu;
                return true;
            }

            ReleaseOccupied(cpu);
        }

        return false;
    }

    /// <summary>Waits for a CPU that the task may run on; <paramref name="first"/> = before all others, and at once.</summary>
    private void AcquireFor(HostTask task, bool first) => AcquireSlow(task, first);

    [MethodImpl(MethodImplOptions.NoInlining)]
    private void AcquireSlow(HostTask task, bool first = false)
    {
        if (TryAcquireAny(task)) return;
        lock (_schedGate)
        {
            task.Granted = false;
            if (first) _runQueue.AddFirst(task);
            else _runQueue.AddLast(task);
            Interlocked.Increment(ref _waiting);
            // A CPU that became idle before we were counted has not seen us; grants wait for the gate.
            if (TryAcquireAny(task))
            {
                _runQueue.Remove(task);
                Interlocked.Decrement(ref _waiting);
                return;
            }
        }

        int slice = (int)Math.Max(1, Options.TimeSliceNs / 1_000_000);
        if (first) RequestResched(task);
        for (; ; )
        {
            lock (task.Gate)
            {
                if (task.Granted || (Monitor.Wait(task.Gate, slice) && task.Granted)) return;
            }

            RequestResched(task);
        }
    }

    /// <summary>The time slice of those who run is over: ask one of them to leave.</summary>
    private void RequestResched(HostTask waiter)
    {
        int first = (waiter.LastCpu?.Id ?? 0) + Environment.TickCount;
        for (int i = 0; i < Cpus.Count; i++)
        {
            HostCpu cpu = Cpus[(int)((uint)(first + i) % (uint)Cpus.Count)];
            if (!cpu.Online || !waiter.MayRunOn(cpu) || cpu.NeedResched) continue;
            if (cpu.Occupant is null)
            {
                HandOver(cpu);
                return;
            }

            cpu.NeedResched = true;
            cpu.SendReschedule();
            return;
        }
    }
}
