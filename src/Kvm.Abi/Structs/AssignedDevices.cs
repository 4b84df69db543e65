// PCI device assignment: removed from Linux 4.12 but still in the header.
// Linux 6.1, x86-64; names verbatim from linux/kvm.h.

using System.Runtime.InteropServices;

namespace Kvm.Abi;

/// <summary><c>struct kvm_assigned_pci_dev</c>: 64 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_assigned_pci_dev
{
    public uint assigned_dev_id;
    public uint busnr;
    public uint devfn;
    public uint flags;
    public uint segnr;
    public u32_array_11 reserved;
}

/// <summary><c>struct kvm_assigned_irq</c>: 64 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_assigned_irq
{
    public uint assigned_dev_id;
    public uint host_irq;
    public uint guest_irq;
    public uint flags;
    public u32_array_12 reserved;
}

/// <summary><c>struct kvm_assigned_msix_nr</c>: 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_assigned_msix_nr
{
    public uint assigned_dev_id;
    public ushort entry_nr;
    public ushort padding;
}

/// <summary><c>struct kvm_assigned_msix_entry</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_assigned_msix_entry
{
    public uint assigned_dev_id;
    public uint gsi;
    public ushort entry;
    public u16_array_3 padding;
}
