using System.Text.RegularExpressions;

namespace Kvm.Conformance.Tests.Dumps;

/// <summary>Why a line of a dump is not the same: an entry of docs/DIVERGENCES.md, "time" or "processor" (values of the recorded host).</summary>
internal sealed record DumpExplanation(string Id, Regex Path, string Vendor)
{
    public static IReadOnlyList<DumpExplanation> All { get; } =
    [
        new("time", Of(@"msrs\[0x(10|40000010|40000020)\]\.value$"), ""),
        new("processor", Of(@"cpuid\w*\[0x1 0\]\.ebx$"), "amd"),
        new("D-HW-6", Of(@"cpuid2?\[0x7 0\]\.ebx$|cpuid2?\[0xd \d+\]|^dev_attr_xcomp_guest_supp$|xsave2?\.words\.0x1d0$"), "intel"),
        new("D-REC-6", Of(@"\.KVM_CAP_X86_DISABLE_EXITS$"), "intel"),
    ];

    public static string? IdOf(DumpReplay dump, DumpDifference difference) =>
        All.FirstOrDefault(e => (e.Vendor.Length == 0 || e.Vendor == dump.Vendor) && e.Path.IsMatch(difference.Path))?.Id;

    private static Regex Of(string pattern) => new(pattern, RegexOptions.CultureInvariant);
}
