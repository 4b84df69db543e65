namespace Kvm.Vmm.Virtio;

/// <summary>What a virtio device is behind.</summary>
public enum VirtioTransport
{
    /// <summary>A function on PCI bus 0.</summary>
    Pci,

    /// <summary>Registers at a fixed place, told by the ACPI tables. Firmware does not find it.</summary>
    Mmio,
}
