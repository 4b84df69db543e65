using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Security.Cryptography;

namespace Kvm.Vmm.Migration;

/// <summary>
/// Writes a saved machine: a header (magic, version, vendor of the processor), sections, and at the end a checksum. A section is a tag of four letters, a number (which vCPU, which slot),
/// a length and its bytes; all numbers are little-endian. Needs no seeking, so the stream can be a pipe or a socket.
/// </summary>
public sealed class StateWriter : IDisposable
{
    /// <summary>The layout of the file and of every section in it.</summary>
    public const int Version = 1;

    /// <summary>No section is longer.</summary>
    public const int LongestSection = 8 << 20;

    internal const int VendorLength = 12, HeaderLength = 32, SectionHeaderLength = 16;
    internal const string EndTag = "END ";
    internal static ReadOnlySpan<byte> Magic => "KVMSTATE"u8;

    private readonly Stream _stream;
    private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);

    /// <summary>Writes the header.</summary>
    /// <param name="stream">Where to; stays the caller's.</param>
    /// <param name="vendor">The processor's vendor as CPUID says it: 12 letters.</param>
    public StateWriter(Stream stream, string vendor)
    {
        ArgumentNullException.ThrowIfNull(stream);
        ArgumentNullException.ThrowIfNull(vendor);
        _stream = stream;
        Span<byte> header = stackalloc byte[HeaderLength];
        header.Clear();
        Magic.CopyTo(header);
        BinaryPrimitives.WriteInt32LittleEndian(header[8..], Version);
        System.Text.Encoding.ASCII.GetBytes(vendor.AsSpan(0, Math.Min(VendorLength, vendor.Length)), header[12..]);
        Put(header);
    }

    /// <summary>Bytes written so far.</summary>
    public long Length { get; private set; }

    /// <summary>A section of bytes.</summary>
    public void Section(string tag, uint index, ReadOnlySpan<byte> payload)
    {
        ArgumentNullException.ThrowIfNull(tag);
        ArgumentOutOfRangeException.ThrowIfNotEqual(tag.Length, 4);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(payload.Length, LongestSection);
        Span<byte> header = stackalloc byte[SectionHeaderLength];
        System.Text.Encoding.ASCII.GetBytes(tag, header);
        BinaryPrimitives.WriteUInt32LittleEndian(header[4..], index);
        BinaryPrimitives.WriteInt64LittleEndian(header[8..], payload.Length);
        Put(header);
        Put(payload);
    }

    /// <summary>A section that is one structure of the kernel's ABI.</summary>
    public void Section<T>(string tag, uint index, in T value) where T : unmanaged =>
        Section(tag, index, MemoryMarshal.AsBytes(MemoryMarshal.CreateReadOnlySpan(in value, 1)));

    /// <summary>Writes the end: without it the file counts as truncated.</summary>
    public void Finish()
    {
        byte[] digest = _hash.GetCurrentHash();
        Section(EndTag, 0, digest);
        _stream.Flush();
    }

    /// <inheritdoc/>
    public void Dispose() => _hash.Dispose();

    private void Put(ReadOnlySpan<byte> bytes)
    {
        _hash.AppendData(bytes);
        _stream.Write(bytes);
        Length += bytes.Length;
    }
}
