using Microsoft.Win32.SafeHandles;

namespace Kvm.Vmm.Virtio;

/// <summary>A disk in a file, byte for byte.</summary>
public sealed class RawDisk : IBlockStore
{
    private readonly SafeFileHandle _file;

    private RawDisk(SafeFileHandle file, long length, bool readOnly)
    {
        _file = file;
        Length = length;
        ReadOnly = readOnly;
    }

    /// <inheritdoc/>
    public long Length { get; }

    /// <inheritdoc/>
    public bool ReadOnly { get; }

    /// <summary>Opens an image. One that can be written belongs to one disk at a time.</summary>
    /// <exception cref="IOException">It is not there, not whole sectors, or in use.</exception>
    /// <exception cref="UnauthorizedAccessException">No permission.</exception>
    public static RawDisk Open(string path, bool readOnly)
    {
        SafeFileHandle file = File.OpenHandle(path, FileMode.Open, readOnly ? FileAccess.Read : FileAccess.ReadWrite, readOnly ? FileShare.Read : FileShare.None);
        long length = RandomAccess.GetLength(file);
        if (length > 0 && length % VirtioBlock.SectorSize == 0) return new RawDisk(file, length, readOnly);
        file.Dispose();
        throw new IOException(length == 0
            ? "it is empty, so it is no disk (truncate -s 1G makes it one)"
            : $"its {length} bytes are not whole sectors of {VirtioBlock.SectorSize}: the image is cut off, or no raw image");
    }

    /// <inheritdoc/>
    public void Read(long offset, Span<byte> buffer)
    {
        while (!buffer.IsEmpty)
        {
            int count = RandomAccess.Read(_file, buffer, offset);
            if (count == 0) throw new EndOfStreamException($"the file ends at {offset}");
            buffer = buffer[count..];
            offset += count;
        }
    }

    /// <inheritdoc/>
    public void Write(long offset, ReadOnlySpan<byte> buffer) => RandomAccess.Write(_file, buffer, offset);

    /// <inheritdoc/>
    public void Flush() => RandomAccess.FlushToDisk(_file);

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();
}
