using System.Runtime.InteropServices;

namespace Kvm.Vmm.Boot;

/// <summary>One range of the BIOS memory map, as INT 15h function E820h returns it and the zero page holds it: 20 bytes.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
public record struct E820Entry(ulong Address, ulong Size, E820Type Type)
{
    /// <summary>The map of a PC with that much RAM: its first 640 KiB less the EBDA, ACPI tables and BIOS, and RAM from 1 MiB.</summary>
    public static E820Entry[] Map(GuestRam ram)
    {
        var map = new List<E820Entry>
        {
            new(0, RealModeMemory.EbdaStart, E820Type.Ram),
            new(RealModeMemory.EbdaStart, 0xa0000 - RealModeMemory.EbdaStart, E820Type.Reserved),
            new(Acpi.AcpiTables.RootPointer, 0x20000, E820Type.Reserved),
            new(0x100000, ram.LowSize - 0x100000, E820Type.Ram),
        };
        if (ram.HighSize > 0) map.Add(new(GuestRam.HoleEnd, ram.HighSize, E820Type.Ram));
        return [.. map];
    }
}
