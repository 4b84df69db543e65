using Kvm.Emulator.Engine;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator;

/// <summary>The emulated machine: processors, physical memory, a bus and a clock.</summary>
/// <remarks>Processors leave the constructor as firmware hands over: reset done, BIOS settings programmed, real mode, ready for EnterKernelMode or Run.</remarks>
public sealed class Machine : IDisposable
{
    private readonly Processor[] processors;
    private readonly long epochTimestamp;

    public Machine(MachineOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        Bus = options.Bus ?? OpenBus.Instance;
        Time = options.Time;
        VectorEngine = options.VectorEngine;
        Engine = options.Engine;
        epochTimestamp = Time.GetTimestamp();
        Memory = new PhysicalMemory(this);
        processors = new Processor[options.Processors.Count];
        for (int i = 0; i < processors.Length; i++)
            processors[i] = new Processor(this, i, options.Processors[i].Model, options.Processors[i].Bios);
    }

    public Machine(CpuModel model, int processorCount = 1) : this(MachineOptions.Uniform(model, processorCount)) { }

    public IReadOnlyList<Processor> Processors => processors;
    public PhysicalMemory Memory { get; }
    public IMachineBus Bus { get; set; }
    public TimeProvider Time { get; }
    /// <summary>Who computes vector and x87 instructions.</summary>
    public VectorEngine VectorEngine { get; }
    /// <summary>Who executes instructions.</summary>
    public EngineOptions Engine { get; }
    /// <summary>Physical pages with decoded code.</summary>
    internal CodePages CodePages { get; } = new();

    internal ReadOnlySpan<Processor> ProcessorSpan => processors;

    /// <summary>Ticks of <see cref="Time"/> since the machine was built.</summary>
    internal ulong Ticks => (ulong)(Time.GetTimestamp() - epochTimestamp);

    /// <summary>Asks every processor that executes instructions to drop translations and decoded code at its next boundary.</summary>
    internal void FlushAll(Processor? except = null)
    {
        foreach (Processor cpu in processors)
            if (cpu is not null && cpu != except)
                cpu.Request(ExitRequests.Flush);
    }

    /// <summary>RAM was withdrawn: returns when no processor uses it any more, so that it may be unmapped.</summary>
    internal void LeaveWithdrawnMemory()
    {
        FlushAll();
        // Whoever began to execute before this is seen below; whoever begins later finds the memory gone.
        Interlocked.MemoryBarrierProcessWide();
        foreach (Processor cpu in processors)
            cpu?.LeaveWithdrawnMemory();
    }

    public void Dispose()
    {
        foreach (Processor cpu in processors)
            cpu.Dispose();
        Memory.Dispose();
    }
}
