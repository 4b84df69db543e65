using System.Globalization;

namespace Kvm.Conformance.Tests.Failures;

/// <summary>Every error label on the paths that load modules and create VMs and vCPUs is jumped to by a failure of the sweep, or can't be.</summary>
public sealed class UnwindingLabels
{
    /// <summary>The rows of Data/unwinding-labels.txt.</summary>
    internal static IReadOnlyList<UnwindingLabel> All { get; } =
        [.. File.ReadLines(Path.Combine(AppContext.BaseDirectory, "Data", "unwinding-labels.txt")).Where(static l => l.Length > 0 && l[0] != '#').Select(UnwindingLabel.Parse)];

    public static TheoryData<string, string, string> Reached
    {
        get
        {
            var data = new TheoryData<string, string, string>();
            foreach (UnwindingLabel l in All.Where(static l => l.Why is null))
                data.Add(l.Function, l.Label, l.Configuration);
            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Reached))]
    public void A_failure_jumps_to(string function, string label, string configuration)
    {
        UnwindingLabel row = All.Single(l => (l.Function, l.Label, l.Configuration) == (function, label, configuration));
        string[] words = configuration.Split(' ');
        FaultOutcome? outcome = FaultSweeps.Of(words[0], words.Length > 1 ? words[1] : "").SingleOrDefault(o => o.Point == row.Point && o.Use == row.Use);
        outcome.Should().NotBeNull("{0} {1} is in the session", row.Point, row.Use);
        outcome!.Step.Should().NotBeNull("{0}: {1} is reached when {2} fails", function, label, row.Point);
    }

    [Fact]
    public void Others_say_why_they_cannot_be_reached() => All.Where(static l => l.Why is not null).Should().OnlyContain(static l => l.Why!.Length > 20);
}

/// <summary>A label and the failure that jumps to it, or why none does.</summary>
internal sealed record UnwindingLabel(string Function, string Label, string Configuration, string Point, long Use, string? Why)
{
    public static UnwindingLabel Parse(string line)
    {
        string[] parts = line.Split('\t');
        return parts[2] == "-"
            ? new UnwindingLabel(parts[0], parts[1], "", "", 0, parts[3])
            : new UnwindingLabel(parts[0], parts[1], parts[2], parts[3], long.Parse(parts[4], CultureInfo.InvariantCulture), null);
    }
}
