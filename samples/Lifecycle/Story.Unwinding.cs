using Kvm.Abi;
using Kvm.Core;

namespace Lifecycle;

/// <remarks>Each step of a call is made to fail in turn: an errno, nothing left behind, and the same call works when it is tried again.</remarks>
internal sealed partial class Story
{
    private const int SecondCpu = 1;

    /// <summary>What the kernel can do without: nobody looks at what these return.</summary>
    private static readonly string[] s_optional = ["debugfs_create_dir", "debugfs_create_file", "cpuhp_setup_state:x86/kvm/clk:online"];

    private void EveryUnwindingLabel()
    {
        Unwinding($"insmod {Module}", Labels.Insmod, c => c.LoadKvm().Value, (c, _) => c.Load());
        Unwinding("KVM_CREATE_VM", Labels.CreateVm, c => Loaded(c).Open().Value, (c, kvm) => c.CreateVm(kvm));
        Unwinding("KVM_CREATE_VCPU", Labels.CreateVcpu, c => c.WithDirtyRing(c.CreateVm(Loaded(c).Open().Value).Value), (c, vm) => c.CreateVcpu(vm));
    }

    private static Computer Loaded(Computer c)
    {
        c.Load();
        return c;
    }

    private void Unwinding(string call, Label[] labels, Func<Computer, int> prepare, Func<Computer, int, KvmResult> run)
    {
        Chapter($"{call}: every unwinding label");
        string function = "";
        foreach (Label label in labels.Where(l => l.Vendor is null || l.Vendor == (_intel ? "intel" : "amd")))
        {
            if (label.Function != function) Say($"in {function = label.Function}:");
            if (label.Point is "") Say($"  {label.Name,-27} not reached: {label.Meaning}");
            else Reaches(label, prepare, run);
        }

        Sweep(prepare, run);
    }

    private void Reaches(Label label, Func<Computer, int> prepare, Func<Computer, int, KvmResult> run)
    {
        string? wrong = FailsWithoutTrace(prepare, run, label.Point, label.Use, out KvmResult r);
        string failure = label.Point is null ? "another CPU can't enter" : label.Use == 1 ? label.Point : $"{label.Point}, use {label.Use}";
        Check(r.IsError && wrong is null, $"  {label.Name,-27} {failure,-38} {r,-8} {label.Meaning}{(wrong is null ? "" : $": {wrong}")}");
    }

    /// <summary>All points of the call at all their uses, labels or not.</summary>
    private void Sweep(Func<Computer, int> prepare, Func<Computer, int, KvmResult> run)
    {
        int refused = 0;
        var tolerated = new SortedSet<string>(StringComparer.Ordinal);
        IReadOnlyDictionary<string, long> points = Points(prepare, run);
        foreach ((string point, long uses) in points)
        {
            for (int use = 1; use <= uses; use++)
            {
                if (FailsWithoutTrace(prepare, run, point, use, out KvmResult r) is { } wrong) Check(false, $"{point}, use {use}: {wrong}");
                if (r.IsError) refused++;
                else tolerated.Add(point);
            }
        }

        Check(refused > 0, $"all {points.Count} points at all their uses: {refused} failures, each undone");
        Check(tolerated.All(s_optional.Contains), $"only these are tolerated: {string.Join(", ", tolerated)}");
    }

    /// <summary>One failure on a computer of its own.</summary>
    /// <returns>Null, or what was not as it should be.</returns>
    private string? FailsWithoutTrace(Func<Computer, int> prepare, Func<Computer, int, KvmResult> run, string? point, int use, out KvmResult result)
    {
        using var c = new Computer(_intel);
        int fd = prepare(c);
        if (point is null) c.Break(SecondCpu);
        else c.Host.Faults.Fail(point, use);
        string before = c.State;
        result = run(c, fd);
        string after = c.State;
        c.Host.Faults.Clear();
        if (point is null) c.Mend(SecondCpu);
        if (result.IsError && before != after) return $"before: {before}; after: {after}";
        if (result.IsError && run(c, fd).IsError) return "the call does not work again";
        foreach (int open in c.Process.Files.Open) c.Process.Close(open);
        c.Unload();
        return c.Host.Pages.InUse == 0 ? null : $"{c.Host.Pages.InUse} pages are left after the last close and rmmod";
    }

    /// <summary>The points that the call passes, and how often.</summary>
    private IReadOnlyDictionary<string, long> Points(Func<Computer, int> prepare, Func<Computer, int, KvmResult> run)
    {
        using var c = new Computer(_intel);
        int fd = prepare(c);
        c.Host.Faults.StartCounting();
        run(c, fd);
        return c.Host.Faults.Counts;
    }
}
