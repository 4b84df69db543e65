using Kvm.Abi;
using Kvm.Benchmarks.Api;
using Kvm.Client;

namespace Kvm.Benchmarks.Growth;

/// <summary>Exits and changes of slots, with more and more slots.</summary>
internal static class SlotGrowth
{
    private const ulong First = 0x100000;
    private const ulong Distance = 0x2000; // slots do not touch

    public static IEnumerable<GrowthRow> Measure(string vendor, GrowthSizes sizes)
    {
        string[] names = [.. sizes.Slots.Select(static n => $"{n:N0}")];
        var costs = new double[5][];
        for (int i = 0; i < costs.Length; i++) costs[i] = new double[sizes.Slots.Length];
        for (int i = 0; i < sizes.Slots.Length; i++)
        {
            int slots = sizes.Slots[i];
            costs[0][i] = Exits(vendor, Programs.OutLoop(), slots, sizes);
            costs[1][i] = (Exits(vendor, Programs.CpuidLoop(true), slots, sizes with { Exits = Math.Max(1, sizes.Exits / 500) }) -
                Exits(vendor, Programs.CpuidLoop(false), slots, sizes with { Exits = Math.Max(1, sizes.Exits / 500) })) / 1000;
            (costs[2][i], costs[3][i], costs[4][i]) = Changes(vendor, slots, sizes);
        }

        yield return new("PIO exit to user space", "flat", "ns", names, costs[0]);
        yield return new("CPUID exit in the kernel", "flat", "ns", names, costs[1]);
        yield return new("creation of a slot", "logarithmic", "us", names, costs[2]);
        yield return new("deletion of a slot", "logarithmic", "us", names, costs[3]);
        yield return new("change of a slot's flags", "logarithmic", "us", names, costs[4]);
    }

    private static double Exits(string vendor, byte[] program, int slots, GrowthSizes sizes)
    {
        using var guest = new Guest(vendor, program);
        ulong host = Memory(guest.Vm, slots);
        for (int i = 1; i < slots; i++) Set(guest.Vm, i, host);
        guest.Run(Math.Min(1000, sizes.Exits));
        return Cost.Nanoseconds(sizes.Slices, sizes.Exits, guest.Run);
    }

    /// <summary>Slots are made in an order that is not that of their addresses, and the guest runs between changes, as their memory is looked up then.</summary>
    private static (double Create, double Delete, double Flags) Changes(string vendor, int slots, GrowthSizes sizes)
    {
        using var guest = new Guest(vendor, Programs.OutLoop());
        int extra = Math.Clamp(sizes.Exits / 20, 10, 500);
        ulong host = Memory(guest.Vm, slots + extra);
        int[] order = [.. Enumerable.Range(1, slots - 1 + extra)];
        new Random(1).Shuffle(order);
        foreach (int i in order.AsSpan(extra)) Set(guest.Vm, i, host);
        double create = double.MaxValue, delete = double.MaxValue, flags = double.MaxValue;
        for (int slice = 0; slice < sizes.Slices; slice++)
        {
            create = Math.Min(create, Cost.Once(() => Each(i => Set(guest.Vm, i, host))));
            flags = Math.Min(flags, Cost.Once(() => Each(i => Set(guest.Vm, i, host, (uint)Uapi.KVM_MEM_LOG_DIRTY_PAGES))));
            delete = Math.Min(delete, Cost.Once(() => Each(i => guest.Vm.SetUserMemoryRegion((uint)i, 0, 0, 0, 0))));
            guest.Run(1);
        }

        return (create / extra / 1000, delete / extra / 1000, flags / extra / 1000);

        void Each(Action<int> change)
        {
            foreach (int i in order.AsSpan(0, extra)) change(i);
        }
    }

    private static ulong Memory(Vm vm, int slots) => (ulong)vm.Backend.MapAnonymous((ulong)slots * 0x1000 + 0x1000);

    private static void Set(Vm vm, int slot, ulong host, uint flags = 0) =>
        vm.SetUserMemoryRegion((uint)slot, flags, First + (ulong)slot * Distance, 0x1000, host + (ulong)slot * 0x1000);
}
