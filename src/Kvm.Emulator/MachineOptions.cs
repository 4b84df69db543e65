using Kvm.Emulator.Vector;

namespace Kvm.Emulator;

/// <summary>One processor of a machine: its model and what the firmware did to it.</summary>
public sealed record ProcessorOptions(CpuModel Model)
{
    public BiosSettings Bios { get; init; } = BiosSettings.Default;
}

/// <summary>How a machine is built.</summary>
public sealed record MachineOptions
{
    /// <summary>The processors, in order of their index; they may differ.</summary>
    public required IReadOnlyList<ProcessorOptions> Processors { get; init; }
    /// <summary>Ports and devices; null: <see cref="OpenBus"/>.</summary>
    public IMachineBus? Bus { get; init; }
    /// <summary>Source of all time (ARCHITECTURE D9).</summary>
    public TimeProvider Time { get; init; } = TimeProvider.System;
    /// <summary>Who computes vector and x87 instructions.</summary>
    public VectorEngine VectorEngine { get; init; }
    /// <summary>Who executes instructions.</summary>
    public EngineOptions Engine { get; init; } = EngineOptions.Default;

    /// <summary><paramref name="count"/> processors of one model.</summary>
    public static MachineOptions Uniform(CpuModel model, int count = 1, BiosSettings? bios = null) => new()
    {
        Processors = [.. Enumerable.Range(0, count).Select(_ => new ProcessorOptions(model) { Bios = bios ?? BiosSettings.Default })],
    };
}
