namespace Kvm.Core;

/// <summary>struct kvm_kernel_irq_routing_entry: where a GSI goes. Immutable once it is in a table.</summary>
public sealed unsafe class KvmKernelIrqRoutingEntry
{
    public uint Gsi { get; internal set; }

    /// <summary>KVM_IRQ_ROUTING_*.</summary>
    public uint Type { get; internal set; }

    /// <summary>Raises or lowers: entry, VM, irq source, level, line status. Below 0: ignored; 0: coalesced; above: CPUs that got it.</summary>
    public delegate*<KvmKernelIrqRoutingEntry, KvmVm, int, int, bool, int> Set;

    /// <summary>KVM_IRQ_ROUTING_IRQCHIP: KVM_IRQCHIP_*.</summary>
    public uint Irqchip;

    /// <summary>KVM_IRQ_ROUTING_IRQCHIP: the pin; those of the slave PIC are 8 to 15.</summary>
    public uint Pin;

    // KVM_IRQ_ROUTING_MSI
    public uint AddressLo;
    public uint AddressHi;
    public uint Data;

    // KVM_IRQ_ROUTING_HV_SINT
    public uint HvSintVcpu;
    public uint HvSint;
}
