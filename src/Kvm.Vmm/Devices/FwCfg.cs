using System.Buffers.Binary;
using Kvm.Vmm.Bus;

namespace Kvm.Vmm.Devices;

/// <summary>QEMU's firmware configuration, ports 0x510 and 0x511: numbers about the machine that test kernels read. No files, no DMA.</summary>
/// <remarks>QEMU docs/specs/fw_cfg: selector, data, "Signature", "File Directory".</remarks>
public sealed class FwCfg : IPortDevice
{
    /// <summary>The selector; the data port follows.</summary>
    public const ushort Port = 0x510;
    /// <summary>Selector and data.</summary>
    public const int Ports = 2;

    private const ushort Signature = 0x00, InterfaceVersion = 0x01, RamSize = 0x03, CpuCount = 0x05, MaxCpus = 0x0f, FileDirectory = 0x19;

    private readonly Dictionary<ushort, byte[]> _items = [];
    private byte[] _current = [];
    private int _position;

    /// <summary>Tells that much RAM, in bytes, and that many processors.</summary>
    public FwCfg(ulong ramSize, ushort cpus)
    {
        _items[Signature] = "QEMU"u8.ToArray();
        _items[InterfaceVersion] = [1, 0, 0, 0];
        _items[FileDirectory] = [0, 0, 0, 0];
        var size = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(size, ramSize);
        _items[RamSize] = size;
        _items[CpuCount] = [(byte)cpus, (byte)(cpus >> 8)];
        _items[MaxCpus] = [(byte)cpus, (byte)(cpus >> 8)];
    }

    /// <summary>The data port gives the item byte by byte, then zeroes.</summary>
    public void Read(ushort port, Span<byte> data)
    {
        if (port != Port + 1) return;
        for (int i = 0; i < data.Length; i++) data[i] = _position < _current.Length ? _current[_position++] : (byte)0;
    }

    /// <inheritdoc/>
    public void Write(ushort port, ReadOnlySpan<byte> data)
    {
        if (port != Port || data.Length != 2) return;
        _current = _items.GetValueOrDefault(BinaryPrimitives.ReadUInt16LittleEndian(data), []);
        _position = 0;
    }
}
