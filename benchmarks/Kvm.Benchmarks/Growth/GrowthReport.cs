using System.Globalization;

namespace Kvm.Benchmarks.Growth;

/// <summary>How costs grow with slots, vCPUs, VMs and pages, as a table of Markdown. With small sizes it only proves that it works.</summary>
internal static class GrowthReport
{
    public static void Print(TextWriter to, GrowthSizes sizes, string only)
    {
        foreach (string vendor in new[] { "intel", "amd" })
        {
            var measures = new (string Name, Func<IEnumerable<GrowthRow>> Rows)[]
            {
                ("slots", () => SlotGrowth.Measure(vendor, sizes)),
                ("vcpus", () => VcpuGrowth.Measure(vendor, sizes)),
                ("vms", () => VmGrowth.Measure(vendor, sizes)),
                ("dirty", () => DirtyGrowth.Measure(vendor, sizes)),
            };
            foreach ((string name, Func<IEnumerable<GrowthRow>> rows) in measures)
            {
                if (!$"{name} {vendor}".Contains(only, StringComparison.OrdinalIgnoreCase)) continue;
                bool header = true;
                foreach (GrowthRow row in rows())
                {
                    if (header)
                    {
                        to.WriteLine($"| {name}, {vendor} | {string.Join(" | ", row.Sizes)} | unit | promised | last by first |");
                        to.WriteLine($"|---|{string.Concat(Enumerable.Repeat("---:|", row.Sizes.Length))}---|---|---:|");
                        header = false;
                    }

                    to.WriteLine(string.Create(CultureInfo.InvariantCulture, $"| {row.Name} | {string.Join(" | ", row.Costs.Select(Number))} | {row.Unit} | {row.Promise} | {row.Ratio:F2} |"));
                }

                to.WriteLine();
            }
        }
    }

    private static string Number(double value) => value.ToString(value >= 100 ? "F0" : "F2", CultureInfo.InvariantCulture);
}
