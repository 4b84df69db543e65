using Kvm.Client;

namespace Kvm.Vmm.Boot;

/// <summary>A raw image: copied to an address and entered there.</summary>
public static class FlatLoader
{
    /// <summary>Loads below 64 KiB and starts in real mode, all segments 0.</summary>
    public static void Load16(GuestRam ram, Vcpu vcpu, ReadOnlySpan<byte> image, ushort address = 0x7c00)
    {
        if (address + image.Length > 0x10000) throw new BootException($"a 16-bit image of {image.Length} bytes does not fit into the segment at 0x{address:x}");
        ram.Write(address, image);
        BootState.EnterFlat16(vcpu, address, address);
    }

    /// <summary>Loads anywhere in low RAM from 64 KiB and starts in 64-bit mode with the first 4 GiB mapped to themselves.</summary>
    public static void Load64(GuestRam ram, Vcpu vcpu, ReadOnlySpan<byte> image, ulong address = 0x100000)
    {
        if (address < 0x10000 || address + (ulong)image.Length > ram.LowSize) throw new BootException($"an image of {image.Length} bytes does not fit at 0x{address:x}");
        ram.Write(address, image);
        BootState.EnterLong(ram, vcpu, address, 0);
    }
}
