namespace Kvm.Vmm.Bus;

/// <summary>A device with 8-bit registers: a wider access touches consecutive ports, low byte first, as the ISA bus splits it.</summary>
/// <remarks><see cref="PortBus"/> hands a device its own ports only.</remarks>
public abstract class BytePortDevice : IPortDevice
{
    /// <inheritdoc/>
    public void Read(ushort port, Span<byte> data)
    {
        for (int i = 0; i < data.Length; i++) data[i] = ReadByte((ushort)(port + i));
    }

    /// <inheritdoc/>
    public void Write(ushort port, ReadOnlySpan<byte> data)
    {
        for (int i = 0; i < data.Length; i++) WriteByte((ushort)(port + i), data[i]);
    }

    /// <summary>Answers IN of one byte from one of the device's ports.</summary>
    protected abstract byte ReadByte(ushort port);

    /// <summary>Takes OUT of one byte to one of the device's ports.</summary>
    protected abstract void WriteByte(ushort port, byte value);
}
