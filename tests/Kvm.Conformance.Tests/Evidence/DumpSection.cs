using System.Text;
using Kvm.Conformance.Tests.Dumps;

namespace Kvm.Conformance.Tests.Evidence;

/// <summary>What kernels answer without a guest.</summary>
internal static class DumpSection
{
    public static void Append(StringBuilder text)
    {
        text.Append("\n## Dumps\n\n");
        text.Append("What a program finds without running a guest, line by line: all capability numbers up to 260 of /dev/kvm and of a VM, CPUID (supported, emulated, Hyper-V's, read back), lists of MSRs\n");
        text.Append("and of feature MSRs with values, the state of VMs, PICs, IOAPIC and PIT, and of boot and other vCPUs (registers, FPU, XSAVE, XCRs, events, debug registers, LAPIC, nested state, every\n");
        text.Append("listed MSR, kvm_run) without interrupt controllers, with them, split, and after KVM_SET_CPUID2; module parameters with their modes.\n\n");
        text.Append("| dump | parameters | lines | the same | | values of the recorded host | divergences |\n|---|---|---|---|---|---|---|\n");
        foreach ((string vendor, string name, string parameters) in DumpReplay.Cases)
        {
            DumpReplay dump = DumpReplay.Of(vendor, name);
            // Times differ from run to run, and may be the same by chance.
            var byId = dump.Differences.GroupBy(d => DumpExplanation.IdOf(dump, d)!).OrderBy(static g => g.Key, StringComparer.Ordinal).ToList();
            int times = dump.TimeLines, others = byId.Where(static g => g.Key != "time").Sum(static g => g.Count());
            string own = string.Join(", ", byId.Where(static g => g.Key == "processor").Select(static g => $"processor ({g.Count()})").Prepend($"time ({times})"));
            string ids = string.Join(", ", byId.Where(static g => g.Key.StartsWith("D-", StringComparison.Ordinal)).Select(static g => $"{g.Key} ({g.Count()})"));
            int same = dump.Lines - times - others;
            text.Append($"| kvm_{vendor} {name} | {(parameters.Length == 0 ? "–" : parameters)} | {dump.Lines} | {same} | {EvidencePage.Percent(same, dump.Lines)} | {own} | {(ids.Length == 0 ? "none" : ids)} |\n");
        }
    }
}
