using System.Text;
using Kvm.Conformance.Tests.Replay;

namespace Kvm.Conformance.Tests.Evidence;

/// <summary>Recorded system calls, replayed.</summary>
internal static class ReplaySection
{
    public static void Append(StringBuilder text)
    {
        text.Append("\n## Recorded answers\n\n");
        text.Append("Scripts of system calls on KVM descriptors with what the real kernel answered: return values, errnos, bytes written, exits, guest memory. \"The vendor's own\": answers that the\n");
        text.Append("recording calls not portable, because another vendor or host answers differently.\n\n");
        text.Append("| recording | scripts | the same | their portable answers | the same | the vendor's own answers | the same |\n|---|---|---|---|---|---|---|\n");
        foreach (RecordedKernel recording in new[] { RecordedKernel.Intel, RecordedKernel.Amd })
        {
            List<ReplayResult> results = [.. recording.Scenarios.Keys.Select(recording.Of)];
            int portable = results.Sum(static r => r.Agreed + r.Differences.Count), same = results.Sum(static r => r.Agreed);
            int own = results.Sum(static r => r.AgreedNotPortable + r.DifferencesNotPortable.Count), ownSame = results.Sum(static r => r.AgreedNotPortable);
            int passed = results.Count(static r => r.Passed);
            text.Append($"| {recording.Name} (kvm_{recording.Vendor}) | {results.Count} | {passed}, {EvidencePage.Percent(passed, results.Count)} ");
            text.Append($"| {portable} | {same}, {EvidencePage.Percent(same, portable)} | {own} | {ownSame}, {EvidencePage.Percent(ownSame, own)} |\n");
        }

        text.Append("\nScripts that differ, by the entry of DIVERGENCES:\n\n| class | kvm_intel | kvm_amd |\n|---|---|---|\n");
        foreach (string name in KnownFailure.All.Where(static d => !d.Scenario.EndsWith(KnownFailure.NotPortable, StringComparison.Ordinal)).Select(static d => d.Class).Distinct().Order(StringComparer.Ordinal))
            text.Append($"| {name} | {Count(RecordedKernel.Intel, name, false)} | {Count(RecordedKernel.Amd, name, false)} |\n");
        text.Append("\nScripts that are the same but for answers of the vendor's own (\"time\", \"processor\": values of the recorded host):\n\n| class | kvm_intel | kvm_amd |\n|---|---|---|\n");
        foreach (string name in KnownFailure.All.Where(static d => d.Scenario.EndsWith(KnownFailure.NotPortable, StringComparison.Ordinal)).Select(static d => d.Class).Distinct().Order(StringComparer.Ordinal))
            text.Append($"| {name} | {Count(RecordedKernel.Intel, name, true)} | {Count(RecordedKernel.Amd, name, true)} |\n");
    }

    private static int Count(RecordedKernel recording, string name, bool own) =>
        KnownFailure.All.Count(d => d.Recording == recording.Name && d.Class == name && d.Scenario.EndsWith(KnownFailure.NotPortable, StringComparison.Ordinal) == own);
}
