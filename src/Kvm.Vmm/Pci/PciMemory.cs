namespace Kvm.Vmm.Pci;

/// <summary>Where PCI devices have their memory: the host bridge's window, and places in it for a machine without firmware.</summary>
public sealed class PciMemory
{
    /// <summary>Right behind the largest low RAM, and the devices that are not on a bus.</summary>
    public const ulong First = 0xd000_0000;
    /// <summary>Below the I/O APIC.</summary>
    public const ulong Last = 0xfebf_ffff;

    private ulong _next = 0xe000_0000;

    /// <summary>The next free place, aligned to its size, a power of two.</summary>
    /// <exception cref="InvalidOperationException">The window is full.</exception>
    public uint Allocate(uint size)
    {
        ulong at = (_next + size - 1) & ~(ulong)(size - 1);
        if (at + size - 1 > Last) throw new InvalidOperationException("no room left for PCI devices' memory");
        _next = at + size;
        return (uint)at;
    }
}
