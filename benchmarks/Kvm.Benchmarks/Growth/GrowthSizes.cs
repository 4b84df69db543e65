namespace Kvm.Benchmarks.Growth;

/// <summary>How large what grows becomes.</summary>
/// <param name="Slots">Memory slots of one VM.</param>
/// <param name="Vcpus">vCPUs of one VM; the first and the last tenth of them are compared.</param>
/// <param name="Vms">VMs of one process.</param>
/// <param name="Pages">Pages of a logged slot.</param>
/// <param name="Exits">Exits in a slice.</param>
internal sealed record GrowthSizes(int[] Slots, int Vcpus, int[] Vms, ulong[] Pages, int Exits)
{
    /// <summary>What the figures are taken with.</summary>
    public static GrowthSizes Full { get; } = new([1, 100, 32_000], 1024, [1, 100, 10_000], [1 << 16, 1 << 18, 1 << 20], 20_000);

    /// <summary>Enough to go every way once.</summary>
    public static GrowthSizes Small { get; } = new([1, 10, 200], 20, [1, 4, 20], [1 << 10, 1 << 12], 200);

    /// <summary>Slices of which the least counts.</summary>
    public int Slices => Exits >= 1000 ? 15 : 2;
}
