using System.Text;
using Kvm.Conformance.Tests.Trees;

namespace Kvm.Conformance.Tests.Evidence;

/// <summary>Recorded function graphs against the model's.</summary>
internal static class TreeSection
{
    public static void Append(StringBuilder text)
    {
        text.Append("\n## Call trees\n\n");
        text.Append("The function graph of every recorded call against the model's function trace of the same call: recorded KVM functions that are in the model's tree, below the same\n");
        text.Append("callers, in the same order. \"Of the machine\": functions of the kernel around KVM whose calls depend on the state of a machine (allocator, scheduler, timers, locks), not on the call.\n\n");
        text.Append("| | trees | identical | recorded calls of KVM | in the model, same order and nesting | | of the machine |\n|---|---|---|---|---|---|---|\n");
        foreach (string vendor in new[] { "intel", "amd" })
        {
            IReadOnlyList<TreeComparison> all = TreeReplay.Of(vendor);
            int calls = all.Sum(static c => c.Calls), same = all.Sum(static c => c.Matched);
            text.Append($"| kvm_{vendor} | {all.Count} | {all.Count(static c => c.Missing.Count == 0)} | {calls} | {same} | {EvidencePage.Percent(same, calls)} | {all.Sum(static c => c.Machine)} |\n");
        }

        text.Append("\n| tree | kvm_intel | kvm_amd |\n|---|---|---|\n");
        var steps = TreeReplay.Of("intel").Concat(TreeReplay.Of("amd")).Select(static c => Title(c.Tree)).Distinct().ToList();
        foreach (string step in steps)
            text.Append($"| {step} | {Cell("intel", step)} | {Cell("amd", step)} |\n");

        text.Append("\nRecorded calls that are not in the model's trees, or not at their place:\n\n| why | kvm_intel | kvm_amd |\n|---|---|---|\n");
        foreach (string reason in Reasons("intel").Concat(Reasons("amd")).Distinct().Order(StringComparer.Ordinal))
            text.Append($"| {reason} | {Reasons("intel").Count(r => r == reason)} | {Reasons("amd").Count(r => r == reason)} |\n");
        text.Append("\nThe guest of the 64-bit session (core-long64) is not recorded: its steps from 30 on are not compared.\n");
    }

    private static string Title(RecordedTree tree) => $"{tree.Session}/{(tree.Step.StartsWith("unload-1", StringComparison.Ordinal) || tree.Step.StartsWith("load-2", StringComparison.Ordinal) ? tree.Step[..tree.Step.LastIndexOf('-')] + "-vendor-module" : tree.Step)}";

    private static string Cell(string vendor, string step)
    {
        TreeComparison? c = TreeReplay.Of(vendor).FirstOrDefault(c => Title(c.Tree) == step);
        return c is null ? "" : c.Missing.Count == 0 ? $"all {c.Calls}" : $"{c.Matched} of {c.Calls}, {EvidencePage.Percent(c.Matched, c.Calls)}";
    }

    private static IEnumerable<string> Reasons(string vendor) => TreeReplay.Of(vendor).SelectMany(static c => c.Missing.Select(m => Trees.Explanations.Of(c.Tree, m)!));
}
