using System.Collections.Concurrent;
using System.Runtime.CompilerServices;

namespace Kvm.Core;

/// <summary>
/// One CPU of the host: what a thread occupies while it is in the kernel model. Carries the emulated processor, and the queue of functions that other CPUs
/// asked it to run.
/// </summary>
public sealed class HostCpu
{
    private readonly ConcurrentQueue<CpuCall> _calls = new();
    private HostTask? _occupant;
    private int _callCount;
    private volatile bool _needResched;
    private volatile bool _online = true;

    internal HostCpu(Host host, int id)
    {
        Host = host;
        Id = id;
    }

    public Host Host { get; }

    /// <summary>smp_processor_id() of code that runs here.</summary>
    public int Id { get; }

    /// <summary>cpu_online.</summary>
    public bool Online
    {
        get => _online;
        internal set => _online = value;
    }

    /// <summary>The silicon, bound by the architecture; null in tests without one.</summary>
    public ICpuHardware? Hardware { get; set; }

    /// <summary>The task that runs here, or null when the CPU is idle.</summary>
    public HostTask? Occupant => Volatile.Read(ref _occupant);

    /// <summary>TIF_NEED_RESCHED of the current occupant: it should give the CPU to a waiting thread at its next safe point.</summary>
    public bool NeedResched
    {
        get => _needResched;
        internal set => _needResched = value;
    }

    /// <summary>user_return_notifier: called on this CPU when its task next leaves the kernel; the callee removes itself.</summary>
    public Action<HostCpu>? UserReturnNotifier { get; set; }

    /// <summary>Interrupts that the host took here, for statistics and tests.</summary>
    public long InterruptCount { get; private set; }

    internal bool HasCalls => Volatile.Read(ref _callCount) != 0;

    /// <summary>True when something waits for this CPU to service its interrupts.</summary>
    public bool WorkPending
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => Volatile.Read(ref _callCount) != 0 || (Hardware is { } hw && hw.InterruptPending);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal bool TryOccupy(HostTask task) => Interlocked.CompareExchange(ref _occupant, task, null) is null;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Vacate() => Interlocked.Exchange(ref _occupant, null);

    /// <summary>smp_send_reschedule: makes a guest that runs here exit and its thread look at its flags.</summary>
    public void SendReschedule() => Hardware?.RaiseInterrupt(Host.RescheduleVector);

    /// <summary>apic->send_IPI: an interrupt for this CPU. Any thread.</summary>
    public void SendVector(byte vector) => Hardware?.RaiseInterrupt(vector);

    internal void Enqueue(CpuCall call)
    {
        _calls.Enqueue(call);
        Interlocked.Increment(ref _callCount);
        Hardware?.RaiseInterrupt(Host.CallFunctionVector);
    }

    /// <summary>
    /// Takes pending interrupts and runs queued functions. A safe point: called by the occupant with interrupts enabled. Does nothing in interrupt context.
    /// </summary>
    public void ServiceInterrupts()
    {
        if (!WorkPending) return;
        HostTask task = HostTask.Current;
        if (task.IrqDepth > 0) return;
        task.IrqDepth++;
        try
        {
            if (Hardware is { } hw)
            {
                int vector;
                while ((vector = hw.AcknowledgeInterrupt()) >= 0) HandleInterrupt((byte)vector);
            }

            RunCalls();
        }
        finally
        {
            task.IrqDepth--;
        }
    }

    /// <summary>
    /// The host's handler of one vector, interrupts off: what the IDT entry does (also called with the vector that a VM exit acknowledged).
    /// </summary>
    public void HandleInterrupt(byte vector)
    {
        InterruptCount++;
        if (vector == Host.CallFunctionVector) RunCalls();
        else if (vector != Host.RescheduleVector) Host.DispatchVector(this, vector);
    }

    internal void RunCalls()
    {
        while (_calls.TryDequeue(out CpuCall? call))
        {
            Interlocked.Decrement(ref _callCount);
            call.Run();
        }
    }

    public override string ToString() => $"cpu{Id}";
}
