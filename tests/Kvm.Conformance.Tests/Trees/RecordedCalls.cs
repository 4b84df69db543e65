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

    /// <summary>Functions that the compiler made part of some of their callers.</summary>
    private static readonly HashSet<string> inlined = ["kvm_skip_emulated_instruction", "kvm_complete_insn_gp"];

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
        comparisons.SelectMany(static c => c.Missing.Where(m => Explanations.Of(c.Tree, m) is null).Select(m => c.Step + ": " + m)).Should().BeEmpty();
    }

    /// <summary>insmod, rmmod, a processor that goes and comes back without and with a VM.</summary>
    [Theory]
    [InlineData("intel")]
    [InlineData("amd")]
    public void Modules_and_hotplug(string vendor)
    {
        using var model = new ModelHost(vendor);
        List<TreeComparison> comparisons = [];
        HostProcess process = model.Host.Process;
        process.Task.SetAffinity(0);
        Step("load-1-insmod-kvm", () => model.LoadKvm());
        Step(vendor == "intel" ? "load-2-insmod-kvm-intel" : "load-2-insmod-kvm-amd", () => model.LoadVendor(vendor == "intel" ? "nested=1" : ""));
        Step("hotplug-1-offline-cpu1-noVM", () => model.Host.CpuDown(1));
        Step("hotplug-2-online-cpu1-noVM", () => model.Host.CpuUp(1));
        int kvm = process.Open("/dev/kvm").Value;
        int vm = process.Ioctl(kvm, Abi.Uapi.KVM_CREATE_VM).Value;
        Step("hotplug-3-offline-cpu1-VM", () => model.Host.CpuDown(1));
        Step("hotplug-4-online-cpu1-VM", () => model.Host.CpuUp(1));
        process.Close(vm);
        process.Close(kvm);
        Step("unload-1-rmmod-" + model.VendorModuleName, () => model.UnloadVendor());
        foreach (TreeComparison c in comparisons)
            Print(c);
        comparisons.SelectMany(static c => c.Missing.Where(m => Explanations.Of(c.Tree, m) is null).Select(m => c.Step + ": " + m)).Should().BeEmpty();

        void Step(string name, Func<KvmResult> call)
        {
            using FunctionTraceSession trace = FunctionTrace.Start(model.Host);
            call().IsOk.Should().BeTrue(name);
            if (RecordedTrees.All.FirstOrDefault(t => t.Vendor == vendor && t.Session == "module" && t.Step == name) is { } tree)
                comparisons.Add(Compare(tree, Convert(trace)));
        }
    }

    private void Print(TreeComparison c)
    {
        output.WriteLine($"{c.Share,7:P1} of {c.Modelled,3}; {c.RecordedModelled,4} of {c.Recorded,4} recorded calls modelled  {c.Step}");
        foreach (string line in c.Missing)
            output.WriteLine($"         missing {line}  {Explanations.Of(c.Tree, line) ?? "UNEXPLAINED"}");
        foreach (string line in c.Extra)
            output.WriteLine("         extra   " + line);
    }

    private static List<TreeComparison> Replay(string vendor)
    {
        using var model = new ModelHost(vendor);
        model.LoadKvm().Should().Be((KvmResult)0);
        model.LoadVendor(vendor == "intel" ? "nested=1" : "nrips=0").Should().Be((KvmResult)0);
        var session = new Real16Session(model.Host);
        List<TreeComparison> result = [];
        foreach ((string name, int i) in session.Steps.Select(static (s, i) => (s, i)))
        {
            RecordedTree? tree = RecordedTrees.All.FirstOrDefault(t => t.Vendor == vendor && t.Session == "core-real16" && t.Step == name);
            session.RunOn(tree is { Cpu: >= 0 } ? tree.Cpu : 1);
            List<CallTree> calls;
            using (FunctionTraceSession trace = FunctionTrace.Start(model.Host))
            {
                session.Run(i);
                calls = Convert(trace);
            }
            if (tree != null)
                result.Add(Compare(tree, calls));
        }
        return result;
    }

    private static TreeComparison Compare(RecordedTree tree, List<CallTree> calls)
    {
        HashSet<string> known = [.. tree.Own.SelectMany(static c => c.Flatten()).Select(static c => c.Name)];
        return TreeComparison.Compare(tree, calls, static n => ModelledFunctions.Traced.Contains(n) && IsPath(n), n => known.Contains(n) && IsPath(n));
    }

    private static bool IsPath(string function) => !circumstances.Contains(function) && !inlined.Contains(function);

    /// <summary>The tree of the thread that made the call.</summary>
    private static List<CallTree> Convert(FunctionTraceSession trace) => trace.Groups.Count == 0 ? [] : [.. trace.Groups[0].Roots.Select(Node)];

    private static CallTree Node(FunctionTraceNode node) => new(node.Name, [.. node.Children.Select(Node)]);
}
