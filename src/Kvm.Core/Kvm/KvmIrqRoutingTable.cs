namespace Kvm.Core;

/// <summary>struct kvm_irq_routing_table: immutable once published.</summary>
internal sealed class KvmIrqRoutingTable
{
    /// <summary>KVM_NR_IRQCHIPS, KVM_IRQCHIP_NUM_PINS.</summary>
    private const int Chips = 3, Pins = 24;

    private readonly int[] _chip = new int[Chips * Pins];
    private readonly KvmKernelIrqRoutingEntry[]?[] _map;

    public KvmIrqRoutingTable(int entries)
    {
        Array.Fill(_chip, -1);
        _map = new KvmKernelIrqRoutingEntry[entries][];
    }

    /// <summary>nr_rt_entries: one more than the highest GSI.</summary>
    public int Count => _map.Length;

    /// <summary>The entries of a GSI in the order they were given.</summary>
    public ReadOnlySpan<KvmKernelIrqRoutingEntry> Of(uint gsi) => gsi < (uint)_map.Length ? _map[gsi] : default;

    public void Add(KvmKernelIrqRoutingEntry entry) => _map[entry.Gsi] = [.. _map[entry.Gsi] ?? [], entry];

    /// <summary>The GSI of a pin, or -1.</summary>
    public ref int Chip(uint chip, uint pin) => ref _chip[(chip * Pins) + pin];
}
