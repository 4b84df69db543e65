using Kvm.Conformance.Tests.Sessions;
using Kvm.Core;
using Kvm.Core.Tracing;
using Xunit.Abstractions;

namespace Kvm.Conformance.Tests.Trees;

/// <summary>
/// The model's call tree for each step of the recorded session contains the recorded functions that the model has, in the recorded order and nesting.
/// </summary>
public sealed class RecordedCalls(ITestOutputHelper output)
{
    /// <summary>
    /// Not the path of a call but the state of the machine: when a thread sleeps, is woken or interrupted, and whether the allocator has a page or object at hand.
    /// </summary>
    private static readonly HashSet<string> circumstances =
    [
        "schedule", "wake_up_process", "clockevents_program_event", "synchronize_srcu_expedited", "kmem_cache_alloc", "kmem_cache_free", "__alloc_pages", "__free_pages",
        "__get_free_pages", "free_pages", "kvmalloc_node", "kvfree", "vzalloc", "vfree", "__vmalloc", "kvm_sched_in", "kvm_sched_out",
    ];

    [Theory]
    [InlineData("intel")]
    [InlineData("amd")]
    public void Guest_session(string vendor)
    {
        List<TreeComparison> comparisons = Replay(vendor);
        foreach (TreeComparison c in comparisons)
            Print(c);
        int recorded = comparisons.Sum(static c => c.Recorded), covered = comparisons.Sum(static c => c.RecordedModelled);
        output.WriteLine($"{vendor}: {(double)covered / recorded:P1} of {recorded} recorded calls are of functions that the model has");
        comparisons.SelectMany(static c => c.Missing.Select(m => c.Step + ": " + m)).Should().BeEmpty();
    }

    private void Print(TreeComparison c)
    {
        output.WriteLine($"{c.Share,7:P1} of {c.Modelled,3}; {c.RecordedModelled,4} of {c.Recorded,4} recorded calls modelled  {c.Step}");
        foreach (string line in c.Missing)
            output.WriteLine("         missing " + line);
        foreach (string line in c.Extra)
            output.WriteLine("         extra   " + line);
    }

    private static List<TreeComparison> Replay(string vendor)
    {
        using var model = new ModelHost(vendor);
        model.LoadKvm().Should().Be((KvmResult)0);
        model.LoadVendor(vendor == "intel" ? "nested=1" : "").Should().Be((KvmResult)0);
        var session = new Real16Session(model.Host);
        session.RunOn(1);
        List<TreeComparison> result = [];
        foreach ((string name, int i) in session.Steps.Select(static (s, i) => (s, i)))
        {
            List<CallTree> calls;
            using (FunctionTraceSession trace = FunctionTrace.Start(model.Host))
            {
                session.Run(i);
                calls = Convert(trace);
            }
            if (RecordedTrees.All.FirstOrDefault(t => t.Vendor == vendor && t.Session == "core-real16" && t.Step == name) is { } tree)
                result.Add(Compare(name, tree, calls));
        }
        return result;
    }

    private static TreeComparison Compare(string step, RecordedTree tree, List<CallTree> calls)
    {
        HashSet<string> known = [.. RecordedTrees.All.Where(t => t.Vendor == tree.Vendor).SelectMany(static t => t.Own.Concat(t.Others)).SelectMany(static c => c.Flatten()).Select(static c => c.Name)];
        return TreeComparison.Compare(step, tree.Own, calls, static n => ModelledFunctions.Traced.Contains(n) && !circumstances.Contains(n), n => known.Contains(n) && !circumstances.Contains(n));
    }

    /// <summary>The tree of the thread that made the call.</summary>
    private static List<CallTree> Convert(FunctionTraceSession trace) => trace.Groups.Count == 0 ? [] : [.. trace.Groups[0].Roots.Select(Node)];

    private static CallTree Node(FunctionTraceNode node) => new(node.Name, [.. node.Children.Select(Node)]);
}
