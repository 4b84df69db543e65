using System.Text;
using Kvm.Conformance.Tests.HardwareLog;

namespace Kvm.Conformance.Tests.Evidence;

/// <summary>Instructions, MSR accesses and CR4.VMXE changes: recorded against executed.</summary>
internal static class HardwareSection
{
    private static readonly string[] groups = ["module load", "VM creation", "vCPU creation", "of it reset", "other ioctls", "guest runs", "close", "module unload"];

    public static void Append(StringBuilder text)
    {
        text.Append("\n## The hardware sees the same thing\n\n");
        text.Append("Every VMX and SVM instruction, MSR access and CR4.VMXE change of a recorded session, step by step and processor by processor: recorded operations that the model executes\n");
        text.Append("too, in the recorded order, with the recorded value, from the recorded function. Nothing that it executes besides is left out: an operation too many is a difference.\n\n");
        text.Append($"| session | {string.Join(" | ", groups)} |\n|---|{string.Concat(groups.Select(static _ => "---|"))}\n");
        foreach ((string vendor, string parameters) in HardwareReplay.Sessions)
        {
            HardwareReplay replay = HardwareReplay.Of(vendor, parameters);
            text.Append($"| {Name(vendor, parameters)} |");
            foreach (string group in groups)
                text.Append($" {Cell(replay, group)} |");
            text.Append('\n');
        }

        text.Append("\nAn operation that is too many counts as one that differs.\n\n");
        text.Append("| session | values compared bit by bit | addresses compared by what they point to | not compared | fields at the first entry | differences |\n|---|---|---|---|---|---|\n");
        foreach ((string vendor, string parameters) in HardwareReplay.Sessions)
        {
            HardwareReplay replay = HardwareReplay.Of(vendor, parameters);
            bool shadow = parameters.Contains("pt=0", StringComparison.Ordinal);
            List<ValueRule> rules = [.. replay.Steps.SelectMany(static s => s.Pairs).Where(static p => p is { Recorded: not null, Model: not null }).Select(static p => ValueRules.Of(p.Recorded!))];
            string first = replay.FirstEntryCompared == 0 ? "–" : $"{replay.FirstEntryCompared - replay.FirstEntry.Count} of {replay.FirstEntryCompared}";
            string ids = string.Join(", ", replay.Steps.SelectMany(s => s.Differences.Select(d => Explanations.Of(replay, s.Step, d)!)).GroupBy(static id => id).OrderBy(static g => g.Key, StringComparer.Ordinal).Select(static g => $"{g.Key} ({g.Count()})"));
            text.Append($"| {Name(vendor, parameters)} | {rules.Count(r => r == ValueRule.Exact || (r == ValueRule.Root && !shadow))} | {rules.Count(r => r is ValueRule.Page or ValueRule.Object || (r == ValueRule.Root && shadow))} | {rules.Count(static r => r == ValueRule.Free)} | {first} | {(ids.Length == 0 ? "none" : ids)} |\n");
        }

        text.Append($"\nNot compared: {string.Join("; ", ValueRules.Free.Select(static f => $"`{(Emulator.Vmx.VmcsField)f.Key}` ({f.Value})"))}. The VMCS is compared field by field, the VMCB word by word.\n");
    }

    private static string Name(string vendor, string parameters) => $"kvm_{vendor}{(parameters.Length == 0 ? "" : $" {parameters}")}";

    private static string Cell(HardwareReplay replay, string group)
    {
        List<HardwareComparison> steps = [.. replay.Steps.Where(s => GroupOf(s.Step) == (group == "of it reset" ? "vCPU creation" : group))];
        if (group == "of it reset")
        {
            List<(HardwareOp? Recorded, HardwareOp? Model)> reset = [.. steps.SelectMany(static s => s.Pairs).Where(static p => p.Model?.Functions.Contains("kvm_vcpu_reset") == true)];
            int differ = steps.SelectMany(static s => s.Differences).Count(d => reset.Exists(p => ReferenceEquals(p.Recorded, d.Op) || ReferenceEquals(p.Model, d.Op)));
            return Share(reset.Count - differ, reset.Count);
        }

        return Share(steps.Sum(static s => s.Recorded - s.Differences.Count), steps.Sum(static s => s.Recorded));
    }

    private static string Share(int same, int all) => all == 0 ? "–" : $"{same} of {all}, {EvidencePage.Percent(same, all)}";

    private static string GroupOf(string step) => step switch
    {
        "load" => "module load",
        "unload" => "module unload",
        _ when step.Contains("KVM_CREATE_VM", StringComparison.Ordinal) => "VM creation",
        _ when step.Contains("KVM_CREATE_VCPU", StringComparison.Ordinal) => "vCPU creation",
        _ when step.Contains("KVM_RUN-", StringComparison.Ordinal) => "guest runs",
        _ when step.Contains("close-", StringComparison.Ordinal) => "close",
        _ => "other ioctls",
    };
}
