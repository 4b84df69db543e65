using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Kvm.Abi;
using Kvm.Vmm.Migration;

namespace Kvm.Vmm.Tests.Migration;

/// <summary>What differs between two saved states, but for what time changes: clock, time-stamp counters, timers that count down.</summary>
internal static class StateComparison
{
    /// <summary>The TSC; Hyper-V's counters of a processor's run time and of the reference time.</summary>
    private static readonly HashSet<uint> s_clocks = [0x10, 0x40000010, 0x40000020];

    private const int TimerCurrentCount = 0x390;

    /// <summary>KVM_SET_LAPIC computes it before it knows what is in service; the kernel does so again before it uses it.</summary>
    private const int ProcessorPriority = 0xa0;

    public static IReadOnlyList<string> Differences(VmState a, VmState b)
    {
        var found = new List<string>();
        Compare(found, "irqchips", Bytes(a.Irqchips), Bytes(b.Irqchips));
        Compare(found, "PIT", Bytes([Timeless(a.Pit)]), Bytes([Timeless(b.Pit)]));
        Compare(found, "routing", Bytes(a.Routing ?? []), Bytes(b.Routing ?? []));
        a.Vcpus.Should().HaveSameCount(b.Vcpus);
        foreach ((VcpuState x, VcpuState y) in a.Vcpus.Zip(b.Vcpus)) Differences(found, x, y);
        return found;
    }

    private static void Differences(List<string> found, VcpuState a, VcpuState b)
    {
        string vcpu = $"vCPU {a.Id}: ";
        Compare(found, vcpu + "CPUID", Bytes(a.Cpuid), Bytes(b.Cpuid));
        Compare(found, vcpu + "TSC kHz", a.TscKhz, b.TscKhz);
        Compare(found, vcpu + "mp_state", a.MpState, b.MpState);
        Compare(found, vcpu + "regs", a.Regs, b.Regs);
        Compare(found, vcpu + "sregs2", a.SRegs, b.SRegs);
        Compare(found, vcpu + "sregs", Bytes([a.OldSRegs ?? default]), Bytes([b.OldSRegs ?? default]));
        Compare(found, vcpu + "xsave", a.Xsave, b.Xsave);
        Compare(found, vcpu + "xcrs", a.Xcrs, b.Xcrs);
        Compare(found, vcpu + "debugregs", a.DebugRegs, b.DebugRegs);
        Compare(found, vcpu + "events", a.Events, b.Events);
        Compare(found, vcpu + "nested", a.Nested ?? [], b.Nested ?? []);
        Compare(found, vcpu + "lapic", Timeless(a.Lapic), Timeless(b.Lapic));
        foreach ((kvm_msr_entry x, kvm_msr_entry y) in a.Msrs.Zip(b.Msrs))
        {
            if (x.index != y.index) found.Add($"{vcpu}MSR 0x{x.index:x} against 0x{y.index:x}");
            else if (x.data != y.data && !s_clocks.Contains(x.index)) found.Add($"{vcpu}MSR 0x{x.index:x}: 0x{x.data:x} became 0x{y.data:x}");
        }

        if (a.Msrs.Length != b.Msrs.Length) found.Add($"{vcpu}{a.Msrs.Length} MSRs became {b.Msrs.Length}");
    }

    private static byte[] Timeless(kvm_lapic_state? lapic)
    {
        byte[] registers = Bytes([lapic ?? default]);
        registers.AsSpan(TimerCurrentCount, 4).Clear();
        registers.AsSpan(ProcessorPriority, 4).Clear();
        return registers;
    }

    /// <summary>The time when a channel was loaded says when it will be due, in nanoseconds of the host.</summary>
    private static kvm_pit_state2 Timeless(kvm_pit_state2? pit)
    {
        kvm_pit_state2 state = pit ?? default;
        foreach (ref kvm_pit_channel_state channel in MemoryMarshal.CreateSpan(ref Unsafe.As<kvm_pit_state2, kvm_pit_channel_state>(ref state), 3)) channel.count_load_time = 0;
        return state;
    }

    private static byte[] Bytes<T>(T[] values) where T : unmanaged => MemoryMarshal.AsBytes(values.AsSpan()).ToArray();

    private static void Compare<T>(List<string> found, string what, T a, T b) where T : unmanaged => Compare(found, what, Bytes([a]), Bytes([b]));

    private static void Compare(List<string> found, string what, byte[] a, byte[] b)
    {
        if (a.AsSpan().SequenceEqual(b)) return;
        int at = a.AsSpan().CommonPrefixLength(b);
        found.Add($"{what} differ from byte 0x{at:x}: {Convert.ToHexString(a.AsSpan(at, Math.Min(16, a.Length - at)))} became {Convert.ToHexString(b.AsSpan(at, Math.Min(16, b.Length - at)))}");
    }
}
