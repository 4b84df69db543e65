using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.SpteMasks;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>Write protection, dirty bits and page sizes of whole slots, for dirty logging.</remarks>
public sealed unsafe partial class TdpMmu
{
    private delegate bool LeafAction(ulong* ptep, ulong spte, int level);

    /// <summary>Calls the action for every leaf in [start, end); true when one of them changed something.</summary>
    private bool ForEachLeaf(ulong start, ulong end, LeafAction action)
    {
        bool changed = false;
        foreach (KvmMmuPage root in roots)
            changed |= ForEachLeaf(root, start, end, action);
        return changed;
    }

    /// <summary>The same as two kernel functions: one for the slot, one for each root.</summary>
    private bool ForEachLeaf(string slotFunction, string rootFunction, ulong start, ulong end, LeafAction action)
    {
        using var _ = FunctionTrace.Enter(slotFunction);
        bool changed = false;
        KvmMmuPage? before = null;
        foreach (KvmMmuPage root in roots)
        {
            NextRoot(before);
            using (FunctionTrace.Enter(rootFunction))
            {
                IterStart();
                changed |= ForEachLeaf(root, start, end, action);
            }

            before = root;
        }

        NextRoot(before);
        return changed;
    }

    private bool ForEachLeaf(KvmMmuPage sp, ulong start, ulong end, LeafAction action)
    {
        bool changed = false;
        (int first, int last) = EntryRange(sp, start, end, 1ul << (9 * (sp.Level - 1)));
        for (int i = first; i <= last; i++)
        {
            ulong spte = sp.Spt[i];
            FunctionTrace.Leaf("tdp_iter_next");
            if (!IsShadowPresent(spte))
                continue;
            if (IsLast(spte, sp.Level))
                changed |= action(sp.Spt + i, spte, sp.Level);
            else
                changed |= ForEachLeaf(pages[spte & SPTE_BASE_ADDR_MASK], start, end, action);
        }

        return changed;
    }

    /// <summary>Leaves of at least <paramref name="minLevel"/> lose the write bit.</summary>
    [KernelFunction("kvm_tdp_mmu_wrprot_slot", File = "arch/x86/kvm/mmu/tdp_mmu.c")]
    internal bool WriteProtect(ulong start, ulong end, int minLevel) =>
        ForEachLeaf("kvm_tdp_mmu_wrprot_slot", "wrprot_gfn_range", start, end, (ptep, spte, level) => level >= minLevel && ClearBitsTraced(ptep, PT_WRITABLE_MASK));

    /// <summary>With dirty bits they are cleared, without the write bit is.</summary>
    [KernelFunction("kvm_tdp_mmu_clear_dirty_slot", File = "arch/x86/kvm/mmu/tdp_mmu.c")]
    internal bool ClearDirty(ulong start, ulong end) =>
        ForEachLeaf("kvm_tdp_mmu_clear_dirty_slot", "clear_dirty_gfn_range", start, end,
            (ptep, spte, level) => ClearBitsTraced(ptep, Masks.DirtyOf(spte) != 0 ? Masks.Dirty : PT_WRITABLE_MASK));

    /// <summary>kvm_tdp_mmu_clear_dirty_pt_masked: the frames of the mask, 4 KiB leaves only.</summary>
    internal void ClearDirtyMasked(ulong gfn, ulong mask, bool writeProtect)
    {
        while (mask != 0)
        {
            int bit = System.Numerics.BitOperations.TrailingZeroCount(mask);
            mask &= mask - 1;
            ulong frame = gfn + (ulong)bit;
            foreach (KvmMmuPage root in roots)
            {
                ulong* ptep = LastSptep(root.Address, root.Level, frame, out ulong spte, out int level);
                if (level != PG_LEVEL_4K || !IsShadowPresent(spte))
                    continue;
                ClearBits(ptep, writeProtect || Masks.DirtyOf(spte) == 0 ? PT_WRITABLE_MASK : Masks.Dirty);
            }
        }
    }

    /// <summary>Other processors set accessed and dirty bits meanwhile: only the given bits change.</summary>
    private static bool ClearBits(ulong* ptep, ulong bits) => (Interlocked.And(ref *ptep, ~bits) & bits) != 0;

    /// <summary>As <see cref="ClearBits"/>; a change is followed as handle_changed_spte does.</summary>
    private static bool ClearBitsTraced(ulong* ptep, ulong bits)
    {
        if (!ClearBits(ptep, bits))
            return false;
        using (FunctionTrace.Enter("__handle_changed_spte"))
            FunctionTrace.Leaf("kvm_set_pfn_dirty");
        FunctionTrace.Leaf("handle_changed_spte_acc_track");
        return true;
    }

    /// <summary>2 MiB leaves become tables of 4 KiB leaves. Stops when memory runs out.</summary>
    [KernelFunction("kvm_tdp_mmu_try_split_huge_pages", File = "arch/x86/kvm/mmu/tdp_mmu.c")]
    internal bool SplitHugePages(ulong start, ulong end) =>
        ForEachLeaf("kvm_tdp_mmu_try_split_huge_pages", "tdp_mmu_split_huge_pages_root", start, end, (ptep, spte, level) => level == PG_LEVEL_2M && Split(ptep, spte));

    private bool Split(ulong* ptep, ulong huge)
    {
        ulong page = vm.Host.Pages.AllocPage("kvm_mmu_page");
        if (page == 0)
            return false;
        KvmMmuPage sp = spareHeaders.Count > 0 ? spareHeaders.Pop() : new KvmMmuPage();
        sp.Spt = (ulong*)page;
        KvmMmuPage parent = FindTable(ptep);
        ulong gfn = parent.Gfn + ((ulong)(ptep - parent.Spt) << 9);
        InitSp(sp, ptep, parent, gfn, PG_LEVEL_4K, parent.Smm);
        ulong leaf = huge & ~PT_PAGE_SIZE_MASK;
        if (vm.NxHugePageEnabled)
            leaf = (leaf & ~Masks.Nx) | Masks.X;
        for (ulong i = 0; i < 512; i++)
            sp.Spt[i] = leaf + (i << 12);
        SetSpte(parent, ptep, Masks.MakeNonleaf(sp.Address, AdDisabled));
        vm.UpdatePageStats(PG_LEVEL_2M, -1);
        vm.UpdatePageStats(PG_LEVEL_4K, 512);
        return true;
    }

    private KvmMmuPage FindTable(ulong* ptep) => pages[(ulong)ptep & ~0xffful];

    /// <summary>kvm_tdp_mmu_zap_collapsible_sptes: 4 KiB leaves that a 2 MiB page could replace go away; the next fault maps the large page.</summary>
    internal bool ZapCollapsible(KvmMemorySlot slot)
    {
        bool flush = false;
        for (ulong gfn = (slot.BaseGfn + 511) & ~511ul; gfn + 512 <= slot.EndGfn; gfn += 512)
        {
            if (vm.MaxMappingLevel(slot, gfn, PG_LEVEL_2M, !slot.IsReadonly) != PG_LEVEL_2M)
                continue;
            foreach (KvmMmuPage root in roots)
            {
                LastSptep(root.Address, root.Level, gfn, out _, out int level);
                if (level == PG_LEVEL_4K)
                    flush |= ZapLeafs(root, gfn, gfn + 512);
            }
        }

        return flush;
    }

    /// <summary>kvm_tdp_mmu_age_gfn_range: takes the accessed bits; true when a frame was accessed. Without A/D bits: never.</summary>
    internal bool AgeGfn(ulong start, ulong end) =>
        ForEachLeaf(start, end, (ptep, spte, level) => Masks.AccessedOf(spte) != 0 && ClearBits(ptep, Masks.Accessed));

    /// <summary>kvm_tdp_mmu_test_age_gfn.</summary>
    internal bool TestAgeGfn(ulong start, ulong end) =>
        ForEachLeaf(start, end, (ptep, spte, level) => (spte & Masks.AccessedOf(spte)) != 0);
}
