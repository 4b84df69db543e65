namespace Kvm.Emulator;

/// <summary>A range of physical addresses backed by RAM. <see cref="Host"/> equals <see cref="Start"/> except for windows made with <see cref="PhysicalMemory.Map"/>.</summary>
internal sealed unsafe class MemoryRange(ulong start, ulong size, byte* host, bool owned)
{
    public readonly ulong Start = start;
    public readonly ulong Size = size;
    public readonly ulong End = start + size;
    public readonly byte* Host = host;
    /// <summary>Mapped by <see cref="PhysicalMemory.Allocate"/>: unmapped with the machine.</summary>
    public readonly bool Owned = owned;
    /// <summary>How many registrations cover exactly this range.</summary>
    public int References = 1;
    private ulong[]? codePages;

    /// <summary>Whether decoded code may exist for the page (D7: such a page never gets a write tag in any TLB).</summary>
    public bool IsCodePage(ulong pa)
    {
        ulong[]? bits = Volatile.Read(ref codePages);
        if (bits is null)
            return false;
        ulong page = (pa - Start) >> 12;
        return (Volatile.Read(ref bits[page >> 6]) >> (int)(page & 63) & 1) != 0;
    }

    /// <summary>Returns whether the page was not marked before.</summary>
    public bool SetCodePage(ulong pa, bool code)
    {
        ulong[]? bits = Volatile.Read(ref codePages);
        if (bits is null)
        {
            if (!code)
                return false;
            bits = new ulong[((Size >> 12) >> 6) + 2];
            bits = Interlocked.CompareExchange(ref codePages, bits, null) ?? bits;
        }
        ulong page = (pa - Start) >> 12;
        ulong mask = 1UL << (int)(page & 63);
        return code
            ? (Interlocked.Or(ref bits[page >> 6], mask) & mask) == 0
            : (Interlocked.And(ref bits[page >> 6], ~mask) & mask) != 0;
    }
}
