namespace Kvm.Arch.X86;

/// <summary>The host's performance counters. The machine has none that the kernel could share, so everything is 0 and enable_pmu is off.</summary>
/// <remarks>struct x86_pmu_capability (kvm_pmu_cap), pmu.h:kvm_init_pmu_capability.</remarks>
public sealed class X86PmuCapability
{
    public int Version;
    public int NumCountersGp;
    public int NumCountersFixed;
    public int BitWidthGp;
    public int BitWidthFixed;
    public uint EventsMask;
}
