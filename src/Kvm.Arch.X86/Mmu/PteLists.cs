using System.Runtime.InteropServices;

namespace Kvm.Arch.X86;

/// <summary>
/// Lists of table entries: those that map a frame (rmap), those that point to a table. A head is 0, the address of the only entry, or with bit 0 set the
/// address of a descriptor with up to 14 entries and a successor. Under the VM's mmu_lock.
/// </summary>
/// <remarks>mmu/mmu.c:pte_list_add and its siblings.</remarks>
internal sealed unsafe class PteLists
{
    private const int Extent = 14;
    private const int PerChunk = 32;

    private struct Desc
    {
        public Desc* More;
        public ulong Count;
        public fixed ulong Sptes[Extent];
    }

    private readonly List<nint> chunks = [];
    private Desc* free;

    /// <summary>Descriptors in lists.</summary>
    public int InUse { get; private set; }

    /// <summary>pte_list_add: the number of entries that were there before, as far as the kernel counts them. <paramref name="cache"/> pays for a descriptor.</summary>
    public int Add(MmuMemoryCache cache, ulong* spte, ref ulong head)
    {
        if (head == 0)
        {
            head = (ulong)spte;
            return 0;
        }

        Desc* desc;
        if ((head & 1) == 0)
        {
            desc = Take(cache);
            desc->Sptes[0] = head;
            desc->Sptes[1] = (ulong)spte;
            desc->Count = 2;
            head = (ulong)desc | 1;
            return 1;
        }

        int count = 0;
        desc = (Desc*)(head & ~1ul);
        while (desc->Count == Extent)
        {
            count += Extent;
            if (desc->More == null)
            {
                desc->More = Take(cache);
                desc = desc->More;
                break;
            }

            desc = desc->More;
        }

        count += (int)desc->Count;
        desc->Sptes[desc->Count++] = (ulong)spte;
        return count;
    }

    /// <summary>pte_list_remove: false when the entry is not in the list.</summary>
    public bool Remove(ulong* spte, ref ulong head)
    {
        if ((head & 1) == 0)
        {
            if (head != (ulong)spte || head == 0)
                return false;
            head = 0;
            return true;
        }

        Desc* before = null;
        for (Desc* desc = (Desc*)(head & ~1ul); desc != null; before = desc, desc = desc->More)
        {
            for (int i = 0; i < (int)desc->Count; i++)
            {
                if (desc->Sptes[i] != (ulong)spte)
                    continue;
                desc->Sptes[i] = desc->Sptes[--desc->Count];
                if (desc->Count == 0)
                    Unlink(desc, before, ref head);
                return true;
            }
        }

        return false;
    }

    private void Unlink(Desc* desc, Desc* before, ref ulong head)
    {
        if (before != null)
            before->More = desc->More;
        else
            head = desc->More == null ? 0 : (ulong)desc->More | 1;
        Give(desc);
    }

    /// <summary>Empties the list without looking at the entries.</summary>
    public void Clear(ref ulong head)
    {
        if ((head & 1) != 0)
        {
            for (Desc* desc = (Desc*)(head & ~1ul), next; desc != null; desc = next)
            {
                next = desc->More;
                Give(desc);
            }
        }

        head = 0;
    }

    /// <summary>pte_list_count.</summary>
    public static int Count(ulong head)
    {
        if ((head & 1) == 0)
            return head == 0 ? 0 : 1;
        int count = 0;
        for (Desc* desc = (Desc*)(head & ~1ul); desc != null; desc = desc->More)
            count += (int)desc->Count;
        return count;
    }

    /// <summary>rmap_get_first: null for an empty list.</summary>
    public static ulong* First(ulong head, out Position position)
    {
        position = default;
        if ((head & 1) == 0)
            return (ulong*)head;
        var desc = (Desc*)(head & ~1ul);
        position.Desc = (nint)desc;
        return (ulong*)desc->Sptes[0];
    }

    /// <summary>rmap_get_next: null behind the last. The list must not change meanwhile.</summary>
    public static ulong* Next(ref Position position)
    {
        var desc = (Desc*)position.Desc;
        if (desc == null)
            return null;
        if (++position.Index < (int)desc->Count)
            return (ulong*)desc->Sptes[position.Index];
        desc = desc->More;
        position.Desc = (nint)desc;
        position.Index = 0;
        return desc == null ? null : (ulong*)desc->Sptes[0];
    }

    /// <summary>Gives the memory of all descriptors back.</summary>
    public void Free()
    {
        foreach (nint chunk in chunks)
            NativeMemory.AlignedFree((void*)chunk);
        chunks.Clear();
        free = null;
    }

    private Desc* Take(MmuMemoryCache cache)
    {
        cache.Alloc();
        if (free == null)
            Grow();
        Desc* desc = free;
        free = desc->More;
        desc->More = null;
        desc->Count = 0;
        InUse++;
        return desc;
    }

    private void Give(Desc* desc)
    {
        desc->More = free;
        free = desc;
        InUse--;
    }

    private void Grow()
    {
        var chunk = (Desc*)NativeMemory.AlignedAlloc((nuint)(sizeof(Desc) * PerChunk), 64);
        chunks.Add((nint)chunk);
        for (int i = 0; i < PerChunk; i++)
        {
            chunk[i].More = free;
            free = chunk + i;
        }
    }

    /// <summary>struct rmap_iterator.</summary>
    internal struct Position
    {
        public nint Desc;
        public int Index;
    }
}
