using Kvm.Core;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <summary>
/// What shadow paging keeps for each frame of a slot: the entries that map it, whether a large page may, whether writes to it are watched. Slots that differ in
/// flags only share one.
/// </summary>
/// <remarks>struct kvm_arch_memory_slot, asm/kvm_host.h.</remarks>
internal sealed unsafe class KvmArchMemorySlot
{
    /// <summary>KVM_NR_PAGE_SIZES.</summary>
    public const int PageSizes = 3;
    private readonly Host host;
    private readonly ulong baseGfn;
    private readonly ulong*[] rmap = new ulong*[PageSizes];
    private readonly int*[] lpageInfo = new int*[PageSizes];
    private ushort* gfnTrack;

    private KvmArchMemorySlot(Host host, ulong baseGfn)
    {
        this.host = host;
        this.baseGfn = baseGfn;
    }

    /// <summary>kvm_alloc_memslot_metadata: null when memory runs out; nothing is left behind then.</summary>
    public static KvmArchMemorySlot? Alloc(Host host, KvmMemorySlot slot)
    {
        var arch = new KvmArchMemorySlot(host, slot.BaseGfn);
        if (arch.AllocArrays(slot))
            return arch;
        arch.Free();
        return null;
    }

    private bool AllocArrays(KvmMemorySlot slot)
    {
        for (int i = 0; i < PageSizes; i++)
        {
            rmap[i] = (ulong*)host.Pages.Vmalloc("rmap", LargePages(slot, i + 1) * sizeof(ulong));
            if (rmap[i] == null)
                return false;
        }

        for (int level = PG_LEVEL_2M; level <= PageSizes; level++)
        {
            ulong pages = LargePages(slot, level);
            var info = (int*)host.Pages.Vmalloc("lpage_info", pages * sizeof(int));
            lpageInfo[level - 1] = info;
            if (info == null)
                return false;
            InitLpageInfo(slot, level, info, pages);
        }

        gfnTrack = (ushort*)host.Pages.Vmalloc("gfn_track", slot.Npages * sizeof(ushort));
        return gfnTrack != null;
    }

    /// <summary>Large pages that stick out of the slot, or whose guest and process addresses are not aligned alike, are never made.</summary>
    private static void InitLpageInfo(KvmMemorySlot slot, int level, int* info, ulong pages)
    {
        ulong mask = PagesPer(level) - 1;
        if ((slot.BaseGfn & mask) != 0)
            info[0] = 1;
        if ((slot.EndGfn & mask) != 0)
            info[pages - 1] = 1;
        if (((slot.BaseGfn ^ (slot.UserspaceAddr >> 12)) & mask) != 0)
            new Span<int>(info, (int)pages).Fill(1);
    }

    public void Free()
    {
        for (int i = 0; i < PageSizes; i++)
        {
            host.Pages.Vfree((ulong)rmap[i]);
            host.Pages.Vfree((ulong)lpageInfo[i]);
            rmap[i] = null;
            lpageInfo[i] = null;
        }

        host.Pages.Vfree((ulong)gfnTrack);
        gfnTrack = null;
    }

    /// <summary>KVM_PAGES_PER_HPAGE.</summary>
    public static ulong PagesPer(int level) => 1ul << (9 * (level - 1));

    /// <summary>__kvm_mmu_slot_lpages.</summary>
    private static ulong LargePages(KvmMemorySlot slot, int level) => ((slot.EndGfn - 1) >> (9 * (level - 1))) - (slot.BaseGfn >> (9 * (level - 1))) + 1;

    /// <summary>gfn_to_index.</summary>
    private ulong IndexOf(ulong gfn, int level) => (gfn >> (9 * (level - 1))) - (baseGfn >> (9 * (level - 1)));

    /// <summary>gfn_to_rmap: the list of entries that map the frame with pages of this size.</summary>
    public ref ulong Rmap(ulong gfn, int level) => ref rmap[level - 1][IndexOf(gfn, level)];

    /// <summary>lpage_info_slot: reasons not to map the frame with a page of this size.</summary>
    public ref int DisallowLpage(ulong gfn, int level) => ref lpageInfo[level - 1][IndexOf(gfn, level)];

    /// <summary>gfn_track[KVM_PAGE_TRACK_WRITE]: who watches writes to the frame.</summary>
    public ref ushort WriteTrack(ulong gfn) => ref gfnTrack[gfn - baseGfn];

    /// <summary>update_gfn_disallow_lpage_count.</summary>
    public void UpdateDisallowLpage(ulong gfn, int count)
    {
        for (int level = PG_LEVEL_2M; level <= PageSizes; level++)
            DisallowLpage(gfn, level) += count;
    }
}
