using System.IO.Pipelines;

namespace Kvm.Vmm;

/// <summary>What a <see cref="Pc"/> is made of.</summary>
public sealed record PcOptions
{
    /// <summary>Bytes of RAM; whole pages, at least 1 MiB.</summary>
    public ulong Memory { get; init; } = 128UL << 20;

    /// <summary>Processors: 1 to <see cref="MostProcessors"/>. More than one need the kernel's interrupt controllers.</summary>
    public int Processors { get; init; } = 1;

    /// <summary>APIC ids have eight bits, and 255 is everybody.</summary>
    public const int MostProcessors = 255;

    /// <summary>What the guest sends through COM1.</summary>
    public PipeWriter? Output { get; init; }

    /// <summary>What the guest writes to the debug console, port 0xe9; BIOS teletype output goes there too.</summary>
    public PipeWriter? DebugOutput { get; init; }

    /// <summary>What firmware writes to its debug console, port 0x402; null: there is none, which firmware notices.</summary>
    public PipeWriter? FirmwareOutput { get; init; }

    /// <summary>What the guest receives through COM1.</summary>
    public PipeReader? Input { get; init; }

    /// <summary>The clock's time.</summary>
    public TimeProvider Time { get; init; } = TimeProvider.System;

    /// <summary>
    /// Bits of physical addresses that CPUID tells at most; null: the host's. Firmware that maps all of them in 2 MiB pages, as OVMF does, needs 2 GiB of tables for 47.
    /// </summary>
    public int? PhysicalBits { get; init; }

    /// <summary>Interrupt controllers and timer: true the kernel's, false the VMM's own, null the kernel's where KVM_CAP_IRQCHIP says that there are some.</summary>
    public bool? Irqchip { get; init; }

    /// <summary>The guest finds Hyper-V instead of KVM: its clock, its timers, its hypercalls. Needs the kernel's interrupt controllers.</summary>
    public bool Hyperv { get; init; }
}
