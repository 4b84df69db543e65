using System.Buffers.Binary;
using System.Text;
using Kvm.Abi;
using Kvm.Client;

namespace Kvm.Vmm.Boot;

/// <summary>Boots Multiboot 1 images: ELF ones, and ones whose header gives the addresses.</summary>
/// <remarks>Multiboot Specification 0.6.96.</remarks>
public static class MultibootLoader
{
    private const uint HeaderMagic = 0x1badb002, LoadedMagic = 0x2badb002;
    private const uint AddressesValid = 1 << 16;
    private const int SearchLength = 8192;

    // The information structure and what it points to, below the EBDA.
    private const ulong Information = 0x9000, Modules = 0x9100, MemoryMap = 0x9200, Text = 0x9400;
    private const uint HasMemory = 1, HasCommandLine = 1 << 2, HasModules = 1 << 3, HasMap = 1 << 6;

    /// <summary>There is a multiboot header, checksum and all, in the first 8 KiB.</summary>
    public static bool IsMultiboot(ReadOnlySpan<byte> file) => FindHeader(file) >= 0;

    /// <summary>Loads image, command line and one module, and enters 32-bit protected mode.</summary>
    /// <param name="ram">The guest's RAM.</param>
    /// <param name="vcpu">The processor that starts.</param>
    /// <param name="file">The image.</param>
    /// <param name="commandLine">As the guest gets it: the image's name and its arguments.</param>
    /// <param name="module">The first module (an initrd); empty for none.</param>
    /// <exception cref="BootException">No multiboot header, or the image does not fit.</exception>
    public static void Load(GuestRam ram, Vcpu vcpu, ReadOnlyMemory<byte> file, string commandLine, ReadOnlyMemory<byte> module = default)
    {
        int header = FindHeader(file.Span);
        if (header < 0) throw new BootException("no multiboot header in the first 8 KiB");
        uint flags = U32(file.Span, header + 4);
        MiniBios.Install(ram); // images that go back to real mode, as GRUB's does, find the services that a PC has
        (ulong entry, ulong end) = (flags & AddressesValid) != 0 ? LoadByHeader(ram, file.Span, header) : LoadElf(ram, file);

        WriteInformation(ram, commandLine, module.Span, end);
        BootState.EnterProtected(ram, vcpu, entry, 0);
        kvm_regs regs = vcpu.Regs;
        regs.rax = LoadedMagic;
        regs.rbx = Information;
        vcpu.Regs = regs;
    }

    private static int FindHeader(ReadOnlySpan<byte> file)
    {
        for (int offset = 0; offset + 12 <= Math.Min(file.Length, SearchLength); offset += 4)
        {
            if (U32(file, offset) == HeaderMagic && U32(file, offset) + U32(file, offset + 4) + U32(file, offset + 8) == 0) return offset;
        }

        return -1;
    }

    private static (ulong Entry, ulong End) LoadElf(GuestRam ram, ReadOnlyMemory<byte> file)
    {
        ElfImage elf = ElfImage.Parse(file);
        return (elf.PhysicalEntry, elf.LoadPhysical(ram));
    }

    private static (ulong Entry, ulong End) LoadByHeader(GuestRam ram, ReadOnlySpan<byte> file, int header)
    {
        if (header + 32 > file.Length) throw new BootException("the multiboot header is cut off");
        uint headerAddress = U32(file, header + 12), loadAddress = U32(file, header + 16), loadEnd = U32(file, header + 20);
        uint bssEnd = U32(file, header + 24), entry = U32(file, header + 28);
        long start = header - ((long)headerAddress - loadAddress);
        if (start < 0 || start > file.Length) throw new BootException("the multiboot header's addresses do not fit the file");
        long size = loadEnd == 0 ? file.Length - start : loadEnd - (long)loadAddress;
        if (size < 0 || start + size > file.Length) throw new BootException("the multiboot header's load_end_addr lies outside the file");
        ulong end = Math.Max(loadAddress + (ulong)size, bssEnd);
        if (end > ram.LowSize) throw new BootException($"the image needs RAM up to 0x{end:x}, there are 0x{ram.LowSize:x} bytes: give the guest more memory");
        ram.Write(loadAddress, file.Slice((int)start, (int)size));
        if (bssEnd > loadAddress + (ulong)size) ram.Clear(loadAddress + (ulong)size, bssEnd - loadAddress - (ulong)size);
        return (entry, end);
    }

    private static void WriteInformation(GuestRam ram, string commandLine, ReadOnlySpan<byte> module, ulong imageEnd)
    {
        uint flags = HasMemory | HasMap;
        ram.At(Information, (int)(Text - Information)).Clear();
        ram.Write(Information + 4, (uint)(RealModeMemory.EbdaStart / 1024));
        ram.Write(Information + 8, (uint)((ram.LowSize - 0x100000) / 1024));

        byte[] line = Encoding.UTF8.GetBytes(commandLine + '\0');
        if (line.Length > 0x4000) throw new BootException($"the command line has {line.Length} bytes, at most {0x4000} fit");
        ram.Write(Text, line);
        ram.Write(Information + 16, (uint)Text);
        flags |= HasCommandLine;

        if (!module.IsEmpty)
        {
            ulong address = (imageEnd + 0xfff) & ~0xfffUL;
            if (address + (ulong)module.Length > ram.LowSize) throw new BootException($"the module of {module.Length} bytes does not fit behind the image: give the guest more memory");
            ram.Write(address, module);
            ram.Write(Modules, (uint)address);
            ram.Write(Modules + 4, (uint)(address + (ulong)module.Length));
            ram.Write(Modules + 8, (uint)Text);
            ram.Write(Information + 20, 1u);
            ram.Write(Information + 24, (uint)Modules);
            flags |= HasModules;
        }

        ulong at = MemoryMap;
        foreach (E820Entry entry in E820Entry.Map(ram))
        {
            ram.Write(at, 20u); // the size of what follows
            ram.Write(at + 4, entry.Address);
            ram.Write(at + 12, entry.Size);
            ram.Write(at + 20, (uint)entry.Type);
            at += 24;
        }

        ram.Write(Information + 44, (uint)(at - MemoryMap));
        ram.Write(Information + 48, (uint)MemoryMap);
        ram.Write(Information, flags);
    }

    private static uint U32(ReadOnlySpan<byte> data, int offset) => BinaryPrimitives.ReadUInt32LittleEndian(data[offset..]);
}
