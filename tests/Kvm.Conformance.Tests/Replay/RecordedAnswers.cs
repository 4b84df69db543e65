using Kvm.Client;
using Kvm.Conformance.Tests.House;
using Xunit.Abstractions;

namespace Kvm.Conformance.Tests.Replay;

/// <summary>
/// The recordings of real kernels, replayed: kvm_intel and kvm_amd of 6.1 against the model, 6.18 against this host's own /dev/kvm, which tells whether the
/// replayer itself is right. Scenarios in known-failures.txt of Kvm.Conformance differ for the reason given there; one that passes must leave that list.
/// </summary>
public class RecordedAnswers(ITestOutputHelper output)
{
    public static TheoryData<string> Intel => [.. RecordedKernel.Intel.Scenarios.Keys];

    public static TheoryData<string> Amd => [.. RecordedKernel.Amd.Scenarios.Keys];

    [Theory, MemberData(nameof(Intel))]
    public void Kvm_intel_6_1(string scenario) => Replay(RecordedKernel.Intel, scenario);

    [Theory, MemberData(nameof(Amd))]
    public void Kvm_amd_6_1(string scenario) => Replay(RecordedKernel.Amd, scenario);

    /// <summary>What is not the processor's matter has the same answers with all features of SVM.</summary>
    [Fact]
    public void Kvm_amd_6_1_with_all_features()
    {
        RecordedKernel recording = RecordedKernel.AmdWithAllFeatures;
        recording.Scenarios.Values.Where(static s => s.Portable).Where(s => recording.Of(s.Name).Passed == recording.Known(s.Name) is not null)
            .Select(s => $"{s.Name}: {recording.Of(s.Name)}").Should().BeEmpty();
    }

    [Fact]
    public void Every_known_difference_has_a_class()
    {
        KnownFailure.All.Should().OnlyContain(static d => RecordedKernel.Classes.Contains(d.Class) || Divergences.Ids.Contains(d.Class));
        KnownFailure.All.Should().OnlyContain(static d => (d.Recording == RecordedKernel.Amd.Name ? RecordedKernel.Amd : RecordedKernel.Intel).Scenarios.ContainsKey(d.Scenario.Replace(KnownFailure.NotPortable, "")));
    }

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
        foreach (Scenario scenario in RecordedKernel.Load("6.18").Scenarios.Where(s => s.Portable))
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

    private static void Replay(RecordedKernel recording, string scenario)
    {
        ReplayResult result = recording.Of(scenario);
        string text = result.ToString().Replace("{", "{{").Replace("}", "}}");
        if (recording.Known(scenario) is { } known)
        {
            result.Passed.Should().BeFalse($"it is listed as differing: {known.What} ({known.Class})");
            return;
        }

        result.Passed.Should().BeTrue(text);
        if (recording.KnownNotPortable(scenario) is { } own)
            result.DifferencesNotPortable.Should().NotBeEmpty($"it is listed as differing: {own.What} ({own.Class})");
        else
            result.DifferencesNotPortable.Should().BeEmpty(text);
    }
}
