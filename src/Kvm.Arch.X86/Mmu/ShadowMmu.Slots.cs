using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.SpteMasks;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>Whole slots and ranges of them: dirty logging, process memory that goes away, large pages that become possible again.</remarks>
public sealed unsafe partial class ShadowMmu
{
    private delegate bool RmapHandler(ref ulong head, int level);

    /// <summary>slot_handle_level_range: every list of the slot's frames in [start, end), for pages of these sizes. True when something changed.</summary>
    private static bool ForEachRmap(KvmMemorySlot slot, ulong start, ulong end, int minLevel, int maxLevel, RmapHandler handler)
    {
        bool changed = false;
        KvmArchMemorySlot arch = ArchOf(slot);
        for (int level = minLevel; level <= maxLevel && start < end; level++)
        {
            ulong step = KvmArchMemorySlot.PagesPer(level);
            for (ulong gfn = start & ~(step - 1); gfn < end; gfn += step)
            {
                ref ulong head = ref arch.Rmap(Math.Max(gfn, slot.BaseGfn), level);
                if (head != 0)
                    changed |= handler(ref head, level);
            }
        }

        return changed;
    }

    /// <summary>kvm_mmu_slot_remove_write_access: entries of at least this size lose the write bit; the lock is taken here.</summary>
    internal bool SlotRemoveWriteAccess(KvmMemorySlot slot, int minLevel) =>
        ForEachRmap(slot, slot.BaseGfn, slot.EndGfn, minLevel, KvmArchMemorySlot.PageSizes, (ref ulong head, int level) => RmapWriteProtect(head, false));

    /// <summary>kvm_mmu_slot_leaf_clear_dirty: 4 KiB entries, for a processor that logs what it writes.</summary>
    internal bool SlotLeafClearDirty(KvmMemorySlot slot) =>
        ForEachRmap(slot, slot.BaseGfn, slot.EndGfn, PG_LEVEL_4K, PG_LEVEL_4K, (ref ulong head, int level) => RmapClearDirty(head));

    /// <summary>kvm_arch_mmu_enable_log_dirty_pt_masked: the frames of the mask, 4 KiB entries only.</summary>
    internal void EnableLogDirtyPtMasked(KvmMemorySlot slot, ulong start, ulong mask, bool writeProtect)
    {
        for (; mask != 0; mask &= mask - 1)
        {
            ulong head = ArchOf(slot).Rmap(start + (ulong)System.Numerics.BitOperations.TrailingZeroCount(mask), PG_LEVEL_4K);
            if (writeProtect)
                RmapWriteProtect(head, false);
            else
                RmapClearDirty(head);
        }
    }

    /// <summary>__rmap_clear_dirty: the dirty bit, or the write bit of an entry without one.</summary>
    private bool RmapClearDirty(ulong head)
    {
        bool changed = false;
        for (ulong* sptep = PteLists.First(head, out PteLists.Position at); sptep != null; sptep = PteLists.Next(ref at))
        {
            ulong dirty = Masks.DirtyOf(*sptep);
            ulong clear = dirty != 0 ? dirty : PT_WRITABLE_MASK;
            changed |= (Interlocked.And(ref *sptep, ~clear) & clear) != 0;
        }

        return changed;
    }

    /// <summary>kvm_unmap_gfn_range: true when translations must be flushed.</summary>
    internal bool UnmapGfnRange(KvmMemorySlot slot, ulong start, ulong end) =>
        ForEachRmap(slot, start, end, PG_LEVEL_4K, KvmArchMemorySlot.PageSizes, ZapAllRmapSptes);

    /// <summary>kvm_zap_gfn_range without lock and flush: frames of every address space.</summary>
    internal bool ZapGfnRange(ulong start, ulong end)
    {
        bool flush = false;
        for (int space = 0; space < KvmLimits.KVM_ADDRESS_SPACE_NUM; space++)
        {
            foreach (KvmMemorySlot slot in vm.Memslots(space).InGfnRange(start, end))
                flush |= UnmapGfnRange(slot, Math.Max(start, slot.BaseGfn), Math.Min(end, slot.EndGfn));
        }

        return flush;
    }

    /// <summary>kvm_age_gfn: takes the accessed bits; true when one was set.</summary>
    internal bool AgeGfn(KvmMemorySlot slot, ulong start, ulong end) =>
        ForEachRmap(slot, start, end, PG_LEVEL_4K, KvmArchMemorySlot.PageSizes, AgeRmap);

    private bool AgeRmap(ref ulong head, int level)
    {
        bool young = false;
        for (ulong* sptep = PteLists.First(head, out PteLists.Position at); sptep != null; sptep = PteLists.Next(ref at))
        {
            ulong accessed = Masks.AccessedOf(*sptep);
            young |= accessed != 0 && (Interlocked.And(ref *sptep, ~accessed) & accessed) != 0;
        }

        return young;
    }

    /// <summary>kvm_test_age_gfn.</summary>
    internal bool TestAgeGfn(KvmMemorySlot slot, ulong start, ulong end) =>
        ForEachRmap(slot, start, end, PG_LEVEL_4K, KvmArchMemorySlot.PageSizes, (ref ulong head, int level) =>
        {
            for (ulong* sptep = PteLists.First(head, out PteLists.Position at); sptep != null; sptep = PteLists.Next(ref at))
            {
                if ((*sptep & Masks.AccessedOf(*sptep)) != 0)
                    return true;
            }

            return false;
        });

    /// <summary>kvm_rmap_zap_collapsible_sptes: small entries of direct pages that a large one could replace; what shadows a table of small pages stays.</summary>
    internal bool ZapCollapsible(KvmMemorySlot slot) =>
        ForEachRmap(slot, slot.BaseGfn, slot.EndGfn, PG_LEVEL_4K, KvmArchMemorySlot.PageSizes - 1, (ref ulong head, int level) => ZapCollapsible(slot, ref head));

    private bool ZapCollapsible(KvmMemorySlot slot, ref ulong head)
    {
        bool flush = false;
        for (ulong* sptep = PteLists.First(head, out PteLists.Position at); sptep != null;)
        {
            ShadowPage sp = SpOf(sptep);
            if (!sp.Role.Direct || !slot.Contains(sp.Gfn) || sp.Role.Level >= vm.MaxMappingLevel(slot, sp.Gfn, KvmArchMemorySlot.PageSizes, !slot.IsReadonly))
            {
                sptep = PteLists.Next(ref at);
                continue;
            }

            ClearTrackBits(sptep, sp.Role.Level);
            Expect(lists.Remove(sptep, ref head), "zap_collapsible");
            flush = true;
            sptep = PteLists.First(head, out at);
        }

        return flush;
    }

    // ---- writes to guest tables ----

    /// <summary>
    /// kvm_mmu_pte_write: an emulated write reached memory. Entries that shadow what was there go; a page that is written too often, or not entry by entry, is
    /// probably no table any more and goes as a whole. Takes the lock.
    /// </summary>
    [KernelFunction("kvm_mmu_pte_write", File = "arch/x86/kvm/mmu/mmu.c")]
    internal void PteWrite(X86Vcpu vcpu, ulong gpa, int bytes)
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_pte_write");
        if (Volatile.Read(ref IndirectShadowPages) == 0)
            return;
        vm.MmuLock.WriteLock();

        // A guest that writes its 8-byte entries in two halves.
        if (vcpu.IsPae && bytes == 4)
        {
            gpa &= ~7ul;
            bytes = 8;
        }

        ulong gentry = 0;
        if (bytes is 4 or 8 && (gpa & (ulong)(bytes - 1)) == 0)
            ReadGpte(vcpu, gpa, bytes, out gentry);
        vm.Stat.MmuPteWrite++;

        ShadowPage? invalid = null;
        bool flush = false;
        ulong gfn = gpa >> 12;
        for (ShadowPage? sp = hash.Length == 0 ? null : hash[HashOf(gfn)]; sp is not null; sp = sp.HashNext)
        {
            if (sp.Gfn != gfn || IsObsolete(sp) || !sp.HasGptes)
                continue;
            if (IsWriteMisaligned(sp, gpa, bytes) || IsWriteFlooding(sp))
            {
                PrepareZapPage(sp, ref invalid);
                vm.Stat.MmuFlooded++;
                continue;
            }

            ulong* sptep = WrittenSptes(sp, gpa, out int count);
            for (; sptep != null && count > 0; count--, sptep++)
            {
                ulong entry = *sptep;
                ZapPte(sp, sptep, ref invalid);
                if (gentry != 0 && sp.Role.Level != PG_LEVEL_4K)
                    vm.Stat.MmuPdeZapped++;
                flush |= IsShadowPresent(entry);
            }
        }

        RemoteFlushOrZap(ref invalid, flush);
        vm.MmuLock.WriteUnlock();
    }

    /// <summary>detect_write_misaligned: anything but one whole entry, or its first byte.</summary>
    private static bool IsWriteMisaligned(ShadowPage sp, ulong gpa, int bytes)
    {
        uint offset = (uint)gpa & 0xfff;
        uint size = sp.Role.Has4ByteGpte ? 4u : 8u;
        if ((offset & (size - 1)) == 0 && bytes == 1)
            return false;
        return bytes < 4 || ((offset ^ (offset + (uint)bytes - 1)) & ~(size - 1)) != 0;
    }

    /// <summary>detect_write_flooding: the third write to an upper-level table without a walk through it.</summary>
    private static bool IsWriteFlooding(ShadowPage sp) => sp.Role.Level != PG_LEVEL_4K && Interlocked.Increment(ref sp.WriteFloodingCount) >= 3;

    /// <summary>get_written_sptes: the entries that shadow the written one; null when it is in another part of the guest's table. A 4 MiB entry has two.</summary>
    private static ulong* WrittenSptes(ShadowPage sp, ulong gpa, out int count)
    {
        uint offset = (uint)gpa & 0xfff;
        count = 1;
        if (sp.Role.Has4ByteGpte)
        {
            offset <<= 1;
            if (sp.Role.Level == PT32_ROOT_LEVEL)
            {
                offset = (offset & ~7u) << 1;
                count = 2;
            }

            if (offset >> 12 != (uint)sp.Role.Quadrant)
                return null;
            offset &= 0xfff;
        }

        return sp.Spt + (offset / sizeof(ulong));
    }

    /// <summary>kvm_mmu_unprotect_page: the guest may write the frame again, what shadowed it goes. True when there was something. Takes the lock.</summary>
    [KernelFunction("kvm_mmu_unprotect_page", File = "arch/x86/kvm/mmu/mmu.c")]
    internal bool UnprotectPage(ulong gfn)
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_unprotect_page");
        bool found = false;
        vm.MmuLock.WriteLock();
        ShadowPage? invalid = null;
        for (ShadowPage? sp = hash.Length == 0 ? null : hash[HashOf(gfn)]; sp is not null; sp = sp.HashNext)
        {
            if (sp.Gfn != gfn || IsObsolete(sp) || !sp.HasGptes)
                continue;
            found = true;
            PrepareZapPage(sp, ref invalid);
        }

        CommitZapPage(ref invalid);
        vm.MmuLock.WriteUnlock();
        return found;
    }

    /// <summary>shadow_page_table_clear_flood: the tables that lead to the address are in use.</summary>
    internal void ClearFlood(X86Vcpu vcpu, ulong addr)
    {
        vm.MmuLock.WriteLock();
        for (bool more = WalkInit(vcpu.Mmu, vcpu.Mmu.RootHpa, addr, out ShadowWalk walk); more; more = WalkNext(ref walk, *walk.Sptep))
            Volatile.Write(ref SpOf(walk.Sptep).WriteFloodingCount, 0);
        vm.MmuLock.WriteUnlock();
    }

    /// <summary>paging64_invlpg, paging32_invlpg: the entry for the address is made to say what the guest's table says, when that may have changed unseen. Takes the lock.</summary>
    [KernelFunction("paging64_invlpg", File = "arch/x86/kvm/mmu/paging_tmpl.h")]
    internal void Invlpg(X86Vcpu vcpu, ulong gva, ulong root)
    {
        int size = vcpu.Mmu.GuestLevel == PT32_ROOT_LEVEL ? 4 : 8;
        using var _ = FunctionTrace.Enter(size == 4 ? "paging32_invlpg" : "paging64_invlpg");
        vm.MmuLock.WriteLock();
        for (bool more = WalkInit(vcpu.Mmu, root, gva, out ShadowWalk walk); more; more = WalkNext(ref walk, *walk.Sptep))
        {
            ShadowPage sp = SpOf(walk.Sptep);
            ulong old = *walk.Sptep;
            if (IsLast(old, walk.Level))
            {
                if (sp.Unsync)
                    InvlpgUnsync(vcpu, sp, walk.Sptep, old, size);
                break;
            }

            if (sp.UnsyncChildren == 0)
                break;
        }

        vm.MmuLock.WriteUnlock();
    }

    private void InvlpgUnsync(X86Vcpu vcpu, ShadowPage sp, ulong* sptep, ulong old, int size)
    {
        ShadowPage? none = null;
        ZapPte(sp, sptep, ref none);
        if (IsShadowPresent(old))
            vm.FlushRemoteTlbs();

        // Mapped again at once when there is a descriptor for it.
        if (vcpu.PteListDescCache.Count != 0 && ReadGpte(vcpu, Level1Gpa(sp) + (ulong)(IndexOf(sptep) * size), size, out ulong gpte))
            PrefetchGpte(vcpu, sp, sptep, gpte, noDirtyLog: false);
    }
}
