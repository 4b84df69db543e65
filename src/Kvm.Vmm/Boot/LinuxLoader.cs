using System.Buffers.Binary;
using System.Text;
using Kvm.Client;

namespace Kvm.Vmm.Boot;

/// <summary>Puts a Linux kernel into RAM and a vCPU at one of its entry points.</summary>
/// <remarks>Linux Documentation/x86/boot.rst: "Memory Layout", "Loading The Rest of The Kernel", "32-bit Boot Protocol", "64-bit Boot Protocol".</remarks>
public static class LinuxLoader
{
    private const byte BootLoaderUndefined = 0xff;
    private const byte CanUseHeap = 0x80;

    // Offsets in the zero page (boot_params); the header's are the file's own.
    private const int E820Count = 0x1e8, E820Table = 0x2d0, AltMemK = 0x1e0;
    private const int VidMode = 0x1fa, TypeOfLoader = 0x210, LoadFlags = 0x211, Code32Start = 0x214, RamdiskImage = 0x218, RamdiskSize = 0x21c, HeapEnd = 0x224, CmdLinePtr = 0x228;
    private const int E820Max = 128;

    /// <summary>Loads kernel, command line and initrd, and sets the vCPU's registers.</summary>
    /// <exception cref="BootException">Image, initrd or command line do not fit, or the image lacks that entry.</exception>
    public static void Load(GuestRam ram, Vcpu vcpu, BzImage image, LinuxEntry entry, string commandLine = "", ReadOnlyMemory<byte> initrd = default)
    {
        byte[] line = Encoding.UTF8.GetBytes(commandLine);
        ulong room = Math.Min(image.CommandLineSize, (entry == LinuxEntry.Real16 ? RealModeMemory.SetupCommandLineSize : RealModeMemory.CommandLineSize) - 1);
        if ((ulong)line.Length > room) throw new BootException($"the command line has {line.Length} bytes, this kernel takes {room}");
        if (entry == LinuxEntry.Long64 && !image.Has64BitEntry) throw new BootException("this kernel has no 64-bit entry point; use the 32-bit one");

        // The 64-bit code runs where it is put; the 32-bit code starts at 1 MiB and moves itself to where it prefers.
        ulong address = entry == LinuxEntry.Long64 ? image.PreferredAddress : 0x100000;
        ulong end = Math.Max(Math.Min(image.PreferredAddress, GuestRam.HoleEnd) + image.InitSize, Math.Min(address, GuestRam.HoleEnd) + (ulong)image.Kernel.Length);
        if (end > ram.LowSize) throw new BootException($"the kernel needs RAM up to 0x{end:x}, there are 0x{ram.LowSize:x} bytes: give the guest more memory");
        ram.Write(address, image.Kernel.Span);
        ulong ramdisk = LoadInitrd(ram, image, end, initrd.Span);

        if (entry == LinuxEntry.Real16)
        {
            LoadSetup(ram, image, line, (uint)ramdisk, (uint)initrd.Length);
            MiniBios.Install(ram);
            BootState.EnterReal(vcpu, (ushort)(RealModeMemory.SetupSegment >> 4), (ushort)RealModeMemory.SetupHeapEnd);
            return;
        }

        WriteZeroPage(ram, image, line, (uint)address, (uint)ramdisk, (uint)initrd.Length);
        if (entry == LinuxEntry.Long64) BootState.EnterLong(ram, vcpu, address + 0x200, RealModeMemory.ZeroPage);
        else BootState.EnterProtected(ram, vcpu, address, RealModeMemory.ZeroPage);
    }

    /// <summary>As high as kernel and RAM allow, page-aligned.</summary>
    private static ulong LoadInitrd(GuestRam ram, BzImage image, ulong kernelEnd, ReadOnlySpan<byte> initrd)
    {
        if (initrd.IsEmpty) return 0;
        ulong top = Math.Min(ram.LowSize, (ulong)image.InitrdMax + 1);
        if (top < (ulong)initrd.Length || ((top - (ulong)initrd.Length) & ~0xfffUL) < kernelEnd)
            throw new BootException($"the initrd ({initrd.Length} bytes) does not fit between the kernel's end 0x{kernelEnd:x} and 0x{top:x}: give the guest more memory");
        ulong address = (top - (ulong)initrd.Length) & ~0xfffUL;
        ram.Write(address, initrd);
        return address;
    }

    private static void WriteZeroPage(GuestRam ram, BzImage image, ReadOnlySpan<byte> line, uint code32, uint ramdisk, uint ramdiskSize)
    {
        Span<byte> page = ram.At(RealModeMemory.ZeroPage, 4096);
        page.Clear();
        image.Header.Span.CopyTo(page[BzImage.HeaderOffset..]);

        E820Entry[] map = E820Entry.Map(ram);
        page[E820Count] = (byte)Math.Min(map.Length, E820Max);
        System.Runtime.InteropServices.MemoryMarshal.AsBytes(map.AsSpan()).CopyTo(page[E820Table..]);
        BinaryPrimitives.WriteUInt32LittleEndian(page[AltMemK..], (uint)((ram.LowSize - 0x100000) / 1024));

        page[TypeOfLoader] = BootLoaderUndefined;
        BinaryPrimitives.WriteUInt32LittleEndian(page[Code32Start..], code32);
        SetRamdisk(page, ramdisk, ramdiskSize);
        WriteCommandLine(ram, page, RealModeMemory.CommandLine, line);
    }

    private static void LoadSetup(GuestRam ram, BzImage image, ReadOnlySpan<byte> line, uint ramdisk, uint ramdiskSize)
    {
        if (image.SetupSize > (int)RealModeMemory.SetupHeapEnd) throw new BootException($"the setup code has {image.SetupSize} bytes, there is room for {RealModeMemory.SetupHeapEnd}");
        Span<byte> segment = ram.At(RealModeMemory.SetupSegment, 0x10000 - 0x400);
        segment.Clear();
        image.Setup.Span.CopyTo(segment);
        segment[TypeOfLoader] = BootLoaderUndefined;
        segment[LoadFlags] |= CanUseHeap;
        BinaryPrimitives.WriteUInt16LittleEndian(segment[VidMode..], 0xffff); // "normal"
        BinaryPrimitives.WriteUInt16LittleEndian(segment[HeapEnd..], (ushort)(RealModeMemory.SetupHeapEnd - 0x200));
        SetRamdisk(segment, ramdisk, ramdiskSize);
        WriteCommandLine(ram, segment, RealModeMemory.SetupCommandLine, line);
    }

    private static void SetRamdisk(Span<byte> page, uint address, uint size)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(page[RamdiskImage..], address);
        BinaryPrimitives.WriteUInt32LittleEndian(page[RamdiskSize..], size);
    }

    private static void WriteCommandLine(GuestRam ram, Span<byte> page, ulong address, ReadOnlySpan<byte> line)
    {
        ram.Write(address, line);
        ram.Write(address + (ulong)line.Length, (byte)0);
        BinaryPrimitives.WriteUInt32LittleEndian(page[CmdLinePtr..], (uint)address);
    }
}
