using System.Globalization;
using System.Text;

namespace Kvm.Vmm.Boot;

/// <summary>An initial file system for Linux, as <c>kvm run --initrd</c> and <see cref="LinuxLoader"/> take it: a cpio archive in the "newc" format, not compressed.</summary>
/// <remarks>Linux Documentation/driver-api/early-userspace/buffer-format.rst. All files belong to root and are dated 1970.</remarks>
public sealed class Initramfs
{
    private const int TypeFile = 0x8000, TypeDirectory = 0x4000;
    private const string Trailer = "TRAILER!!!";

    private readonly List<byte> _archive = [];
    private int _inode;

    /// <summary>Adds a regular file.</summary>
    /// <param name="path">Without a leading slash; its directories must have been added.</param>
    /// <param name="content">The bytes.</param>
    /// <param name="mode">Permissions; 0755 unless told.</param>
    public Initramfs AddFile(string path, ReadOnlySpan<byte> content, UnixFileMode mode = (UnixFileMode)0x1ed)
    {
        Add(path, TypeFile | (int)mode, content);
        return this;
    }

    /// <summary>Adds a directory with permissions 0755.</summary>
    public Initramfs AddDirectory(string path)
    {
        Add(path, TypeDirectory | 0x1ed, []);
        return this;
    }

    /// <summary>The archive with its end mark. More files can be added afterwards.</summary>
    public byte[] ToArray()
    {
        (int length, int inode) = (_archive.Count, _inode);
        Add(Trailer, 0, []);
        byte[] bytes = [.. _archive];
        _archive.RemoveRange(length, _archive.Count - length);
        _inode = inode;
        return bytes;
    }

    private void Add(string path, int mode, ReadOnlySpan<byte> content)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        byte[] name = Encoding.UTF8.GetBytes(path + '\0');
        // inode, mode, uid, gid, links, mtime, size, device (2), represented device (2), length of the name, checksum (none in this format)
        int[] fields = [++_inode, mode, 0, 0, 1, 0, content.Length, 0, 0, 0, 0, name.Length, 0];
        _archive.AddRange("070701"u8);
        foreach (int field in fields) _archive.AddRange(Encoding.ASCII.GetBytes(field.ToString("x8", CultureInfo.InvariantCulture)));
        _archive.AddRange(name);
        Pad();
        _archive.AddRange(content);
        Pad();
    }

    /// <summary>Names and contents end at multiples of 4.</summary>
    private void Pad()
    {
        while (_archive.Count % 4 != 0) _archive.Add(0);
    }
}
