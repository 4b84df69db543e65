using System.Text.RegularExpressions;
using Kvm.Conformance.Tests.House;

namespace Kvm.Conformance.Tests.Seeds;

/// <summary>Every statement of the origin documents has a test that carries its id, or a reason in docs/SEEDS.md.</summary>
public partial class SeedCoverage
{
    private static string[] AllIds => File.ReadAllLines(Repository.PathOf("tests", "Kvm.Conformance.Tests", "Data", "seeds.txt"));

    [Fact]
    public void There_are_219_statements() => AllIds.Should().HaveCount(219).And.OnlyHaveUniqueItems();

    [Fact]
    public void No_statement_is_missing()
    {
        AllIds.Except(TestedIds()).Except(ExcusedIds()).Should().BeEmpty("each id needs a test with [Trait(\"Seed\", id)] or a row in docs/SEEDS.md");
    }

    [Fact]
    public void No_excused_statement_has_a_test() => ExcusedIds().Intersect(TestedIds()).Should().BeEmpty();

    [Fact]
    public void Traits_and_rows_name_statements_that_exist() => TestedIds().Union(ExcusedIds()).Except(AllIds).Should().BeEmpty();

    private static HashSet<string> TestedIds() =>
        [.. Repository.SourceFiles("tests").SelectMany(f => TraitPattern().Matches(File.ReadAllText(f)).Select(m => m.Groups[1].Value))];

    private static HashSet<string> ExcusedIds() =>
        [.. File.ReadLines(Repository.PathOf("docs", "SEEDS.md")).Select(l => RowPattern().Match(l)).Where(m => m.Success).Select(m => m.Groups[1].Value)];

    [GeneratedRegex("""Trait\("Seed", "(S\d-\d+)"\)""")]
    private static partial Regex TraitPattern();

    /// <summary>A row: id, then a reason of at least a few words.</summary>
    [GeneratedRegex(@"^\| (S\d-\d+) \| .{20,} \|$")]
    private static partial Regex RowPattern();
}
