using Kvm.Core.Tracing;

namespace Kvm.Arch.X86;

/// <summary>The host's performance counters as guests may have them; all 0 when there are none, or <c>enable_pmu</c> is off.</summary>
/// <remarks>struct x86_pmu_capability (kvm_pmu_cap), pmu.h:kvm_init_pmu_capability.</remarks>
public sealed class X86PmuCapability
{
    public int Version;
    public int NumCountersGp;
    public int NumCountersFixed;
    public int BitWidthGp;
    public int BitWidthFixed;
    public uint EventsMask;
    public int EventsMaskLength;

    /// <summary>False: the host has nothing to offer (on Intel only architectural counters can be virtualized).</summary>
    [KernelFunction("kvm_init_pmu_capability", File = "arch/x86/kvm/pmu.h")]
    internal bool Init(HostPmu? host, bool enable)
    {
        Version = NumCountersGp = NumCountersFixed = BitWidthGp = BitWidthFixed = EventsMaskLength = 0;
        EventsMask = 0;
        if (!enable || host is null)
            return false;
        Version = Math.Min(host.Version, 2);
        NumCountersGp = host.NumCounters;
        NumCountersFixed = Math.Min(host.NumCountersFixed, KvmPmu.KVM_PMC_MAX_FIXED);
        BitWidthGp = host.CounterBits;
        BitWidthFixed = host.FixedBits;
        EventsMask = host.EventsMask;
        EventsMaskLength = host.EventsMaskLength;
        return true;
    }
}
