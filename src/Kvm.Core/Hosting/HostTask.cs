using System.Runtime.CompilerServices;

namespace Kvm.Core;

/// <summary>A thread as the kernel sees it (struct task_struct): its process, its CPU, its signals, its sleep state.</summary>
public sealed class HostTask
{
    /// <summary>SIGKILL's number.</summary>
    public const int SIGKILL = 9;

    /// <summary>SIGSTOP's number.</summary>
    public const int SIGSTOP = 19;

    [ThreadStatic]
    private static HostTask? t_current;

    private readonly object _gate = new();
    private IPreemptNotifier? _notifier; // the usual one; more than one is rare
    private List<IPreemptNotifier>? _moreNotifiers;
    private readonly ForcedMoves? _moves;
    private volatile TaskState _state;
    private ulong _pending;
    private ulong _blocked;
    private readonly long _startNs;
    private long _sleptNs;

    internal HostTask(Host? host, HostProcess? process, int pid, string name)
    {
        Host = host!;
        Process = process!;
        Pid = pid;
        Name = name;
        _startNs = host?.KtimeNs ?? 0;
        _moves = host?.NewForcedMoves(~(ulong)pid);
    }

    /// <summary>The calling thread's task ("current"). A thread that never entered a kernel gets one without process and CPU.</summary>
    public static HostTask Current
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => t_current ?? Detached();
        internal set => t_current = value;
    }

    /// <summary>The calling thread's task, or null.</summary>
    public static HostTask? CurrentOrNull => t_current;

    /// <summary>Where <see cref="CurrentOrNull"/> is kept for the calling thread: to look it up costs a call.</summary>
    internal static ref HostTask? CurrentSlot => ref t_current;

    public Host Host { get; }

    /// <summary>The process; null for kernel threads.</summary>
    public HostProcess Process { get; }

    /// <summary>current->mm; null for kernel threads.</summary>
    public Mm Mm => Process?.Mm!;

    /// <summary>The thread's id (task_pid_nr).</summary>
    public int Pid { get; }

    public string Name { get; }

    /// <summary>utime + stime in nanoseconds: the time since the thread's first system call, without its sleeps in the kernel.</summary>
    public ulong RuntimeNs => Host is null ? 0 : (ulong)Math.Max(0, Host.KtimeNs - _startNs - _sleptNs);

    /// <summary>The CPU that the thread occupies, or null outside the kernel model and while it sleeps.</summary>
    public HostCpu? Cpu { get; internal set; }

    /// <summary>The CPU it occupied last; it prefers it.</summary>
    public HostCpu? LastCpu { get; internal set; }

    /// <summary>CPUs it may run on (sched_setaffinity); null = all.</summary>
    public CpuMask? Affinity { get; private set; }

    /// <summary>preempt_count: while above zero the thread must not sleep.</summary>
    public int PreemptCount { get; internal set; }

    /// <summary>The last work that it left to the host's worker in this system call. Only the thread itself.</summary>
    internal HostWork? LeftWork { get; set; }

    /// <summary>Depth of interrupt context and of local_irq_disable on this thread.</summary>
    public int IrqDepth { get; internal set; }

    /// <summary>True when SIGKILL was delivered to it.</summary>
    public bool Killed { get; private set; }

    public TaskState State => _state;

    internal int KernelDepth;
    internal bool Granted;
    internal object Gate => _gate;

    /// <summary>signal_pending(current).</summary>
    public bool SignalPending
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => (Volatile.Read(ref _pending) & ~Volatile.Read(ref _blocked)) != 0;
    }

    /// <summary>fatal_signal_pending(current).</summary>
    public bool FatalSignalPending => (Volatile.Read(ref _pending) & SignalBit(SIGKILL)) != 0;

    /// <summary>The signals that wait (bit n-1 = signal n).</summary>
    public ulong PendingSignals => Volatile.Read(ref _pending);

    /// <summary>The signal mask (bit n-1 = signal n). SIGKILL and SIGSTOP can't be blocked.</summary>
    public ulong BlockedSignals
    {
        get => Volatile.Read(ref _blocked);
        set => Volatile.Write(ref _blocked, value & ~(SignalBit(SIGKILL) | SignalBit(SIGSTOP)));
    }

    /// <summary>current->real_blocked: the mask that KVM_RUN replaced.</summary>
    public ulong RealBlocked { get; set; }

    public static ulong SignalBit(int signal) => 1UL << (signal - 1);

    /// <summary>
    /// Sends a signal: an interruptible sleep ends, a guest that this thread runs exits. Unblocked signals are delivered (handed to the process) when the
    /// system call returns. Any thread may call it.
    /// </summary>
    public void Send(int signal)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(signal, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(signal, 64);
        Interlocked.Or(ref _pending, SignalBit(signal));
        lock (_gate)
        {
            if (_state == TaskState.Interruptible && SignalPending) Monitor.PulseAll(_gate);
            if (_state is TaskState.Killable or TaskState.Interruptible && FatalSignalPending) Monitor.PulseAll(_gate);
        }

        if (SignalPending && this != t_current) Cpu?.SendReschedule(); // kick_process
    }

    /// <summary>Takes a pending signal out without delivering it, as sigtimedwait does. False when it is not pending.</summary>
    public bool Take(int signal) => (Interlocked.And(ref _pending, ~SignalBit(signal)) & SignalBit(signal)) != 0;

    /// <summary>Sets the affinity mask; a thread in the kernel moves at its next safe point. Null = all CPUs.</summary>
    public void SetAffinity(CpuMask? mask)
    {
        Affinity = mask;
        if (Cpu is { } cpu && mask is not null && !mask.Test(cpu.Id))
        {
            cpu.NeedResched = true;
            cpu.SendReschedule();
        }
    }

    /// <summary>Sets the affinity to these CPUs.</summary>
    public void SetAffinity(params int[] cpus) => SetAffinity(new CpuMask(Host.Cpus.Count, cpus));

    internal bool MayRunOn(HostCpu cpu) => Affinity is not { } mask || mask.Test(cpu.Id) || !Host.AnyOnline(mask);

    /// <summary>set_current_state.</summary>
    public void SetState(TaskState state)
    {
        _state = state;
        Interlocked.MemoryBarrier();
    }

    /// <summary>
    /// schedule(): leaves the CPU and sleeps until the state is Running again (wake-up), a signal that this state admits is pending, or the time is over.
    /// Returns at once, without leaving the CPU, when there is nothing to wait for. True when it slept.
    /// </summary>
    [Tracing.KernelFunction("schedule", File = "kernel/sched/core.c")]
    public bool Schedule(TimeSpan? timeout = null)
    {
        lock (_gate)
        {
            if (!MustSleep())
            {
                _state = TaskState.Running;
                return false;
            }
        }

        AssertMaySleep();
        using var _ = Tracing.FunctionTrace.Enter("schedule");
        LeaveCpu(preempted: false);
        long asleep = Host?.KtimeNs ?? 0;
        lock (_gate)
        {
            long deadline = timeout is { } t ? Environment.TickCount64 + (long)Math.Ceiling(t.TotalMilliseconds) : long.MaxValue;
            while (MustSleep())
            {
                if (timeout is null)
                {
                    Monitor.Wait(_gate);
                    continue;
                }

                long left = deadline - Environment.TickCount64;
                if (left <= 0 || !Monitor.Wait(_gate, (int)Math.Min(left, int.MaxValue))) break;
            }

            _state = TaskState.Running;
        }

        _sleptNs += (Host?.KtimeNs ?? 0) - asleep;
        ReturnToCpu();
        return true;
    }

    /// <summary>wake_up_process: true when the task was asleep (or about to be).</summary>
    public bool WakeUp()
    {
        lock (_gate)
        {
            if (_state == TaskState.Running) return false;
            _state = TaskState.Running;
            Monitor.PulseAll(_gate);
            return true;
        }
    }

    /// <summary>preempt_notifier_register.</summary>
    [Tracing.KernelFunction("preempt_notifier_register", File = "kernel/sched/core.c")]
    public void RegisterPreemptNotifier(IPreemptNotifier notifier)
    {
        using var _ = Tracing.FunctionTrace.Enter("preempt_notifier_register");
        if (_notifier is null) _notifier = notifier;
        else (_moreNotifiers ??= []).Add(notifier);
    }

    /// <summary>preempt_notifier_unregister.</summary>
    [Tracing.KernelFunction("preempt_notifier_unregister", File = "kernel/sched/core.c")]
    public void UnregisterPreemptNotifier(IPreemptNotifier notifier)
    {
        using var _ = Tracing.FunctionTrace.Enter("preempt_notifier_unregister");
        if (_notifier == notifier) _notifier = null;
        else _moreNotifiers?.Remove(notifier);
    }

    /// <summary>preempt_disable.</summary>
    public void PreemptDisable() => PreemptCount++;

    /// <summary>preempt_enable.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void PreemptEnable()
    {
        PreemptCount--;
        if (_moves is not null) PreemptionPoint(rare: false);
    }

    /// <summary>preempt_enable at the end of a lock's section.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void LeaveAtomic()
    {
        PreemptCount--;
        if (_moves is not null) PreemptionPoint(rare: true);
    }

    /// <summary>local_irq_disable: queued functions and interrupts wait; a guest entry with one pending exits at once.</summary>
    public void LocalIrqDisable() => IrqDepth++;

    /// <summary>local_irq_enable: takes what waited.</summary>
    public void LocalIrqEnable()
    {
        IrqDepth--;
        if (IrqDepth == 0) Cpu?.ServiceInterrupts();
    }

    /// <summary>might_sleep(): our own bug when it fails.</summary>
    public void AssertMaySleep()
    {
        if (PreemptCount > 0 || IrqDepth > 0)
            throw new InvalidOperationException($"BUG: scheduling while atomic: {Name}/{Pid} (preempt_count {PreemptCount}, irq depth {IrqDepth})");
    }

    /// <summary>preempt_schedule under <see cref="HostOptions.PreemptionSeed"/>: someone always wants this CPU.</summary>
    private void PreemptionPoint(bool rare)
    {
        if (PreemptCount > 0 || IrqDepth > 0 || KernelDepth == 0 || Cpu is not { } cpu) return;
        ForcedMoves moves = _notifier?.Moves ?? _moves!;
        if (rare && moves.Stays()) return;
        Host.Preempt(this, moves.Choose(this, cpu));
    }

    internal void LeaveCpu(bool preempted)
    {
        if (Cpu is null) return;
        _notifier?.SchedOut(preempted);
        _moreNotifiers?.ForEach(n => n.SchedOut(preempted));
        Host.ReleaseCpu(this);
    }

    internal void ReturnToCpu()
    {
        if (KernelDepth == 0) return;
        Host.AcquireCpu(this);
        _notifier?.SchedIn(Cpu!);
        _moreNotifiers?.ForEach(n => n.SchedIn(Cpu!));
    }

    /// <summary>Exit to user mode: hands unblocked pending signals to the process.</summary>
    internal void DeliverSignals()
    {
        while (SignalPending)
        {
            ulong ready = Volatile.Read(ref _pending) & ~Volatile.Read(ref _blocked);
            int signal = System.Numerics.BitOperations.TrailingZeroCount(ready) + 1;
            if (!Take(signal)) continue;
            if (signal == SIGKILL) Killed = true;
            Process?.OnSignal(this, signal);
        }
    }

    private bool MustSleep() => _state switch
    {
        TaskState.Running => false,
        TaskState.Interruptible => !SignalPending,
        TaskState.Killable => !FatalSignalPending,
        _ => true,
    };

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static HostTask Detached() => t_current = new HostTask(null, null, 0, "swapper");

    public override string ToString() => $"{Name}-{Pid}";
}
