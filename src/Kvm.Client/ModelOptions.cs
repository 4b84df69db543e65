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

    /// <summary>How many processors the host has.</summary>
    public int Processors { get; set; } = 1;

    /// <summary>Parameters of the KVM modules, such as <c>ept</c> = <c>0</c>, as on modprobe's command line.</summary>
    public IDictionary<string, string> ModuleParameters { get; } = new Dictionary<string, string>(StringComparer.Ordinal);

    /// <summary>Source of all time in the machine and its kernel.</summary>
    public TimeProvider Time { get; set; } = TimeProvider.System;
}
