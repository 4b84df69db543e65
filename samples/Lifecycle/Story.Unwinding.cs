using Kvm.Core;

namespace Lifecycle;

/// <remarks>Each allocation and each descriptor of a call is made to fail in turn.</remarks>
internal sealed partial class Story
{
    private void EveryFailureIsUndone(string call, Func<Computer, int> prepare, Func<Computer, int, KvmResult> run)
    {
        Chapter($"{call}: whatever fails in it, nothing is left behind");
        int refused = 0, tolerated = 0;
        foreach (string point in Points(prepare, run))
        {
            using var c = new Computer(_intel);
            c.Load();
            long loaded = c.Host.Pages.InUse;
            int fd = prepare(c);
            var before = (c.Host.Pages.InUse, c.Host.Pages.VmallocInUse, c.Kvm.UsageCount, c.Vendor.RefCount, c.Process.Files.Count, c.EnabledCpus);
            c.Host.Faults.Fail(point);
            KvmResult r = run(c, fd);
            c.Host.Faults.Clear();
            var after = (c.Host.Pages.InUse, c.Host.Pages.VmallocInUse, c.Kvm.UsageCount, c.Vendor.RefCount, c.Process.Files.Count, c.EnabledCpus);
            Say($"{point,-40} -> {r}");
            if (r.IsError && before != after) Check(false, $"{point}: {before} before, {after} after");
            if (r.IsError) refused++;
            else tolerated++;

            if (r.IsError && run(c, fd).IsError) Check(false, $"after {point} the call works again");
            foreach (int open in c.Process.Files.Open) c.Process.Close(open);
            if (c.Host.Pages.InUse != loaded) Check(false, $"after {point} and the last close every page came back");
        }

        Check(refused > 5, $"{refused} failures refuse the call and are undone, {tolerated} are tolerated");
    }

    /// <summary>The points that the call passes.</summary>
    private List<string> Points(Func<Computer, int> prepare, Func<Computer, int, KvmResult> run)
    {
        using var c = new Computer(_intel);
        c.Load();
        int fd = prepare(c);
        c.Host.Faults.StartCounting();
        run(c, fd);
        return [.. c.Host.Faults.Counts.Keys.Order(StringComparer.Ordinal)];
    }
}
