using System.Diagnostics;
using System.Globalization;
using Kvm.Client;

namespace Kvm.Benchmarks.Api;

/// <summary>
/// What the API costs: a PIO exit to user space and back, an exit handled inside the kernel, creation of a VM with a vCPU up to its first exit,
/// many VMs at once. Prints medians of several rounds; both vendors alternate within a round.
/// </summary>
internal static class ApiCosts
{
    private static readonly string[] Vendors = ["intel", "amd"];

    public static void Report(TextWriter to, int rounds, int exits, string only)
    {
        foreach ((string name, Func<string, double> measure, string unit) in new (string, Func<string, double>, string)[]
        {
            ("PIO exit to user space and back", v => ExitCost(v, Programs.OutLoop(), exits), "ns"),
            ("CPUID exit handled in the kernel", v => InKernelCost(v, exits), "ns"),
            ("x2APIC EOI", v => IrqCosts.Eoi(v, x2apic: true, exits), "ns"),
            ("xAPIC EOI", v => IrqCosts.Eoi(v, x2apic: false, exits), "ns"),
            ("irqfd to handler to ioeventfd", v => IrqCosts.RoundTrip(v, Math.Max(100, exits / 20)), "ns"),
            ("managed bytes per PIO exit", v => BytesPerExit(v, exits), "B"),
            ("VM + vCPU + first exit", FirstExit, "us"),
            ("1,000 VMs alive: creation, each", v => ManyVms(v, 1000), "us"),
        })
        {
            string[] vendors = [.. Vendors.Where(v => $"{name} {v}".Contains(only, StringComparison.OrdinalIgnoreCase))];
            var samples = vendors.ToDictionary(v => v, _ => new List<double>());
            for (int round = 0; round <= rounds; round++)
            {
                foreach (string vendor in vendors)
                {
                    double value = measure(vendor);
                    if (round > 0) samples[vendor].Add(value); // round 0 warms the JIT
                }
            }
            foreach (string vendor in vendors)
                to.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{name,-36} {vendor,-6} median {Median(samples[vendor]),10:F1} {unit}  min {samples[vendor].Min(),10:F1} {unit}"));
        }
    }

    private static double Median(List<double> values)
    {
        values.Sort();
        return values[values.Count / 2];
    }

    private static double ExitCost(string vendor, byte[] program, int exits)
    {
        using var guest = new Guest(vendor, program);
        guest.Run(1000);
        // Processor time, not wall time, and the median of slices: machines are shared.
        const int slices = 20;
        int slice = Math.Max(1, exits / slices);
        var costs = new List<double>(slices);
        for (int i = 0; i < slices; i++)
        {
            TimeSpan before = Environment.CpuUsage.TotalTime;
            guest.Run(slice);
            costs.Add((Environment.CpuUsage.TotalTime - before).TotalNanoseconds / slice);
        }
        return Median(costs);
    }

    private static double BytesPerExit(string vendor, int exits)
    {
        using var guest = new Guest(vendor, Programs.OutLoop());
        guest.Run(1000);
        long before = GC.GetAllocatedBytesForCurrentThread();
        guest.Run(exits);
        return (GC.GetAllocatedBytesForCurrentThread() - before) / (double)exits;
    }

    /// <summary>A loop of CPUID and one OUT per 1,000: the price of the loop without CPUID is taken off.</summary>
    private static double InKernelCost(string vendor, int exits)
    {
        int rounds = Math.Max(1, exits / 1000);
        double with = ExitCost(vendor, Programs.CpuidLoop(true), rounds), without = ExitCost(vendor, Programs.CpuidLoop(false), rounds);
        return (with - without) / 1000;
    }

    private static double FirstExit(string vendor)
    {
        IKvmBackend backend = KvmBackend.ByName("model", vendor);
        using KvmSystem kvm = KvmSystem.Open(backend);
        const int times = 20;
        long start = Stopwatch.GetTimestamp();
        for (int i = 0; i < times; i++)
        {
            using var guest = new Guest(kvm, Programs.OutLoop());
            guest.Run(1);
        }
        return Stopwatch.GetElapsedTime(start).TotalMicroseconds / times;
    }

    private static double ManyVms(string vendor, int count)
    {
        IKvmBackend backend = KvmBackend.ByName("model", vendor);
        using KvmSystem kvm = KvmSystem.Open(backend);
        var guests = new List<Guest>(count);
        byte[] program = Programs.OutLoop();
        long start = Stopwatch.GetTimestamp();
        for (int i = 0; i < count; i++)
        {
            guests.Add(new Guest(kvm, program));
            guests[^1].Run(1);
        }
        double cost = Stopwatch.GetElapsedTime(start).TotalMicroseconds / count;
        foreach (Guest guest in guests) guest.Run(1); // all of them still run
        foreach (Guest guest in guests) guest.Dispose();
        return cost;
    }
}
