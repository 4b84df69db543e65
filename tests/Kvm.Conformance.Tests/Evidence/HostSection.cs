using System.Text;
using Kvm.Conformance.Tests.Hosts;

namespace Kvm.Conformance.Tests.Evidence;

/// <summary>Machines on which something is in the way of KVM.</summary>
internal static class HostSection
{
    public static void Append(StringBuilder text)
    {
        text.Append("\n## Hosts on which it fails\n\n");
        text.Append("Consoles of machines whose firmware, processor or loaded modules are in the way, line by line: exit codes, error texts, kernel messages in order, descriptors, users of modules,\n");
        text.Append("parameters, MSRs.\n\n| console | what is special | lines that are the same | differences |\n|---|---|---|---|\n");
        foreach (HostCase host in HostCase.All)
        {
            IReadOnlyList<ConsoleCheck> checks = ConsoleReplay.Of(host);
            string ids = string.Join(", ", checks.Where(static c => !c.Same).GroupBy(c => ConsoleDifference.Of(host.Log, c)!.Id).OrderBy(static g => g.Key, StringComparer.Ordinal).Select(static g => $"{g.Key} ({g.Count()})"));
            text.Append($"| {host.Log} | {host.Title} | {checks.Count(static c => c.Same)} of {checks.Count} | {(ids.Length == 0 ? "none" : ids)} |\n");
        }
    }
}
