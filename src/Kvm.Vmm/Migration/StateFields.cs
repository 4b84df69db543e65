using System.Text;

namespace Kvm.Vmm.Migration;

/// <summary>
/// A device's registers on their way into a saved machine, or out of it: the device names each field once, and the direction is the file's. What it reads is the user's file: a device that
/// uses a value as an index checks it.
/// </summary>
internal sealed class StateFields
{
    private readonly BinaryWriter? _writer;
    private readonly BinaryReader? _reader;

    private StateFields(BinaryWriter? writer, BinaryReader? reader) => (_writer, _reader) = (writer, reader);

    /// <summary>The device gets its registers from the file.</summary>
    public bool Restoring => _reader is not null;

    /// <summary>The registers of <paramref name="device"/> as bytes.</summary>
    public static byte[] Save(ISavedDevice device)
    {
        using var bytes = new MemoryStream();
        using var writer = new BinaryWriter(bytes, Encoding.UTF8);
        writer.Write(device.GetType().Name);
        device.Transfer(new StateFields(writer, null));
        return bytes.ToArray();
    }

    /// <summary>Gives <paramref name="device"/> the registers that <see cref="Save"/> made bytes of.</summary>
    /// <exception cref="StateFileException">They are another device's, or too few or too many; the message begins with <paramref name="file"/>.</exception>
    public static void Restore(ISavedDevice device, byte[] registers, string file)
    {
        using var bytes = new MemoryStream(registers);
        using var reader = new BinaryReader(bytes, Encoding.UTF8);
        try
        {
            string name = reader.ReadString();
            if (name != device.GetType().Name) throw new StateFileException($"{file} has a {name} where this machine has a {device.GetType().Name}");
            device.Transfer(new StateFields(null, reader));
        }
        catch (Exception e) when (e is EndOfStreamException or FormatException)
        {
            throw new StateFileException($"{file}: the registers of {device.GetType().Name} are damaged");
        }

        if (bytes.Position != bytes.Length) throw new StateFileException($"{file}: {device.GetType().Name} has fewer registers than were saved");
    }

    public void Field(ref byte value)
    {
        if (_reader is not null) value = _reader.ReadByte();
        else _writer!.Write(value);
    }

    public void Field(ref ushort value)
    {
        if (_reader is not null) value = _reader.ReadUInt16();
        else _writer!.Write(value);
    }

    public void Field(ref uint value)
    {
        if (_reader is not null) value = _reader.ReadUInt32();
        else _writer!.Write(value);
    }

    public void Field(ref int value)
    {
        if (_reader is not null) value = _reader.ReadInt32();
        else _writer!.Write(value);
    }

    public void Field(ref long value)
    {
        if (_reader is not null) value = _reader.ReadInt64();
        else _writer!.Write(value);
    }

    public void Field(ref bool value)
    {
        if (_reader is not null) value = _reader.ReadByte() != 0;
        else _writer!.Write(value);
    }

    public void Bytes(Span<byte> value)
    {
        if (_reader is not null) _reader.BaseStream.ReadExactly(value);
        else _writer!.Write(value);
    }

    /// <summary>A value that must lie in a range, both ends included.</summary>
    public void Field(ref int value, int least, int most)
    {
        Field(ref value);
        if (value < least || value > most) throw new FormatException();
    }
}
