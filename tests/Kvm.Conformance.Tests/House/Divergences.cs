using System.Text.RegularExpressions;
using Kvm.Emulator;

namespace Kvm.Conformance.Tests.House;

/// <summary>docs/DIVERGENCES.md and the places that point to it.</summary>
public sealed partial class Divergences
{
    /// <summary>The entries of docs/DIVERGENCES.md.</summary>
    internal static IReadOnlySet<string> Ids { get; } =
        Row().Matches(File.ReadAllText(Path.Combine(Repository.Root, "docs", "DIVERGENCES.md"))).Select(static m => m.Groups[1].Value).ToHashSet();

    [Fact]
    public void Every_entry_is_there_once() =>
        Row().Matches(File.ReadAllText(Path.Combine(Repository.Root, "docs", "DIVERGENCES.md"))).Should().HaveCount(Ids.Count);

    [Fact]
    public void Every_pointer_has_its_entry()
    {
        List<string> dangling = [];
        foreach (string file in new[] { "src", "tests", "samples", "benchmarks" }.SelectMany(static d => Directory.EnumerateFiles(Path.Combine(Repository.Root, d), "*.*", SearchOption.AllDirectories)))
        {
            if (Path.GetExtension(file) is not (".cs" or ".txt") || file.Contains("/obj/", StringComparison.Ordinal) || file.Contains("/bin/", StringComparison.Ordinal))
                continue;
            dangling.AddRange(Pointer().Matches(File.ReadAllText(file)).Select(static m => m.Value).Where(static id => !Ids.Contains(id)).Select(id => $"{id} in {Path.GetRelativePath(Repository.Root, file)}"));
        }

        dangling.Should().BeEmpty();
    }

    /// <summary>D-HW-3: what has no effect is not announced either.</summary>
    [Fact]
    public void No_processor_model_announces_VMX_controls_without_effect()
    {
        const ulong enclsExiting = 1 << 15, processorTrace = 1 << 24, userWait = 1 << 26, busLock = 1 << 30, notify = 1UL << 31, tertiary = 1 << 17;
        foreach (CpuModel model in CpuModel.Names.Select(CpuModel.Load).Where(static m => m.HasVmx))
        {
            ulong primary = model.Msrs[0x482] >> 32, secondary = model.Msrs[0x48b] >> 32;
            (secondary & (enclsExiting | processorTrace | userWait | busLock | notify)).Should().Be(0, model.Name);
            (primary & tertiary).Should().Be(0, model.Name);
        }
    }

    [GeneratedRegex(@"^\| (D-[A-Z0-9]+-\d+) \|", RegexOptions.Multiline)]
    private static partial Regex Row();

    [GeneratedRegex(@"\bD-[A-Z][A-Z0-9]*-\d+\b")]
    private static partial Regex Pointer();
}
