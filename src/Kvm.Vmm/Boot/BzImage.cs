using System.Buffers.Binary;

namespace Kvm.Vmm.Boot;

/// <summary>A Linux kernel image in the x86 boot format.</summary>
/// <remarks>Linux Documentation/x86/boot.rst, "The Real-Mode Kernel Header".</remarks>
public sealed class BzImage
{
    /// <summary>The header's bytes in the file and in the zero page.</summary>
    public const int HeaderOffset = 0x1f1;

    private const int SectorSize = 512;
    private const byte LoadedHigh = 0x01;
    private const ushort Kernel64 = 0x0001;

    private readonly ReadOnlyMemory<byte> _file;

    private BzImage(ReadOnlyMemory<byte> file) => _file = file;

    /// <summary>Boot protocol version: 0x020f is 2.15.</summary>
    public ushort Version => Word(0x206);

    /// <summary>Bytes of real-mode code, boot sector included. Setup sectors of 0 mean 4.</summary>
    public int SetupSize => ((Byte(0x1f1) == 0 ? 4 : Byte(0x1f1)) + 1) * SectorSize;

    /// <summary>The boot sector and the setup code.</summary>
    public ReadOnlyMemory<byte> Setup => _file[..SetupSize];

    /// <summary>The protected-mode kernel.</summary>
    public ReadOnlyMemory<byte> Kernel => _file[SetupSize..];

    /// <summary>The header from <see cref="HeaderOffset"/> to its end, which the jump at 0x200 tells.</summary>
    public ReadOnlyMemory<byte> Header => _file[HeaderOffset..Math.Min(0x202 + Byte(0x201), 0x290)];

    /// <summary>Where the 32-bit code wants to start; the loader may have to change it.</summary>
    public uint Code32Start => Dword(0x214);

    /// <summary>The highest address that the initrd's last byte may have.</summary>
    public uint InitrdMax => Version >= 0x0203 ? Dword(0x22c) : 0x37ffffff;

    /// <summary>The protected-mode code may be loaded elsewhere than it prefers.</summary>
    public bool Relocatable => Version >= 0x0205 && Byte(0x234) != 0;

    /// <summary>Longest command line without its terminating zero.</summary>
    public uint CommandLineSize => Version >= 0x0206 ? Dword(0x238) : 255;

    /// <summary>Has a 64-bit entry point 0x200 bytes behind the 32-bit one.</summary>
    public bool Has64BitEntry => Version >= 0x020c && (Word(0x236) & Kernel64) != 0;

    /// <summary>Where the kernel prefers to be loaded.</summary>
    public ulong PreferredAddress => Version >= 0x020a ? Qword(0x258) : 0x100000;

    /// <summary>Bytes that the kernel needs from its load address on until it can read the memory map.</summary>
    public uint InitSize => Version >= 0x020a ? Dword(0x260) : (uint)Kernel.Length;

    /// <summary>The version text (<c>6.1.0-…</c>); empty when the image has none.</summary>
    public string KernelVersion
    {
        get
        {
            int offset = Word(0x20e);
            if (offset == 0 || offset + 0x200 >= _file.Length) return "";
            ReadOnlySpan<byte> text = _file.Span[(offset + 0x200)..];
            int end = text.IndexOf((byte)0);
            return System.Text.Encoding.ASCII.GetString(text[..(end < 0 ? 0 : end)]);
        }
    }

    /// <exception cref="BootException">Not a bzImage, or one older than protocol 2.02, or cut off.</exception>
    public static BzImage Parse(ReadOnlyMemory<byte> file)
    {
        if (file.Length < 0x270) throw new BootException($"not a kernel image: only {file.Length} bytes");
        var image = new BzImage(file);
        if (image.Word(0x1fe) != 0xaa55 || image.Dword(0x202) != 0x53726448)
            throw new BootException("not a bzImage: the boot sector's signature or \"HdrS\" is missing (an ELF vmlinux has to be wrapped: use arch/x86/boot/bzImage)");
        if (image.Version < 0x0202) throw new BootException($"boot protocol {image.Version >> 8}.{image.Version & 0xff:d2} is older than 2.02");
        if ((image.Byte(0x211) & LoadedHigh) == 0) throw new BootException("a zImage, which loads below 1 MiB, is not supported");
        if (file.Length <= image.SetupSize) throw new BootException($"image is cut off: {file.Length} bytes, but the setup code alone is {image.SetupSize}");
        // The header counts the protected-mode code in units of 16 bytes; before 2.04 two bytes are not enough for it.
        ulong whole = (ulong)image.SetupSize + image.Dword(0x1f4) * 16UL;
        if (image.Version >= 0x0204 && (ulong)file.Length + 15 < whole)
            throw new BootException($"image is cut off: {file.Length} bytes, but its header tells of {whole}");
        return image;
    }

    private byte Byte(int offset) => _file.Span[offset];

    private ushort Word(int offset) => BinaryPrimitives.ReadUInt16LittleEndian(_file.Span[offset..]);

    private uint Dword(int offset) => BinaryPrimitives.ReadUInt32LittleEndian(_file.Span[offset..]);

    private ulong Qword(int offset) => BinaryPrimitives.ReadUInt64LittleEndian(_file.Span[offset..]);
}
