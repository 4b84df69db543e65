using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;

namespace Kvm.Vmm.Migration;

/// <summary>Reads what <see cref="StateWriter"/> wrote, section by section, and believes nothing of it.</summary>
public sealed class StateReader : IDisposable
{
    private readonly Stream _stream;
    private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
    private byte[] _buffer = new byte[4096];
    private int _length;

    /// <summary>Reads the header.</summary>
    /// <param name="stream">The saved machine; stays the caller's.</param>
    /// <param name="name">What messages call it: a file's name.</param>
    /// <exception cref="StateFileException">No saved machine, or one of another version.</exception>
    public StateReader(Stream stream, string name)
    {
        ArgumentNullException.ThrowIfNull(stream);
        ArgumentNullException.ThrowIfNull(name);
        _stream = stream;
        Name = name;
        Span<byte> header = stackalloc byte[StateWriter.HeaderLength];
        int got = stream.ReadAtLeast(header, header.Length, throwOnEndOfStream: false);
        ReadOnlySpan<byte> magic = header[..Math.Min(got, StateWriter.Magic.Length)];
        if (got == 0) throw new StateFileException($"{name} is empty: no saved machine");
        if (!StateWriter.Magic.StartsWith(magic)) throw new StateFileException($"{name} is no saved machine: it does not begin with {Encoding.ASCII.GetString(StateWriter.Magic)}");
        if (got < header.Length) throw Truncated("the header");
        int version = BinaryPrimitives.ReadInt32LittleEndian(header[8..]);
        if (version != StateWriter.Version)
            throw new StateFileException($"{name} has version {version} of the format; this program reads version {StateWriter.Version}: save the machine anew");
        Vendor = Encoding.ASCII.GetString(header.Slice(12, StateWriter.VendorLength)).TrimEnd('\0');
        _hash.AppendData(header);
        Position = header.Length;
    }

    /// <summary>What messages call the file.</summary>
    public string Name { get; }

    /// <summary>The vendor of the processor that the machine was saved on.</summary>
    public string Vendor { get; }

    /// <summary>Bytes read so far.</summary>
    public long Position { get; private set; }

    /// <summary>The current section's tag.</summary>
    public string Tag { get; private set; } = "";

    /// <summary>The current section's number.</summary>
    public uint Index { get; private set; }

    /// <summary>The current section's bytes, until the next <see cref="Next"/>.</summary>
    public ReadOnlySpan<byte> Payload => _buffer.AsSpan(0, _length);

    /// <summary>Goes to the next section; false at the end, whose checksum was right.</summary>
    /// <exception cref="StateFileException">The file ends too early, or is damaged.</exception>
    public bool Next()
    {
        Span<byte> header = stackalloc byte[StateWriter.SectionHeaderLength];
        byte[] digest = _hash.GetCurrentHash();
        Read(header, "the next section");
        Tag = Encoding.ASCII.GetString(header[..4]);
        Index = BinaryPrimitives.ReadUInt32LittleEndian(header[4..]);
        long length = BinaryPrimitives.ReadInt64LittleEndian(header[8..]);
        if (length is < 0 or > StateWriter.LongestSection || !Tag.All(static c => c is >= ' ' and < '\x7f'))
            throw new StateFileException($"{Name} is damaged: no section begins at byte {Position - header.Length}");
        if (_buffer.Length < length) _buffer = new byte[length];
        _length = (int)length;
        Read(_buffer.AsSpan(0, _length), $"section {Tag}");
        if (Tag != StateWriter.EndTag) return true;
        if (!Payload.SequenceEqual(digest)) throw new StateFileException($"{Name} is damaged: its checksum is wrong");
        return false;
    }

    /// <summary>The current section as a structure of the kernel's ABI.</summary>
    /// <exception cref="StateFileException">The section has another size.</exception>
    public T As<T>() where T : unmanaged
    {
        if (_length != Unsafe.SizeOf<T>()) throw Wrong($"{_length} bytes instead of {Unsafe.SizeOf<T>()}");
        return MemoryMarshal.Read<T>(Payload);
    }

    /// <summary>The current section as an array of structures.</summary>
    /// <exception cref="StateFileException">The section is no whole number of them.</exception>
    public T[] AsArray<T>() where T : unmanaged
    {
        if (_length % Unsafe.SizeOf<T>() != 0) throw Wrong($"{_length} bytes are no whole number of {Unsafe.SizeOf<T>()}");
        return MemoryMarshal.Cast<byte, T>(Payload).ToArray();
    }

    /// <summary>An error in the current section.</summary>
    public StateFileException Wrong(string what) => new($"{Name}: section {Tag.TrimEnd()} {Index}: {what}");

    /// <inheritdoc/>
    public void Dispose() => _hash.Dispose();

    private void Read(Span<byte> bytes, string what)
    {
        if (_stream.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false) < bytes.Length) throw Truncated(what);
        _hash.AppendData(bytes);
        Position += bytes.Length;
    }

    private StateFileException Truncated(string what) => new($"{Name} is truncated: it ends inside {what}, after byte {Position}");
}
