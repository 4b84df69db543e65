using Xunit.Abstractions;

namespace Kvm.Conformance.Tests.Trees;

/// <summary>The model's call tree for each recorded call contains the recorded functions in the recorded order and nesting; what it lacks has a reason.</summary>
public sealed class CallTrees(ITestOutputHelper output)
{
    [Theory]
    [InlineData("intel")]
    [InlineData("amd")]
    public void As_recorded(string vendor)
    {
        IReadOnlyList<TreeComparison> comparisons = TreeReplay.Of(vendor);
        foreach (TreeComparison c in comparisons)
        {
            output.WriteLine($"{c.Share,7:P1}  {c.Matched,4} of {c.Calls,4} ({c.Machine} of the machine)  {c.Tree.Session}/{c.Tree.Step}");
            foreach (string path in c.Missing)
                output.WriteLine($"         missing {path}  {Explanations.Of(c.Tree, path) ?? "UNEXPLAINED"}");
        }

        output.WriteLine($"{vendor}: {(double)comparisons.Sum(static c => c.Matched) / comparisons.Sum(static c => c.Calls):P1} of {comparisons.Sum(static c => c.Calls)} recorded calls");
        comparisons.SelectMany(static c => c.Missing.Where(m => Explanations.Of(c.Tree, m) is null).Select(m => c.Tree.Step + ": " + m)).Should().BeEmpty();
    }
}
