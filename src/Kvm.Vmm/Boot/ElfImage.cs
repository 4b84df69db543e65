using System.Buffers.Binary;

namespace Kvm.Vmm.Boot;

/// <summary>An x86 ELF executable, 32- or 64-bit: its loadable segments and its entry.</summary>
/// <remarks>Tool Interface Standard ELF specification, "Program Header".</remarks>
public sealed class ElfImage
{
    private const ushort MachineI386 = 3, MachineX86_64 = 62;
    private const uint Load = 1, Note = 4;

    private readonly ReadOnlyMemory<byte> _file;

    private ElfImage(ReadOnlyMemory<byte> file, bool is64, ulong entry, IReadOnlyList<Segment> segments, IReadOnlyList<ReadOnlyMemory<byte>> notes)
    {
        Notes = notes;
        _file = file;
        Is64 = is64;
        Entry = entry;
        Segments = segments;
    }

    /// <summary>ELFCLASS64.</summary>
    public bool Is64 { get; }

    /// <summary>The entry point, as the file says it: a linear address.</summary>
    public ulong Entry { get; }

    /// <summary>The PT_LOAD segments, in the file's order; at least one.</summary>
    public IReadOnlyList<Segment> Segments { get; }

    /// <summary>The PT_NOTE segments.</summary>
    public IReadOnlyList<ReadOnlyMemory<byte>> Notes { get; }

    /// <summary>Begins as an ELF file does.</summary>
    public static bool IsElf(ReadOnlySpan<byte> file) => file.StartsWith("\x7f"u8) && file.Length > 52 && file[1..4].SequenceEqual("ELF"u8);

    /// <exception cref="BootException">Not a little-endian x86 ELF, or one whose headers point outside the file.</exception>
    public static ElfImage Parse(ReadOnlyMemory<byte> file)
    {
        ReadOnlySpan<byte> data = file.Span;
        if (!IsElf(data)) throw new BootException("not an ELF file");
        bool is64 = data[4] == 2;
        ushort machine = U16(data, 18);
        if (data[5] != 1 || machine is not (MachineI386 or MachineX86_64)) throw new BootException($"an ELF file for another processor (machine {machine})");
        if (is64 && data.Length < 64) throw new BootException("the ELF file is cut off");

        ulong entry = is64 ? U64(data, 24) : U32(data, 24);
        ulong table = is64 ? U64(data, 32) : U32(data, 28);
        int entrySize = U16(data, is64 ? 54 : 42), count = U16(data, is64 ? 56 : 44);
        if (entrySize < (is64 ? 56 : 32) || table > (ulong)data.Length || (ulong)(entrySize * count) > (ulong)data.Length - table)
            throw new BootException("the ELF file's program headers lie outside the file");

        var segments = new List<Segment>();
        var notes = new List<ReadOnlyMemory<byte>>();
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> header = data[((int)table + i * entrySize)..];
            if (U32(header, 0) is not (Load or Note)) continue;
            Segment segment = is64
                ? new Segment(U64(header, 8), U64(header, 16), U64(header, 24), U64(header, 32), U64(header, 40))
                : new Segment(U32(header, 4), U32(header, 8), U32(header, 12), U32(header, 16), U32(header, 20));
            if (segment.FileSize > segment.MemorySize || segment.FileOffset > (ulong)data.Length || segment.FileSize > (ulong)data.Length - segment.FileOffset)
                throw new BootException($"segment {i} of the ELF file lies outside the file");
            if (U32(header, 0) == Load) segments.Add(segment);
            else notes.Add(file.Slice((int)segment.FileOffset, (int)segment.FileSize));
        }

        if (segments.Count == 0) throw new BootException("the ELF file has nothing to load");
        return new ElfImage(file, is64, entry, segments, notes);
    }

    /// <summary>Copies the segments to their physical addresses and zeroes what the file does not give.</summary>
    /// <returns>The first address behind the image.</returns>
    public ulong LoadPhysical(GuestRam ram)
    {
        ulong end = 0;
        foreach (Segment segment in Segments)
        {
            if (segment.MemorySize > ram.LowSize || segment.PhysicalAddress > ram.LowSize - segment.MemorySize)
                throw new BootException($"the image needs RAM at 0x{segment.PhysicalAddress:x}+0x{segment.MemorySize:x}, there are 0x{ram.LowSize:x} bytes: give the guest more memory");
            ram.Write(segment.PhysicalAddress, _file.Span.Slice((int)segment.FileOffset, (int)segment.FileSize));
            ram.Clear(segment.PhysicalAddress + segment.FileSize, segment.MemorySize - segment.FileSize);
            end = Math.Max(end, segment.PhysicalAddress + segment.MemorySize);
        }

        return end;
    }

    /// <summary>The physical address of the entry point.</summary>
    public ulong PhysicalEntry
    {
        get
        {
            foreach (Segment segment in Segments)
            {
                if (Entry >= segment.LinearAddress && Entry - segment.LinearAddress < segment.MemorySize)
                    return Entry - segment.LinearAddress + segment.PhysicalAddress;
            }

            return Entry;
        }
    }

    /// <summary>One PT_LOAD.</summary>
    public readonly record struct Segment(ulong FileOffset, ulong LinearAddress, ulong PhysicalAddress, ulong FileSize, ulong MemorySize);

    private static ushort U16(ReadOnlySpan<byte> data, int offset) => BinaryPrimitives.ReadUInt16LittleEndian(data[offset..]);

    private static uint U32(ReadOnlySpan<byte> data, int offset) => BinaryPrimitives.ReadUInt32LittleEndian(data[offset..]);

    private static ulong U64(ReadOnlySpan<byte> data, int offset) => BinaryPrimitives.ReadUInt64LittleEndian(data[offset..]);
}
