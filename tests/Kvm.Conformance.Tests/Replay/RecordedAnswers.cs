using Kvm.Client;
using Xunit.Abstractions;

namespace Kvm.Conformance.Tests.Replay;

/// <summary>
/// The recordings of real kernels, replayed: kvm_intel and kvm_amd of 6.1 against the model, 6.18 against this host's own /dev/kvm, which tells whether the
/// replayer itself is right. Scenarios in Data/replay-known.txt differ for the reason given there; one that passes must leave that list.
/// </summary>
public class RecordedAnswers(ITestOutputHelper output)
{
    private static readonly Dictionary<string, Dictionary<string, Scenario>> s_scenarios = new()
    {
        ["vmx-6.1"] = ByName("vmx-6.1"),
        ["svm-6.1"] = ByName("svm-6.1"),
    };

    /// <summary>Recording and scenario → why it differs.</summary>
    private static readonly Dictionary<(string, string), string> s_known = File.ReadAllLines(Path.Combine(AppContext.BaseDirectory, "Data", "replay-known.txt"))
        .Where(line => line.Length > 0 && line[0] != '#')
        .Select(line => line.Split('\t'))
        .ToDictionary(parts => (parts[0], parts[1]), parts => parts[2]);

    public static IEnumerable<object[]> Intel => s_scenarios["vmx-6.1"].Keys.Select(name => new object[] { name });

    public static IEnumerable<object[]> Amd => s_scenarios["svm-6.1"].Keys.Select(name => new object[] { name });

    [Theory, MemberData(nameof(Intel))]
    public void Kvm_intel_6_1(string scenario) => Replay("vmx-6.1", scenario, "intel");

    [Theory, MemberData(nameof(Amd))]
    public void Kvm_amd_6_1(string scenario) => Replay("svm-6.1", scenario, "amd");

    [SkippableFact]
    public void Native_6_18()
    {
        try
        {
            KvmSystem.Open(KvmBackend.Native).Dispose();
        }
        catch (KvmException e)
        {
            Skip.If(true, $"no usable /dev/kvm on this host: {e.Message}");
        }

        Skip.IfNot(Environment.OSVersion.Version is { Major: 6, Minor: 18 }, $"this host's kernel is {Environment.OSVersion.Version}, the recording's is 6.18");
        int passed = 0;
        var failures = new List<string>();
        foreach (Scenario scenario in Scenario.Load("6.18").Where(s => s.Portable))
        {
            ReplayResult result = Replayer.Replay(scenario, () => KvmBackend.Native);
            if (result.Unsupported is not null) output.WriteLine($"{scenario.Name}: {result}");
            else if (!result.Passed) failures.Add($"{scenario.Name}: {result}");
            else passed++;
        }

        output.WriteLine($"{passed} scenarios agree");
        failures.Should().BeEmpty();
        passed.Should().BeGreaterThan(200);
    }

    private static void Replay(string recording, string scenario, string cpu)
    {
        ReplayResult result = Replayer.Replay(s_scenarios[recording][scenario], () => KvmBackend.ByName("model", cpu));
        if (s_known.TryGetValue((recording, scenario), out string? reason)) result.Passed.Should().BeFalse($"it is listed as differing: {reason}");
        else result.Passed.Should().BeTrue(result.ToString().Replace("{", "{{").Replace("}", "}}"));
    }

    private static Dictionary<string, Scenario> ByName(string recording) => Scenario.Load(recording).Where(s => s.Portable).ToDictionary(s => s.Name);
}
