using System.Text;
using Kvm.Abi;
using Kvm.Conformance.Tests.BadInput;

namespace Kvm.Conformance.Tests.Evidence;

/// <summary>Calls that are refused.</summary>
internal static class BadInputSection
{
    public static void Append(StringBuilder text)
    {
        text.Append("\n## Bad input\n\n");
        text.Append("Each refused call must give the kernel's errno and leave the host, the VM and everything that the vCPU's ioctls show as it was; on both vendors.\n\n");
        text.Append("| kind of file | ioctls | built and there | refused values | with cases |\n|---|---|---|---|---|\n");
        foreach (var kind in ApiRow.All.GroupBy(static r => r.Kind))
        {
            List<BadCall> cases = [.. BadCall.All.Where(c => c.Kind == kind.Key)];
            text.Append($"| {kind.Key} | {kind.Count()} | {kind.Count(static r => r.Without == "-")} | {cases.Count} | {cases.Select(static c => c.Name).Distinct().Count()} |\n");
        }

        text.Append($"\nThe rest is refused as a kernel or processor without it does: {string.Join("; ", ApiRow.All.Where(static r => r.Without != "-").GroupBy(static r => r.Without).Select(static g => $"{g.Key} ({g.Count()})"))}. ");
        text.Append("Besides the values: every one of these ioctls with descriptors that are none or of another kind,\nwith other bits for size, direction and type, with eight pointers to nothing, with memory that cannot be written; and every number of the header on every kind of file with NULL and a\n");
        text.Append("kernel address, as recorded (Recorded answers).\n\n");
        text.Append($"Calls of a recorded session on each vendor's kernel, good and bad: kvm_intel {Same("intel")}, kvm_amd {Same("amd")}.\n\n");
        text.Append("Errnos in the kernel's functions that no caller can provoke here:\n\n| ioctl | why |\n|---|---|\n");
        foreach (ApiRow row in ApiRow.All.Where(static r => r.Excused != "-"))
            text.Append($"| {row.Kind} `{row.Name}` | {row.Excused} |\n");
        text.Append("\nRow by row: the errnos of the kernel's function, and those that the model gave to refused values and a pointer to nothing (ENOMEM: Failures):\n\n");
        text.Append("| ioctl | kernel's function | kvm_intel gave | kvm_amd gave |\n|---|---|---|---|\n");
        foreach (ApiRow row in ApiRow.InScope)
            text.Append($"| {row.Kind} `{row.Name}` | {List(row.Errnos)} | {List(ApiRows.Given("intel", row))} | {List(ApiRows.Given("amd", row))} |\n");
    }

    private static string List(IReadOnlyList<Errno> errnos) => errnos.Count == 0 ? "–" : string.Join(' ', errnos.Select(static e => e.ToString()).Order(StringComparer.Ordinal));

    private static string Same(string vendor) => $"{RecordedErrors.Cases.Count - RecordedErrors.WrongOf(vendor).Count} of {RecordedErrors.Cases.Count} the same";
}
