using System.Text;
using Kvm.Conformance.Tests.Failures;

namespace Kvm.Conformance.Tests.Evidence;

/// <summary>What happens when something that KVM needs is not to be had.</summary>
internal static class FailureSection
{
    public static void Append(StringBuilder text)
    {
        text.Append("\n## Failures\n\n");
        text.Append("A session (modules, VM, vCPUs, slots, dirty log, devices, a running guest, close, unload) in which one use of one thing that can fail does fail, once for every use of every\n");
        text.Append("point that the session passes. Each time: the kernel's errno, nothing has changed, the same step works when it is tried again, the session ends as always, every page comes back,\n");
        text.Append("and the next session works.\n\n| processor and parameters | points | failures | an errno | goes on without |\n|---|---|---|---|---|\n");
        foreach ((string model, string parameters) in FaultSweeps.Configurations)
        {
            IReadOnlyList<FaultOutcome> all = FaultSweeps.Of(model, parameters);
            text.Append($"| {$"{model} {parameters}".TrimEnd()} | {all.Select(static o => o.Point).Distinct().Count()} | {all.Count} | {all.Count(static o => o.Step is not null)} | {all.Count(static o => o.Step is null)} |\n");
        }

        text.Append("\n| goes on without | because |\n|---|---|\n");
        foreach (string point in FaultSweeps.Configurations.SelectMany(static c => FaultSweeps.Of(c.Model, c.Parameters)).Where(static o => o.Step is null).Select(static o => o.Point).Distinct().Order(StringComparer.Ordinal))
            text.Append($"| `{point}` | {FaultSweep.WhyItGoesOn(point)} |\n");

        List<UnwindingLabel> reached = [.. UnwindingLabels.All.Where(static l => l.Why is null)], not = [.. UnwindingLabels.All.Where(static l => l.Why is not null)];
        text.Append($"\nError labels of the kernel's functions on these paths: {reached.Select(static l => (l.Function, l.Label)).Distinct().Count()} are reached, by these failures:\n\n");
        text.Append("| function | labels |\n|---|---|\n");
        foreach (var function in reached.GroupBy(static l => l.Function))
            text.Append($"| `{function.Key}` | {string.Join(", ", function.GroupBy(static l => l.Label).Select(static l => $"`{l.Key}` ({l.First().Point})"))} |\n");
        text.Append($"\nand {not.Count} are not:\n\n| function | label | why |\n|---|---|---|\n");
        foreach (UnwindingLabel label in not)
            text.Append($"| `{label.Function}` | `{label.Label}` | {label.Why} |\n");
    }
}
