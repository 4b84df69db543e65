using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Kvm.Emulator;

/// <summary>One software TLB table: the translations of one context for one privilege. Entries remember whether they are global and the size of the page they came from.</summary>
internal sealed unsafe class TlbTable : IDisposable
{
    private const byte Listed = 0x80, GlobalBit = 0x40, SizeMask = 0x3f;

    public readonly TlbEntry* Entries;
    /// <summary>Per entry: in the list of filled entries, global, log2 of the guest page size.</summary>
    private readonly byte* info;
    private readonly ushort* filled;
    private int count;
    private bool hasLarge;

    public TlbTable()
    {
        Entries = (TlbEntry*)NativeMemory.AlignedAlloc((nuint)(sizeof(TlbEntry) * TlbEntry.Entries), 64);
        info = (byte*)NativeMemory.AllocZeroed(TlbEntry.Entries);
        filled = (ushort*)NativeMemory.Alloc(TlbEntry.Entries, sizeof(ushort));
        Unsafe.InitBlockUnaligned(Entries, 0xff, (uint)(sizeof(TlbEntry) * TlbEntry.Entries));
    }

    public bool Empty => count == 0;

    /// <summary>Generated code for branch targets of the context, null while there is none.</summary>
    internal JumpCache? Jumps { get; private set; }

    internal ulong* UseJumps() => (Jumps ??= new JumpCache()).Entries;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static int Index(ulong linear) => (int)(linear >> 12) & (TlbEntry.Entries - 1);

    /// <summary>Adds rights for a page; an entry of another page, or of the same page at another address, is replaced.</summary>
    public void Fill(ulong page, ulong addend, bool read, bool write, bool execute, bool global, int sizeShift)
    {
        int index = Index(page);
        TlbEntry* entry = &Entries[index];
        bool same = entry->Addend == addend && (entry->ReadTag == page || entry->WriteTag == page || entry->ExecTag == page);
        if (!same)
        {
            entry->ReadTag = entry->WriteTag = entry->ExecTag = TlbEntry.NoMatch;
            entry->Addend = addend;
        }
        if (read)
            entry->ReadTag = page;
        if (write)
            entry->WriteTag = page;
        if (execute)
            entry->ExecTag = page;
        if ((info[index] & Listed) == 0)
            filled[count++] = (ushort)index;
        info[index] = (byte)(Listed | (global ? GlobalBit : 0) | sizeShift);
        if (sizeShift > 12)
            hasLarge = true;
    }

    public void Clear()
    {
        Jumps?.Clear();
        for (int i = 0; i < count; i++)
        {
            Invalidate(filled[i]);
            info[filled[i]] = 0;
        }
        count = 0;
        hasLarge = false;
    }

    /// <summary>Drops everything that is not global.</summary>
    public void ClearNonGlobal()
    {
        Jumps?.Clear();
        int kept = 0;
        for (int i = 0; i < count; i++)
        {
            ushort index = filled[i];
            if ((info[index] & GlobalBit) != 0)
            {
                filled[kept++] = index;
                continue;
            }
            Invalidate(index);
            info[index] = 0;
        }
        count = kept;
    }

    /// <summary>Drops the translation of one address; with large pages, every fragment of the page it lies in.</summary>
    public void ClearLinear(ulong linear, bool globalOnly)
    {
        Jumps?.ClearPage(linear, hasLarge);
        if (hasLarge)
        {
            ClearLarge(linear, globalOnly);
            return;
        }
        int index = Index(linear);
        if (Matches(index, linear & ~0xfffUL) && (!globalOnly || (info[index] & GlobalBit) != 0))
            Invalidate(index);
    }

    private void ClearLarge(ulong linear, bool globalOnly)
    {
        for (int i = 0; i < count; i++)
        {
            ushort index = filled[i];
            TlbEntry* entry = &Entries[index];
            ulong page = entry->ReadTag != TlbEntry.NoMatch ? entry->ReadTag : entry->WriteTag != TlbEntry.NoMatch ? entry->WriteTag : entry->ExecTag;
            if (page == TlbEntry.NoMatch || (globalOnly && (info[index] & GlobalBit) == 0))
                continue;
            if ((page ^ linear) >> (info[index] & SizeMask) == 0)
                Invalidate(index);
        }
    }

    /// <summary>Removes write tags of entries that map a host page.</summary>
    public void RevokeWrites(ulong hostPage)
    {
        for (int i = 0; i < count; i++)
        {
            TlbEntry* entry = &Entries[filled[i]];
            if (entry->WriteTag != TlbEntry.NoMatch && entry->WriteTag + entry->Addend == hostPage)
                entry->WriteTag = TlbEntry.NoMatch;
        }
    }

    private bool Matches(int index, ulong page) => Entries[index].ReadTag == page || Entries[index].WriteTag == page || Entries[index].ExecTag == page;

    private void Invalidate(int index) => Entries[index].ReadTag = Entries[index].WriteTag = Entries[index].ExecTag = TlbEntry.NoMatch;

    public void Dispose()
    {
        Jumps?.Dispose();
        NativeMemory.AlignedFree(Entries);
        NativeMemory.Free(info);
        NativeMemory.Free(filled);
    }
}
