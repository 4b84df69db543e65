using Kvm.Benchmarks.Api;
using Kvm.Client;

namespace Kvm.Benchmarks.Growth;

/// <summary>Many VMs in one process: creation, exits when they take turns, memory, closing.</summary>
internal static class VmGrowth
{
    private const int Turn = 100;

    public static IEnumerable<GrowthRow> Measure(string vendor, GrowthSizes sizes)
    {
        string[] names = [.. sizes.Vms.Select(static n => $"{n:N0}")];
        var costs = new double[6][];
        for (int i = 0; i < costs.Length; i++) costs[i] = new double[sizes.Vms.Length];
        Once(vendor, Math.Min(100, sizes.Vms[^1]), sizes, costs, 0); // the JIT
        for (int i = 0; i < sizes.Vms.Length; i++) Once(vendor, sizes.Vms[i], sizes, costs, i);
        yield return new("one VM more, with a vCPU and RAM, to its first exit", "logarithmic", "us", names, costs[0]);
        yield return new($"exits a second, {Turn} exits a turn", "flat", "thousands", names, costs[1]);
        yield return new("exits a second, 1 exit a turn", "flat, but for caches", "thousands", names, costs[2]);
        yield return new("managed memory of a VM", "flat", "KiB", names, costs[3]);
        yield return new("pages of a VM", "flat", "KiB", names, costs[4]);
        yield return new("closing of that VM", "linear (each munmap tells each VM)", "us", names, costs[5]);
    }

    private static void Once(string vendor, int count, GrowthSizes sizes, double[][] costs, int at)
    {
        IKvmBackend backend = KvmBackend.ByName("model", vendor);
        using KvmSystem kvm = KvmSystem.Open(backend);
        byte[] program = Programs.OutLoop();
        using (var first = new Guest(kvm, program)) first.Run(1);
        long heap = GC.GetTotalMemory(forceFullCollection: true), pages = VcpuGrowth.Pages(backend);
        var guests = new Guest[count];
        for (int i = 0; i < count; i++)
        {
            guests[i] = new Guest(kvm, program);
            guests[i].Run(1);
        }

        costs[3][at] = (GC.GetTotalMemory(forceFullCollection: true) - heap) / 1024.0 / count;
        costs[4][at] = (VcpuGrowth.Pages(backend) - pages) / 1024.0 / count;
        costs[1][at] = 1e6 / Turns(guests, Turn, sizes);
        costs[2][at] = 1e6 / Turns(guests, 1, sizes);
        var more = new Guest[20];
        double create = double.MaxValue, close = double.MaxValue;
        for (int slice = 0; slice < sizes.Slices; slice++)
        {
            create = Math.Min(create, Cost.Once(() =>
            {
                for (int i = 0; i < more.Length; i++)
                {
                    more[i] = new Guest(kvm, program);
                    more[i].Run(1);
                }
            }));
            close = Math.Min(close, Cost.Once(() =>
            {
                foreach (Guest guest in more) guest.Dispose();
            }));
        }

        (costs[0][at], costs[5][at]) = (create / more.Length / 1000, close / more.Length / 1000);
    }

    private static double Turns(Guest[] guests, int turn, GrowthSizes sizes)
    {
        int total = Math.Max(sizes.Exits, guests.Length * turn);
        int next = 0;
        return Cost.Nanoseconds(sizes.Slices / 3 + 1, total, exits =>
        {
            for (int done = 0; done < exits; done += turn)
            {
                guests[next].Run(turn);
                next = next + 1 == guests.Length ? 0 : next + 1;
            }
        });
    }
}
