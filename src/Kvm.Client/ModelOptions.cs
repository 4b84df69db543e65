using Kvm.Emulator;

namespace Kvm.Client;

/// <summary>The computer that the model runs on, and how its KVM is loaded.</summary>
public sealed class ModelOptions
{
    /// <summary>Which vendor's default processor; <see cref="Cpu"/> overrides it.</summary>
    public CpuVendor Vendor { get; set; } = CpuVendor.Intel;

    /// <summary>The processor model; null: the vendor's default one.</summary>
    public CpuModel? Cpu { get; set; }

    internal CpuModel Processor => Cpu ?? (Vendor == CpuVendor.Intel ? CpuModel.IntelSkylake : CpuModel.AmdZen);

    /// <summary>How many processors the host has: 1 to <see cref="MostProcessors"/>.</summary>
    /// <exception cref="ArgumentOutOfRangeException">Not so many.</exception>
    public int Processors
    {
        get;
        set
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, 1);
            ArgumentOutOfRangeException.ThrowIfGreaterThan(value, MostProcessors);
            field = value;
        }
    } = 1;

    /// <summary>More processors than any host needs, and fewer than fill this process's memory.</summary>
    public const int MostProcessors = 1024;

    /// <summary>Parameters of the KVM modules, as on modprobe's command line: <c>ept</c> = <c>0</c> of the vendor's module, <c>kvm.ignore_msrs</c> = <c>1</c> of kvm.</summary>
    public IDictionary<string, string> ModuleParameters { get; } = new Dictionary<string, string>(StringComparer.Ordinal);

    /// <summary>
    /// A scheduler that preempts a vCPU at every VM exit and moves it to another of the host's processors, as this number says; see
    /// <see cref="Kvm.Core.HostOptions.PreemptionSeed"/>. Null: vCPUs stay where they are.
    /// </summary>
    public ulong? PreemptionSeed { get; set; }

    /// <summary>Who executes the guests' instructions.</summary>
    public EngineOptions Engine { get; set; } = EngineOptions.Default;

    /// <summary>Source of all time in the machine and its kernel.</summary>
    public TimeProvider Time
    {
        get;
        set
        {
            ArgumentNullException.ThrowIfNull(value);
            field = value;
        }
    } = TimeProvider.System;
}
