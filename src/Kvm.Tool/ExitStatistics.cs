using System.Globalization;
using System.Runtime.InteropServices;
using Kvm.Client;
using Kvm.Vmm;
using static Kvm.Abi.Uapi;

namespace Kvm.Tool;

/// <summary>What <c>kvm run --stats</c> tells: exits to userspace by reason, the ports and addresses they went to, the kernel's own counters.</summary>
internal sealed class ExitStatistics
{
    private const int MostPlaces = 8;

    private readonly Dictionary<(int Reason, ulong Place), long> _places = [];
    private readonly Pc _pc;

    /// <summary>Counts from now on.</summary>
    public ExitStatistics(Pc pc)
    {
        _pc = pc;
        foreach (VcpuLoop loop in pc.Loops) loop.Observer = Count;
    }

    public void Write(TextWriter output, TimeSpan elapsed)
    {
        Line(output, $"{elapsed.TotalSeconds:0.00} s, {_pc.Loops.Sum(static l => l.Exits)} exits to userspace:");
        foreach ((int reason, long count) in Sums(_pc.Loops.SelectMany(static l => l.ExitsByReason))) Line(output, $"{count,12} {ExitNames.Of(reason)}");
        if (_places.Count > 0) Line(output, $"where most of them went:");
        foreach (((int reason, ulong place), long count) in _places.OrderByDescending(p => p.Value).Take(MostPlaces))
            Line(output, $"{count,12} {(reason == KVM_EXIT_IO ? "port" : "page")} 0x{place:x}");
        Line(output, $"the kernel's counters of the {(_pc.Vcpus.Count == 1 ? "vCPU" : "vCPUs")} that are not 0:");
        foreach ((string name, long value) in Sums(_pc.Vcpus.SelectMany(static v => v.ReadStats()).Where(static s => s.Value != 0 && !s.Key.EndsWith("_ns", StringComparison.Ordinal)).Select(static s => KeyValuePair.Create(s.Key, (long)s.Value))))
            Line(output, $"{value,12} {name}");
    }

    /// <summary>Of all vCPUs, largest first.</summary>
    private static IEnumerable<KeyValuePair<T, long>> Sums<T>(IEnumerable<KeyValuePair<T, long>> counts) =>
        counts.GroupBy(static c => c.Key, static (key, same) => KeyValuePair.Create(key, same.Sum(static c => c.Value))).OrderByDescending(static c => c.Value);

    private void Count(VcpuExit exit)
    {
        if (exit.Reason is not (KVM_EXIT_IO or KVM_EXIT_MMIO)) return;
        ulong place = exit.Reason == KVM_EXIT_IO ? exit.Io.Port : exit.Mmio.Address & ~0xfffUL;
        lock (_places) CollectionsMarshal.GetValueRefOrAddDefault(_places, (exit.Reason, place), out _)++;
    }

    private static void Line(TextWriter output, FormattableString text) => output.WriteLine("kvm: " + text.ToString(CultureInfo.InvariantCulture));
}
