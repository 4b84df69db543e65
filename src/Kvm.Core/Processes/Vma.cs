namespace Kvm.Core;

/// <summary>A mapping of a process (struct vm_area_struct).</summary>
public sealed class Vma
{
    internal Vma(ulong start, ulong length, int protection, int flags, KvmFile? file, ulong pageOffset)
    {
        Start = start;
        Length = length;
        Protection = protection;
        Flags = flags;
        File = file;
        PageOffset = pageOffset;
    }

    /// <summary>First address.</summary>
    public ulong Start { get; internal set; }

    /// <summary>Bytes, a page multiple.</summary>
    public ulong Length { get; }

    /// <summary>First address behind it.</summary>
    public ulong End => Start + Length;

    /// <summary>PROT_READ 1, PROT_WRITE 2, PROT_EXEC 4.</summary>
    public int Protection { get; internal set; }

    /// <summary>MAP_SHARED 1, MAP_PRIVATE 2, MAP_ANONYMOUS 0x20.</summary>
    public int Flags { get; }

    /// <summary>The mapped file, which the mapping holds; null for anonymous memory.</summary>
    public KvmFile? File { get; }

    /// <summary>vm_pgoff.</summary>
    public ulong PageOffset { get; }

    /// <summary>Of a file's mapping: which pages the file had; the others are inaccessible.</summary>
    internal bool[]? Populated { get; init; }

    /// <summary>There is memory at the address, whatever the protection allows.</summary>
    internal bool HasPage(ulong address) => Populated is null || Populated[(address - Start) / PageAllocator.PageSize];

    internal bool Readable => (Protection & 1) != 0;
    internal bool Writable => (Protection & 2) != 0;
}
