using System.Buffers.Binary;
using System.Text;
using Kvm.Vmm.Boot;
using Kvm.Vmm.Bus;

namespace Kvm.Vmm.Devices;

/// <summary>
/// QEMU's firmware configuration, ports 0x510, 0x511 and, where the guest's RAM is known, DMA at 0x514: numbers and named files about the machine.
/// The guest can only read.
/// </summary>
/// <remarks>QEMU docs/specs/fw_cfg: selector, data, "Signature", "File Directory", "Guest-side DMA Interface".</remarks>
public sealed partial class FwCfg : IPortDevice
{
    /// <summary>The selector; the data port follows.</summary>
    public const ushort Port = 0x510;
    /// <summary>Selector and data.</summary>
    public const int Ports = 2;
    /// <summary>The DMA address register, big-endian: high half, low half. Writing the low half starts.</summary>
    public const ushort DmaPort = 0x514;
    /// <summary>Ports of the DMA address register.</summary>
    public const int DmaPorts = 8;
    /// <summary>Longest file name.</summary>
    public const int LongestName = 55;

    private const ushort Signature = 0x00, InterfaceVersion = 0x01, RamSize = 0x03, NoGraphic = 0x04, CpuCount = 0x05, MaxCpus = 0x0f, FileDirectory = 0x19, FirstFile = 0x20;
    private const uint DmaError = 1, DmaRead = 2, DmaSkip = 4, DmaSelect = 8, DmaWrite = 16;
    private const int DmaAccessSize = 16;

    private readonly Dictionary<ushort, ReadOnlyMemory<byte>> _items = [];
    private readonly List<(string Name, int Size)> _files = [];
    private readonly GuestRam? _ram;
    private ReadOnlyMemory<byte> _current;
    private int _position;
    private uint _dmaHigh;

    /// <param name="ramSize">Bytes of RAM, as told to the guest.</param>
    /// <param name="cpus">Processors, as told to the guest.</param>
    /// <param name="ram">Where DMA goes; null: no DMA.</param>
    public FwCfg(ulong ramSize, ushort cpus, GuestRam? ram = null)
    {
        _ram = ram;
        _items[Signature] = "QEMU"u8.ToArray();
        _items[InterfaceVersion] = new byte[] { (byte)(ram is null ? 1 : 3), 0, 0, 0 };
        var size = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(size, ramSize);
        _items[RamSize] = size;
        AddWord(NoGraphic, 1); // the console is the serial port
        AddWord(CpuCount, cpus);
        AddWord(MaxCpus, cpus);
        WriteDirectory();
    }

    /// <summary>An item with a number of its own.</summary>
    public void Add(ushort key, ReadOnlyMemory<byte> data) => _items[key] = data;

    /// <summary>A named item, as the directory lists it.</summary>
    /// <exception cref="ArgumentException">The name is taken, empty, too long or not ASCII.</exception>
    public void AddFile(string name, ReadOnlyMemory<byte> data)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        if (name.Length > LongestName || !Ascii.IsValid(name)) throw new ArgumentException($"'{name}': a name has at most {LongestName} ASCII characters", nameof(name));
        if (_files.Exists(f => f.Name == name)) throw new ArgumentException($"'{name}' is there already", nameof(name));
        _items[(ushort)(FirstFile + _files.Count)] = data;
        _files.Add((name, data.Length));
        WriteDirectory();
    }

    /// <summary>The data port gives the item byte by byte, then zeroes.</summary>
    public void Read(ushort port, Span<byte> data)
    {
        if (port == Port + 1) Take(data);
        else if (port >= DmaPort && _ram is not null) "QEMU CFG"u8[(port - DmaPort)..Math.Min(port - DmaPort + data.Length, DmaPorts)].CopyTo(data);
    }

    /// <inheritdoc/>
    public void Write(ushort port, ReadOnlySpan<byte> data)
    {
        if (port == Port && data.Length == 2)
        {
            Select(BinaryPrimitives.ReadUInt16LittleEndian(data));
        }
        else if (data.Length == 4 && _ram is not null)
        {
            uint half = BinaryPrimitives.ReadUInt32BigEndian(data);
            if (port == DmaPort)
            {
                _dmaHigh = half;
            }
            else if (port == DmaPort + 4)
            {
                Transfer((ulong)_dmaHigh << 32 | half);
                _dmaHigh = 0;
            }
        }
    }

    private void Select(ushort key)
    {
        _current = _items.GetValueOrDefault(key);
        _position = 0;
    }

    private void Take(Span<byte> data)
    {
        int length = Math.Min(data.Length, _current.Length - _position);
        _current.Span.Slice(_position, length).CopyTo(data);
        data[length..].Clear();
        _position += length;
    }

    private void Transfer(ulong at)
    {
        // A descriptor outside RAM: nowhere to tell the error.
        if (!_ram!.TryAt(at, DmaAccessSize, out Span<byte> access)) return;
        uint control = BinaryPrimitives.ReadUInt32BigEndian(access);
        uint length = BinaryPrimitives.ReadUInt32BigEndian(access[4..]);
        ulong address = BinaryPrimitives.ReadUInt64BigEndian(access[8..]);
        if ((control & DmaSelect) != 0) Select((ushort)(control >> 16));
        bool failed = false;
        if ((control & DmaRead) != 0)
        {
            if (length <= int.MaxValue && _ram.TryAt(address, (int)length, out Span<byte> target)) Take(target);
            else failed = true;
        }
        else if ((control & DmaWrite) != 0)
        {
            failed = true; // nothing here can be written
        }
        else if ((control & DmaSkip) != 0)
        {
            _position += (int)Math.Min(length, (uint)(_current.Length - _position));
        }

        BinaryPrimitives.WriteUInt32BigEndian(access, failed ? DmaError : 0);
    }

    private void AddWord(ushort key, ushort value)
    {
        var bytes = new byte[2];
        BinaryPrimitives.WriteUInt16LittleEndian(bytes, value);
        _items[key] = bytes;
    }

    private void WriteDirectory()
    {
        const int Entry = 64;
        var directory = new byte[4 + Entry * _files.Count];
        BinaryPrimitives.WriteInt32BigEndian(directory, _files.Count);
        for (int i = 0; i < _files.Count; i++)
        {
            Span<byte> entry = directory.AsSpan(4 + i * Entry, Entry);
            BinaryPrimitives.WriteInt32BigEndian(entry, _files[i].Size);
            BinaryPrimitives.WriteUInt16BigEndian(entry[4..], (ushort)(FirstFile + i));
            Encoding.ASCII.GetBytes(_files[i].Name, entry[8..]);
        }

        _items[FileDirectory] = directory;
    }
}
