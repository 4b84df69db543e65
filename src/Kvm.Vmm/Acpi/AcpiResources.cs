using System.Buffers.Binary;

namespace Kvm.Vmm.Acpi;

/// <summary>A device's resources, as its _CRS gives them.</summary>
/// <remarks>ACPI specification, "Resource Data Types for ACPI".</remarks>
public sealed class AcpiResources
{
    private const byte Memory = 0, Io = 1, BusNumbers = 2;
    private const byte FixedEnds = 0x0c; // general flags: minimum and maximum are fixed
    private const byte Writable = 0x01, EntireRange = 0x03;

    private readonly List<byte> _bytes = [];

    /// <summary>Consecutive I/O ports, decoded with 16 bits.</summary>
    public AcpiResources Ports(ushort first, byte count)
    {
        _bytes.AddRange([0x47, 1, (byte)first, (byte)(first >> 8), (byte)first, (byte)(first >> 8), 1, count]);
        return this;
    }

    /// <summary>An ISA interrupt: edge-triggered, active high.</summary>
    public AcpiResources Irq(int number)
    {
        _bytes.AddRange([0x22, (byte)(1 << number), (byte)(1 << number >> 8)]);
        return this;
    }

    /// <summary>An interrupt that is level-triggered, active high, and may be shared.</summary>
    public AcpiResources LevelInterrupt(uint gsi)
    {
        _bytes.AddRange([0x89, 6, 0, 0x09, 1]);
        Add32(gsi);
        return this;
    }

    /// <summary>Memory of the device, at a place that does not change.</summary>
    public AcpiResources MemoryFixed(uint address, uint length)
    {
        _bytes.AddRange([0x86, 9, 0, 1]);
        Add32(address);
        Add32(length);
        return this;
    }

    /// <summary>The buses below a bridge.</summary>
    public AcpiResources Buses(ushort first, ushort last) => Word(BusNumbers, 0, first, last);

    /// <summary>Ports that a bridge hands on.</summary>
    public AcpiResources PortWindow(ushort first, ushort last) => Word(Io, EntireRange, first, last);

    /// <summary>Memory that a bridge hands on.</summary>
    public AcpiResources MemoryWindow(uint first, uint last)
    {
        _bytes.AddRange([0x87, 0x17, 0, Memory, FixedEnds, Writable]);
        Add32(0);
        Add32(first);
        Add32(last);
        Add32(0);
        Add32(last - first + 1);
        return this;
    }

    /// <summary>The _CRS object. The end tag's checksum of 0 means that there is none.</summary>
    public byte[] ToCrs() => Aml.Name("_CRS", Aml.Buffer([.. _bytes, 0x79, 0]));

    private AcpiResources Word(byte type, byte typeFlags, ushort first, ushort last)
    {
        _bytes.AddRange([0x88, 0x0d, 0, type, FixedEnds, typeFlags]);
        foreach (int value in (ReadOnlySpan<int>)[0, first, last, 0, last - first + 1])
            _bytes.AddRange([(byte)value, (byte)(value >> 8)]);
        return this;
    }

    private void Add32(uint value)
    {
        Span<byte> bytes = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, value);
        _bytes.AddRange(bytes);
    }
}
