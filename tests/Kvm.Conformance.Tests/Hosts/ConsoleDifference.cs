using System.Text.RegularExpressions;

namespace Kvm.Conformance.Tests.Hosts;

/// <summary>A line of a console on which model and machine differ, and the entry of docs/DIVERGENCES.md that says why.</summary>
internal sealed record ConsoleDifference(string Id, Regex Logs, Func<ConsoleCheck, bool> Applies)
{
    private static readonly Regex oneProcessor = new("^(nosvm|novmx|svm)-", RegexOptions.CultureInvariant);

    public static IReadOnlyList<ConsoleDifference> All { get; } =
    [
        new("D-CORE-5", new Regex("^vmxon-fault-cpu1$"), static c => c.Recorded.StartsWith("dmesg: ", StringComparison.Ordinal) && c.Model.Length == 0),
        new("D-CORE-7", new Regex("-modules$"), static c => c.Recorded.Contains("Unknown symbol", StringComparison.Ordinal) && c.Model.Contains("Unknown symbol", StringComparison.Ordinal)),
        new("D-X86-3", new Regex("-modules$"), static c => c.Command == "kvm threads:"),
        new("D-SVM-5", new Regex("^amd-modules$"), static c => c.Heading is "VM_CR.SVMDIS (bit 4)" or "load with SVMDIS"),
        new("D-HW-5", oneProcessor, static c => c.Recorded.StartsWith("msr 0x", StringComparison.Ordinal) && c.Recorded.EndsWith(" = 0x0", StringComparison.Ordinal)),
    ];

    public static ConsoleDifference? Of(string log, ConsoleCheck check) => All.FirstOrDefault(d => d.Logs.IsMatch(log) && d.Applies(check));
}
