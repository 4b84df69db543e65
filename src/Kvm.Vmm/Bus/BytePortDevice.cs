namespace Kvm.Vmm.Bus;

/// <summary>A device with 8-bit registers: a wider access touches consecutive ports, low byte first, as the ISA bus splits it.</summary>
public abstract class BytePortDevice : IPortDevice
{
    public void Read(ushort port, Span<byte> data)
    {
        for (int i = 0; i < data.Length; i++) data[i] = ReadByte((ushort)(port + i));
    }

    public void Write(ushort port, ReadOnlySpan<byte> data)
    {
        for (int i = 0; i < data.Length; i++) WriteByte((ushort)(port + i), data[i]);
    }

    protected abstract byte ReadByte(ushort port);

    protected abstract void WriteByte(ushort port, byte value);
}
