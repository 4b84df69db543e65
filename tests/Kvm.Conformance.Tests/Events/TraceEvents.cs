using System.Collections.Concurrent;
using System.Globalization;
using System.Text.RegularExpressions;
using Xunit.Abstractions;

namespace Kvm.Conformance.Tests.Events;

/// <summary>
/// The 16-bit guest of the recordings on real kernels and on the model: the tracepoint events in the kernel's own text, in order, and every field that userspace
/// sees at each exit. Each difference has a reason here.
/// </summary>
public sealed partial class TraceEvents(ITestOutputHelper output)
{
    /// <summary>Events that the recorded kernel's memory management caused: its pages were copied on write, which this process's are not.</summary>
    private static readonly string[] s_ofTheMachine = ["kvm_unmap_hva_range", "kvm_set_spte_hva"];

    private static readonly ConcurrentDictionary<(string, string), (RecordedGuest Recorded, GuestRun Model)> s_runs = new();

    public static TheoryData<string, string, string> Recordings => new()
    {
        { "amd", "default", "" },
        { "intel", "default", "nested=1" },
        { "intel", "unrestricted0", "nested=1 unrestricted_guest=0" },
        { "intel", "ept0", "nested=1 ept=0" },
        { "amd", "npt0", "npt=0" },
    };

    [Theory, MemberData(nameof(Recordings))]
    public void Exits_show_userspace_what_they_showed(string vendor, string variant, string parameters)
    {
        (RecordedGuest recorded, GuestRun model) = Of(vendor, variant, parameters);
        List<string> differences = [];
        model.Exits.Should().HaveCount(recorded.Exits.Count);
        int compared = 0;
        foreach ((Dictionary<string, string> expected, Dictionary<string, string> actual, int n) in recorded.Exits.Select((e, i) => (GuestRun.Flatten(e), model.Exits[i], i)))
        {
            foreach ((string field, string value) in expected)
            {
                compared++;
                if (actual.GetValueOrDefault(field) is var seen && seen != value) differences.Add($"exit {n}: {field} {value}, here {seen}");
            }
        }

        output.WriteLine($"{compared} fields compared, {differences.Count} differ");
        differences.Should().BeEmpty();
    }

    [Theory, MemberData(nameof(Recordings))]
    public void Events_are_the_recorded_ones_in_order(string vendor, string variant, string parameters)
    {
        (RecordedGuest recorded, GuestRun model) = Of(vendor, variant, parameters);
        string[] expected = [.. recorded.Events.Where(static e => !s_ofTheMachine.Contains(e[..e.IndexOf(':')])).Select(Normal)], actual = [.. model.Events.Where(static e => !s_ofTheMachine.Contains(e[..e.IndexOf(':')])).Select(Normal)];
        List<string> differences = Differences(expected, actual);
        output.WriteLine($"{expected.Length} events, {differences.Count(static d => d[0] == '-')} not here, {differences.Count(static d => d[0] == '+')} too many");
        foreach (string difference in differences) output.WriteLine(difference);
        bool shadow = variant is "ept0" or "npt0";
        differences.Where(d => !shadow || !s_explained.Any(e => e.IsMatch(d))).Should().BeEmpty();
    }

    /// <summary>
    /// Without nested paging: entries made in advance for pages that the recorded process had not touched yet, and the fault at 1069 that they spare (D-X86-6); a
    /// physical interrupt that happened to come; slots of KVM's own, which a process that ends takes along and one that closes its VM deletes.
    /// </summary>
    private static readonly Regex[] s_explained =
    [
        Advance(), SparedFault(), PhysicalInterrupt(), OwnSlots(),
    ];

    [GeneratedRegex(@"^\+ kvm_mmu_set_spte: gfn [0-7] spte e47 \(rwxu\) level 1 ")]
    private static partial Regex Advance();

    [GeneratedRegex(@"^- (kvm_(exit|page_fault|entry): vcpu 0.* rip 0x1069\b|kvm_mmu_(spte_requested|set_spte): gfn 3 )")]
    private static partial Regex SparedFault();

    [GeneratedRegex(@"^- (kvm_exit: vcpu 0 reason interrupt|kvm_entry: vcpu 0, rip 0x1000$)")]
    private static partial Regex PhysicalInterrupt();

    [GeneratedRegex(@"^\+ kvm_mmu_zap_all_fast: ")]
    private static partial Regex OwnSlots();

    private static (RecordedGuest Recorded, GuestRun Model) Of(string vendor, string variant, string parameters) =>
        s_runs.GetOrAdd((vendor, variant), _ => (RecordedGuest.Load(vendor, variant), new GuestRun(vendor, parameters)));

    /// <summary>
    /// Without what differs from run to run (times, frames of the host in entries of page tables), and without what differs between processors: the address size of a port instruction (D-REC-8), P in the
    /// error code of a reserved bit (D-REC-3), bit 0 of the qualification of a page walk's EPT violation (D-VMX-6).
    /// </summary>
    private static string Normal(string text)
    {
        text = Offset().Replace(text, "next=N");
        text = PortAddressSize().Replace(text, m => m.Groups["before"].Value + (Convert.ToUInt64(m.Groups["info"].Value, 16) & ~0x380ul).ToString("x16", CultureInfo.InvariantCulture));
        text = ReservedBit().Replace(text, "${before}c");
        text = ShadowReservedBit().Replace(text, "${before}8");
        text = PageWalk().Replace(text, "${before}83");
        text = Frame().Replace(text, "${before}N");
        text = Entry().Replace(text, static m => m.Groups["before"].Value + FrameOut(Convert.ToUInt64(m.Groups["spte"].Value, 16)));
        return Tsc().Replace(text, "msr_read 10 = N");
    }

    /// <summary>Entries of device memory have the guest's frame and stay whole.</summary>
    private static string FrameOut(ulong spte)
    {
        const ulong present = 1 << 11, frame = 0x000f_ffff_ffff_f000;
        return ((spte & present) != 0 ? spte & ~frame : spte).ToString("x", CultureInfo.InvariantCulture);
    }

    /// <summary>The longest common sequence; what is left over with - (not here) and + (too many).</summary>
    private static List<string> Differences(string[] expected, string[] actual)
    {
        int[,] length = new int[expected.Length + 1, actual.Length + 1];
        for (int i = expected.Length - 1; i >= 0; i--)
        {
            for (int j = actual.Length - 1; j >= 0; j--)
                length[i, j] = expected[i] == actual[j] ? length[i + 1, j + 1] + 1 : Math.Max(length[i + 1, j], length[i, j + 1]);
        }

        List<string> differences = [];
        int x = 0, y = 0;
        while (x < expected.Length || y < actual.Length)
        {
            if (x < expected.Length && y < actual.Length && expected[x] == actual[y])
            {
                x++;
                y++;
            }
            else if (y >= actual.Length || (x < expected.Length && length[x + 1, y] >= length[x, y + 1]))
            {
                differences.Add($"- {expected[x++]}");
            }
            else
            {
                differences.Add($"+ {actual[y++]}");
            }
        }

        return differences;
    }

    [GeneratedRegex(@"(?<before>reason io .* info1 0x)(?<info>[0-9a-f]{16})")]
    private static partial Regex PortAddressSize();

    [GeneratedRegex(@"(?<before>(reason npf .* info1 |error_code )0x0*10000000)d")]
    private static partial Regex ReservedBit();

    [GeneratedRegex(@"(?<before>(reason PF excp .* info1 |address 0x00000000000d0020 error_code )0x0*)9")]
    private static partial Regex ShadowReservedBit();

    [GeneratedRegex(@"(?<before>(EPT_VIOLATION .* info1 |error_code )0x0*)82")]
    private static partial Regex PageWalk();

    /// <summary>Frames of the host and addresses of tables; of an entry the bits around the frame stay.</summary>
    [GeneratedRegex(@"(?<before>( pfn | at |sptep:))(?!8000000000000000)[0-9a-f]+")]
    private static partial Regex Frame();

    [GeneratedRegex(@"(?<before>(spte |old_spte |new_spte ))(?<spte>[0-9a-f]+)(?= |$)")]
    private static partial Regex Entry();

    [GeneratedRegex(@"next=\d+")]
    private static partial Regex Offset();

    [GeneratedRegex(@"msr_read 10 = 0x[0-9a-f]+")]
    private static partial Regex Tsc();
}
