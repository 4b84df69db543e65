using System.Globalization;
using System.IO.Compression;

namespace Kvm.Vmm.Boot;

/// <summary>Looks at an initial RAM disk before a kernel does, whose own words about a broken one come late and are few.</summary>
/// <remarks>Linux Documentation/driver-api/early-userspace/buffer-format.rst; the compressions are those of lib/decompress.c.</remarks>
public static class InitrdImage
{
    private const int HeaderSize = 110, NameSizeAt = 94, FileSizeAt = 54, LongestName = 4096;

    private static readonly (string Name, byte[] Magic)[] s_others =
    [
        ("bzip2", "BZh"u8.ToArray()), ("lzma", [0x5d, 0, 0]), ("xz", [0xfd, (byte)'7', (byte)'z', (byte)'X', (byte)'Z', 0]), ("lzo", [0x89, (byte)'L', (byte)'Z', (byte)'O']),
        ("lz4", [0x02, 0x21, 0x4c, 0x18]), ("lz4", [0x04, 0x22, 0x4d, 0x18]), ("zstd", [0x28, 0xb5, 0x2f, 0xfd]),
    ];

    /// <summary>Finds what is wrong with it, as far as that can be seen here: cpio archives are followed to their end, gzip is unpacked, of other compressions only the beginning is looked at.</summary>
    /// <returns>Null: nothing.</returns>
    public static string? FindFault(ReadOnlySpan<byte> image)
    {
        if (image.IsEmpty) return "it is empty";
        if (IsArchive(image)) return FindArchiveFault(image);
        if (image is [0x1f, 0x8b, ..]) return FindGzipFault(image);
        foreach ((_, byte[] magic) in s_others)
        {
            if (image.StartsWith(magic)) return null;
        }

        return "it is neither a cpio archive nor compressed in a way that Linux knows";
    }

    private static bool IsArchive(ReadOnlySpan<byte> image) => image.StartsWith("070701"u8) || image.StartsWith("070702"u8);

    /// <summary>Entry by entry to the trailer. Behind it there may be zeroes and another archive, compressed or not.</summary>
    private static string? FindArchiveFault(ReadOnlySpan<byte> image)
    {
        long at = 0;
        while (true)
        {
            if (at + HeaderSize > image.Length) return $"the cpio archive is cut off after {image.Length} bytes";
            ReadOnlySpan<byte> header = image.Slice((int)at, HeaderSize);
            if (!IsArchive(header) || !TryHex(header[NameSizeAt..], out uint nameSize) || !TryHex(header[FileSizeAt..], out uint fileSize) || nameSize is 0 or > LongestName)
                return $"the cpio archive is broken at byte {at}";
            long data = (at + HeaderSize + nameSize + 3) & ~3L, next = (data + fileSize + 3) & ~3L;
            if (data + fileSize > image.Length) return $"the cpio archive is cut off after {image.Length} bytes";
            if (image.Slice((int)at + HeaderSize, (int)nameSize).SequenceEqual("TRAILER!!!\0"u8)) return null;
            at = next;
        }
    }

    private static unsafe string? FindGzipFault(ReadOnlySpan<byte> image)
    {
        try
        {
            fixed (byte* bytes = image)
            {
                using var packed = new UnmanagedMemoryStream(bytes, image.Length);
                using var unpacked = new GZipStream(packed, CompressionMode.Decompress);
                Span<byte> buffer = new byte[64 << 10];
                while (unpacked.Read(buffer) > 0)
                {
                }
            }

            return null;
        }
        catch (Exception e) when (e is InvalidDataException or EndOfStreamException)
        {
            return "its gzip data is corrupt or cut off";
        }
    }

    private static bool TryHex(ReadOnlySpan<byte> text, out uint value) => uint.TryParse(text[..8], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out value);
}
