using Kvm.Core.Tracing;
using static Kvm.Arch.X86.MsrIndex;

namespace Kvm.Arch.X86;

/// <summary>One CPU's performance counters, and the events that are on them. Used by the thread that occupies the CPU.</summary>
/// <remarks>struct cpu_hw_events, arch/x86/events.</remarks>
public sealed class CpuPmu
{
    private const ulong User = 1 << 16, Os = 1 << 17, Edge = 1 << 18, Interrupt = 1 << 20, Any = 1 << 21, Enable = 1 << 22, Invert = 1 << 23, Threshold = 0xff000000, GuestOnly = 1UL << 40;

    private readonly HostX86Cpu cpu;
    private readonly HostPmu pmu;
    private readonly PerfEvent?[] events = new PerfEvent?[HostPmu.IndexFixed + 4];
    private ulong fixedControl;

    internal CpuPmu(HostX86Cpu cpu, HostPmu pmu)
    {
        this.cpu = cpu;
        this.pmu = pmu;
        if (pmu.Intel)
        {
            cpu.Wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL, 0);
            cpu.Wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, pmu.IntelControl);
        }
    }

    /// <summary>intel_ctrl_guest_mask: counters that count in guests only.</summary>
    internal ulong GuestMask { get; private set; }

    /// <summary>perf_guest_get_msrs: IA32_PERF_GLOBAL_CTRL in the host and in a guest.</summary>
    [KernelFunction("intel_guest_get_msrs", File = "arch/x86/events/intel/core.c")]
    internal (ulong Host, ulong Guest) GlobalControl => (pmu.IntelControl & ~GuestMask, pmu.IntelControl);

    /// <summary>x86_pmu_add and x86_pmu_start: on a free counter, a fixed one before others. It does not count when there is none (a pinned event in error).</summary>
    [KernelFunction("x86_pmu_add", File = "arch/x86/events/core.c")]
    internal void Add(PerfEvent perf)
    {
        if (!perf.Enabled || perf.OnCpu is not null)
            return;
        int i = FreeCounter(perf);
        if (i < 0)
            return;
        events[i] = perf;
        perf.Index = i;
        perf.OnCpu = this;
        StartPeriod(perf);
        Switch(perf, on: true);
    }

    /// <summary>x86_pmu_del: stopped, with what it has counted taken over.</summary>
    [KernelFunction("x86_pmu_del", File = "arch/x86/events/core.c")]
    internal void Remove(PerfEvent perf)
    {
        Switch(perf, on: false);
        Update(perf);
        events[perf.Index] = null;
        perf.Index = -1;
        perf.OnCpu = null;
    }

    /// <summary>x86_perf_event_update.</summary>
    [KernelFunction("x86_perf_event_update", File = "arch/x86/events/core.c")]
    internal ulong Update(PerfEvent perf)
    {
        ulong now = cpu.Rdmsr(pmu.CounterMsr(perf.Index)), delta = now - perf.Previous & pmu.CounterMask;
        perf.Previous = now;
        perf.Counted += delta;
        perf.PeriodLeft -= (long)delta;
        return now;
    }

    /// <summary>perf_event_nmi_handler: counters that have overflowed begin their next period, and their owners hear of it.</summary>
    [KernelFunction("perf_event_nmi_handler", File = "arch/x86/events/core.c")]
    internal void HandleNmi()
    {
        ulong status = 0;
        if (pmu.Intel)
        {
            status = cpu.Rdmsr(MSR_CORE_PERF_GLOBAL_STATUS);
            cpu.Wrmsr(MSR_CORE_PERF_GLOBAL_OVF_CTRL, status);
        }

        for (int i = 0; i < events.Length; i++)
        {
            if (events[i] is not { } perf)
                continue;
            if (pmu.Intel && (status >> i & 1) == 0)
                continue;
            ulong value = Update(perf);

            // AMD: the top bit says that it has not come round yet.
            if (!pmu.Intel && (value >> (pmu.CounterBits - 1)) != 0)
                continue;
            Switch(perf, on: false);
            StartPeriod(perf);
            Switch(perf, on: true);
            perf.Overflow(perf);
        }
    }

    /// <summary>x86_perf_event_set_period: the counter overflows when the rest of the period is over; a rest of one becomes two, as some processors want it.</summary>
    [KernelFunction("x86_perf_event_set_period", File = "arch/x86/events/core.c")]
    private void StartPeriod(PerfEvent perf)
    {
        long left = perf.PeriodLeft, period = (long)perf.SamplePeriod;
        if (left <= -period)
            left = period;
        else if (left <= 0)
            left += period;
        perf.PeriodLeft = left;
        if (left < 2)
            left = 2;
        left = Math.Min(left, (long)pmu.MaxPeriod);
        perf.Previous = (ulong)-left & pmu.CounterMask;
        cpu.Wrmsr(pmu.CounterMsr(perf.Index), perf.Previous);
    }

    private void Switch(PerfEvent perf, bool on)
    {
        int i = perf.Index;
        ulong rings = (perf.ExcludeUser ? 0 : User) | (perf.ExcludeKernel ? 0 : Os);
        if (i >= HostPmu.IndexFixed)
        {
            int shift = 4 * (i - HostPmu.IndexFixed);
            fixedControl &= ~(0xfUL << shift);
            if (on)
                fixedControl |= (8UL | ((rings & Os) != 0 ? 1UL : 0) | ((rings & User) != 0 ? 2UL : 0)) << shift;
            cpu.Wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL, fixedControl);
        }
        else
        {
            ulong select = perf.Config | rings | Interrupt | (pmu.Intel ? 0 : GuestOnly);
            cpu.Wrmsr(pmu.SelectMsr(i), on ? select | Enable : 0);
        }

        if (!pmu.Intel)
            return;
        GuestMask = on ? GuestMask | 1UL << i : GuestMask & ~(1UL << i);
        cpu.Wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, pmu.IntelControl & ~GuestMask);
    }

    /// <summary>Event constraints: three events have fixed counters, which know no thresholds and edges; the TSC's rate has only that one.</summary>
    private int FreeCounter(PerfEvent perf)
    {
        if (pmu.Intel)
        {
            bool plain = (perf.Config & (Edge | Invert | Any | Threshold)) == 0;
            int preferred = (perf.Config & 0xffff) switch { 0xc0 => 0, 0x3c => 1, 0x300 => 2, _ => -1 };
            if (plain && preferred >= 0 && preferred < pmu.NumCountersFixed && events[HostPmu.IndexFixed + preferred] is null)
                return HostPmu.IndexFixed + preferred;
            if (preferred == 2)
                return -1;
        }

        for (int i = 0; i < pmu.NumCounters; i++)
        {
            if (events[i] is null)
                return i;
        }

        return -1;
    }
}
