using System.Buffers.Binary;
using System.Text;
using Kvm.Abi;
using Kvm.Client;

namespace Kvm.Vmm.Boot;

/// <summary>Boots ELF kernels by their PVH entry point, as Linux's vmlinux and BSD kernels have one: 32-bit protected mode, EBX at a structure that tells of everything.</summary>
/// <remarks>Xen, "x86/HVM direct boot ABI (PVH)"; xen/include/public/arch-x86/hvm/start_info.h.</remarks>
public static class PvhLoader
{
    private const uint Magic = 0x336ec578, Version = 1, Physical32Entry = 18;

    // The structure and what it points to, below the EBDA.
    private const ulong StartInfo = 0x9000, ModuleList = 0x9100, MemoryMap = 0x9200, CommandLine = 0x20000;
    private const int MapEntrySize = 24, LongestCommandLine = 0x4000;

    /// <summary>An ELF file with a note that names such an entry.</summary>
    public static bool IsPvh(ReadOnlyMemory<byte> file)
    {
        try
        {
            return ElfImage.IsElf(file.Span) && FindEntry(ElfImage.Parse(file)) is not null;
        }
        catch (BootException)
        {
            return false;
        }
    }

    /// <summary>Loads kernel, command line and initrd, and sets the vCPU's registers.</summary>
    /// <exception cref="BootException">No such entry, or something does not fit.</exception>
    public static void Load(GuestRam ram, Vcpu vcpu, ReadOnlyMemory<byte> file, string commandLine, ReadOnlyMemory<byte> initrd = default, ulong rootPointer = 0)
    {
        ArgumentNullException.ThrowIfNull(ram);
        ArgumentNullException.ThrowIfNull(vcpu);
        ElfImage elf = ElfImage.Parse(file);
        uint entry = FindEntry(elf) ?? throw new BootException("the ELF file has no PVH entry point (CONFIG_PVH)");
        byte[] line = Encoding.UTF8.GetBytes(commandLine + '\0');
        if (line.Length > LongestCommandLine) throw new BootException($"the command line has {line.Length - 1} bytes, at most {LongestCommandLine - 1} fit");
        ulong end = elf.LoadPhysical(ram);
        ram.Write(CommandLine, line);
        ram.At(StartInfo, (int)(MemoryMap - StartInfo)).Clear();
        if (!initrd.IsEmpty)
        {
            ulong top = ram.LowSize, size = (ulong)initrd.Length;
            if (top < size || ((top - size) & ~0xfffUL) < end) throw new BootException($"the initrd ({size} bytes) does not fit between the kernel's end 0x{end:x} and 0x{top:x}: give the guest more memory");
            ulong address = (top - size) & ~0xfffUL;
            ram.Write(address, initrd.Span);
            ram.Write(ModuleList, address);
            ram.Write(ModuleList + 8, size);
            ram.Write(StartInfo + 12, 1u);
            ram.Write(StartInfo + 16, ModuleList);
        }

        E820Entry[] map = E820Entry.Map(ram);
        for (int i = 0; i < map.Length; i++)
        {
            ulong at = MemoryMap + (ulong)(i * MapEntrySize);
            ram.Write(at, map[i].Address);
            ram.Write(at + 8, map[i].Size);
            ram.Write(at + 16, (ulong)map[i].Type);
        }

        ram.Write(StartInfo, Magic);
        ram.Write(StartInfo + 4, Version);
        ram.Write(StartInfo + 24, CommandLine);
        ram.Write(StartInfo + 32, rootPointer);
        ram.Write(StartInfo + 40, MemoryMap);
        ram.Write(StartInfo + 48, (uint)map.Length);
        BootState.EnterProtected(ram, vcpu, entry, 0);
        kvm_regs regs = vcpu.Regs;
        regs.rbx = StartInfo;
        vcpu.Regs = regs;
    }

    /// <summary>Of the notes that Xen names, the one whose type is the entry's.</summary>
    private static uint? FindEntry(ElfImage elf)
    {
        foreach (ReadOnlyMemory<byte> segment in elf.Notes)
        {
            ReadOnlySpan<byte> notes = segment.Span;
            while (notes.Length >= 12)
            {
                uint nameSize = BinaryPrimitives.ReadUInt32LittleEndian(notes), size = BinaryPrimitives.ReadUInt32LittleEndian(notes[4..]), type = BinaryPrimitives.ReadUInt32LittleEndian(notes[8..]);
                ulong data = 12 + (((ulong)nameSize + 3) & ~3UL), next = data + (((ulong)size + 3) & ~3UL);
                if (data + size > (ulong)notes.Length) break;
                if (type == Physical32Entry && size >= 4 && nameSize == 4 && notes.Slice(12, 4).SequenceEqual("Xen\0"u8))
                    return BinaryPrimitives.ReadUInt32LittleEndian(notes[(int)data..]);
                if (next >= (ulong)notes.Length) break;
                notes = notes[(int)next..];
            }
        }

        return null;
    }
}
