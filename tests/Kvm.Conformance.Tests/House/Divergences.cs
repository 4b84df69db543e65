using System.Text.RegularExpressions;

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

    [GeneratedRegex(@"^\| (D-[A-Z0-9]+-\d+) \|", RegexOptions.Multiline)]
    private static partial Regex Row();

    [GeneratedRegex(@"\bD-[A-Z][A-Z0-9]*-\d+\b")]
    private static partial Regex Pointer();
}
