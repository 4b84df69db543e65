using System.Runtime.InteropServices;

namespace Kvm.Emulator;

/// <summary>
/// Where generated code goes on for a branch target: per entry the RIP, and <see cref="Offset"/> bytes behind it the host code. Belongs to one software TLB table and is
/// emptied with it, so an entry says as well that the page is mapped, executable, and still the one that was translated.
/// </summary>
internal sealed unsafe class JumpCache : IDisposable
{
    internal const int Count = 1 << 12;
    /// <summary>From an entry's RIP to its host code, in bytes.</summary>
    internal const int Offset = Count * sizeof(ulong);
    /// <summary>No branch target: not canonical.</summary>
    private const ulong none = 0x5a5a_5a5a_5a5a_5a5a;

    internal readonly ulong* Entries = (ulong*)NativeMemory.AlignedAlloc(2 * Offset, 64);
    /// <summary>Per 64th part: something is in it.</summary>
    private ulong used = ulong.MaxValue;
    /// <summary>Pages that may have entries, by the low bits of their number.</summary>
    private readonly ulong[] pages = new ulong[64];
    private bool empty;

    internal JumpCache() => Clear();

    /// <summary>The mode that the entries are for.</summary>
    internal uint Mode { get; private set; }

    /// <summary>Entry of a target: the code that is generated for branches computes the same.</summary>
    internal static int Index(ulong rip) => (int)(rip ^ (rip >> 12)) & (Count - 1);

    internal void SetMode(uint mode)
    {
        if (mode == Mode)
            return;
        Clear();
        Mode = mode;
    }

    internal void Set(ulong rip, byte* host)
    {
        int i = Index(rip);
        Entries[i] = rip;
        Entries[i + Count] = (ulong)host;
        used |= 1UL << (i >> 6);
        pages[rip >> 18 & 63] |= 1UL << (int)(rip >> 12 & 63);
        empty = false;
    }

    internal void Clear()
    {
        if (empty)
            return;
        for (ulong rest = used; rest != 0; rest &= rest - 1)
            new Span<ulong>(Entries + ((long)global::System.Numerics.BitOperations.TrailingZeroCount(rest) << 6), 64).Fill(none);
        used = 0;
        Array.Clear(pages);
        empty = true;
    }

    /// <summary>Drops the entries of a page; <paramref name="large"/>: of the pages around it too.</summary>
    internal void ClearPage(ulong linear, bool large)
    {
        if (large || (pages[linear >> 18 & 63] & 1UL << (int)(linear >> 12 & 63)) != 0)
            Clear();
    }

    public void Dispose() => NativeMemory.AlignedFree(Entries);
}
