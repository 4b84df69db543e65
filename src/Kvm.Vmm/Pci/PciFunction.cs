using System.Buffers.Binary;
using Kvm.Vmm.Migration;

namespace Kvm.Vmm.Pci;

/// <summary>One PCI function: 256 bytes of configuration space, of which some bits can be written.</summary>
/// <remarks>PCI Local Bus Specification 3.0, "Configuration Space Organization".</remarks>
public class PciFunction
{
    /// <summary>Bytes of configuration space.</summary>
    public const int ConfigSize = 256;

    /// <summary>The register in which firmware leaves the interrupt's number.</summary>
    public const int InterruptLine = 0x3c;

    private const int Command = 0x04, Revision = 0x08, CacheLine = 0x0c, HeaderType = 0x0e, Subsystem = 0x2c;
    private const byte MultiFunction = 0x80;

    private readonly byte[] _config = new byte[ConfigSize];
    private readonly byte[] _writable = new byte[ConfigSize];

    /// <param name="vendor">Vendor ID.</param>
    /// <param name="device">Device ID.</param>
    /// <param name="classCode">Base class, subclass, programming interface: 24 bits.</param>
    /// <param name="revision">Revision ID.</param>
    public PciFunction(ushort vendor, ushort device, uint classCode, byte revision = 0)
    {
        BinaryPrimitives.WriteUInt16LittleEndian(_config, vendor);
        BinaryPrimitives.WriteUInt16LittleEndian(_config.AsSpan(2), device);
        BinaryPrimitives.WriteUInt32LittleEndian(_config.AsSpan(Revision), classCode << 8 | revision);
        SetWritable(Command, 0x07, 0x05); // I/O, memory, bus master; SERR#, INTx off
        SetWritable(CacheLine, 0xff, 0xff);
        SetWritable(InterruptLine, 0xff);
    }

    /// <summary>The whole space, for a device that fills its own registers.</summary>
    protected Span<byte> Config => _config;

    /// <summary>Reads 1, 2 or 4 bytes that do not cross a dword.</summary>
    public virtual void Read(int offset, Span<byte> data) => _config.AsSpan(offset, data.Length).CopyTo(data);

    /// <summary>Writes 1, 2 or 4 bytes that do not cross a dword; bits that are not writable stay.</summary>
    public void Write(int offset, ReadOnlySpan<byte> data)
    {
        for (int i = 0; i < data.Length; i++)
        {
            ref byte at = ref _config[offset + i];
            byte mask = _writable[offset + i];
            at = (byte)((at & ~mask) | (data[i] & mask));
        }

        OnWritten(offset, data.Length);
    }

    /// <summary>Saves or restores the function; one that does not know how can't go with a saved machine.</summary>
    /// <exception cref="StateFileException">It can't be saved.</exception>
    internal virtual void Transfer(StateFields fields) => throw new StateFileException($"a machine with a {GetType().Name} can't be saved");

    /// <summary>Configuration space; what follows from it is for the caller to do.</summary>
    private protected void TransferConfig(StateFields fields)
    {
        Span<byte> config = stackalloc byte[ConfigSize];
        _config.CopyTo(config);
        fields.Bytes(config);
        for (int i = 0; i < ConfigSize; i++) _config[i] = (byte)((_config[i] & ~_writable[i]) | (config[i] & _writable[i]));
    }

    /// <summary>Says that the device has further functions.</summary>
    internal void SetMultiFunction() => _config[HeaderType] |= MultiFunction;

    /// <summary>Which bits software can change.</summary>
    protected void SetWritable(int offset, params ReadOnlySpan<byte> masks) => masks.CopyTo(_writable.AsSpan(offset));

    /// <summary>Subsystem vendor and subsystem.</summary>
    protected void SetSubsystem(ushort vendor, ushort device)
    {
        BinaryPrimitives.WriteUInt16LittleEndian(_config.AsSpan(Subsystem), vendor);
        BinaryPrimitives.WriteUInt16LittleEndian(_config.AsSpan(Subsystem + 2), device);
    }

    /// <summary>Software wrote there; the bytes are in place.</summary>
    protected virtual void OnWritten(int offset, int length)
    {
    }
}
