namespace Kvm.Emulator.Tests.Differential;

/// <summary>Tests that install signal handlers run one after another.</summary>
[CollectionDefinition("host signals", DisableParallelization = true)]
public sealed class HostSignals;
