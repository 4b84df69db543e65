using Kvm.Core.Tracing;
using static Kvm.Arch.X86.MsrIndex;

namespace Kvm.Arch.X86;

/// <summary>What the kernel found out about the processors' performance counters at boot; no counters when they do not count.</summary>
/// <remarks>struct x86_pmu, arch/x86/events/core.c:init_hw_perf_events.</remarks>
public sealed class HostPmu
{
    internal const int IndexFixed = 32;
    private const uint AMD64_NUM_COUNTERS = 4, AMD64_NUM_COUNTERS_CORE = 6;

    private HostPmu(bool intel) => Intel = intel;

    public bool Intel { get; }
    public int Version { get; private init; }
    public int NumCounters { get; private init; }
    public int NumCountersFixed { get; private init; }
    public int CounterBits { get; private init; }
    public int FixedBits { get; private init; }
    /// <summary>Architectural events that the processor does not have, and how many of them it says so of.</summary>
    public uint EventsMask { get; private init; }
    public int EventsMaskLength { get; private init; }
    /// <summary>Counters of family 15h and later: MSRs of their own, six instead of four.</summary>
    internal bool Core { get; private init; }

    internal ulong CounterMask => (1UL << CounterBits) - 1;
    /// <summary>General counters can be written as wide as they are, by MSRs of their own.</summary>
    internal bool FullWidth { get; private init; }
    internal ulong MaxPeriod => Intel && !FullWidth ? (1UL << 31) - 1 : (1UL << (CounterBits - 1)) - 1;
    /// <summary>intel_ctrl: all counters.</summary>
    internal ulong IntelControl => Intel ? ((1UL << NumCounters) - 1) | ((1UL << NumCountersFixed) - 1) << IndexFixed : 0;

    internal uint SelectMsr(int i) => Intel ? MSR_P6_EVNTSEL0 + (uint)i : Core ? MSR_F15H_PERF_CTL0 + (2 * (uint)i) : MSR_K7_EVNTSEL0 + (uint)i;

    internal uint CounterMsr(int i) => i >= IndexFixed ? MSR_CORE_PERF_FIXED_CTR0 + (uint)(i - IndexFixed)
        : Intel ? (FullWidth ? MSR_IA32_PMC0 : MSR_IA32_PERFCTR0) + (uint)i : Core ? MSR_F15H_PERF_CTR0 + (2 * (uint)i) : MSR_K7_PERFCTR0 + (uint)i;

    /// <summary>init_hw_perf_events on the boot CPU; null: software events only.</summary>
    [KernelFunction("init_hw_perf_events", File = "arch/x86/events/core.c")]
    internal static HostPmu? Probe(HostX86Cpu cpu)
    {
        HostPmu? pmu = cpu.CpuData.Vendor switch
        {
            CpuVendorId.Intel => ProbeIntel(cpu),
            CpuVendorId.Amd or CpuVendorId.Hygon => ProbeAmd(cpu),
            _ => null,
        };
        return pmu is not null && pmu.CheckHardwareExists(cpu) ? pmu : null;
    }

    private static HostPmu? ProbeIntel(HostX86Cpu cpu)
    {
        if (!cpu.CpuData.Has(X86Feature.ARCH_PERFMON))
            return null;
        cpu.Cpuid(0xa, 0, out uint eax, out uint ebx, out _, out uint edx);
        int version = (int)(eax & 0xff);
        if (version < 2)
            return null;
        return new HostPmu(true)
        {
            Version = version,
            NumCounters = (int)(eax >> 8 & 0xff),
            CounterBits = (int)(eax >> 16 & 0xff),
            FixedBits = (int)(edx >> 5 & 0xff),
            NumCountersFixed = Math.Max((int)(edx & 0x1f), 3),
            EventsMask = ebx,
            EventsMaskLength = (int)(eax >> 24),
            FullWidth = cpu.CpuData.Has(X86Feature.PDCM) && cpu.RdmsrSafe(MSR_IA32_PERF_CAPABILITIES, out ulong capabilities) && (capabilities & 1 << 13) != 0,
        };
    }

    private static HostPmu ProbeAmd(HostX86Cpu cpu)
    {
        bool core = cpu.CpuData.Has(X86Feature.PERFCTR_CORE);
        return new HostPmu(false) { Version = 1, NumCounters = (int)(core ? AMD64_NUM_COUNTERS_CORE : AMD64_NUM_COUNTERS), CounterBits = 48, Core = core };
    }

    /// <summary>check_hw_exists: a counter keeps what is written to it. Emulators and hypervisors without counters let it be written and forget it.</summary>
    [KernelFunction("check_hw_exists", File = "arch/x86/events/core.c")]
    private bool CheckHardwareExists(HostX86Cpu cpu)
    {
        for (int i = 0; i < NumCounters; i++)
        {
            if (!cpu.RdmsrSafe(SelectMsr(i), out ulong _))
                return false;
        }

        uint msr = CounterMsr(0);
        if (!cpu.RdmsrSafe(msr, out ulong value))
            return false;
        value ^= 0xffff;
        bool kept = cpu.WrmsrSafe(msr, value) && cpu.RdmsrSafe(msr, out ulong now) && now == value;
        if (kept)
            cpu.WrmsrSafe(msr, 0);
        return kept;
    }
}
