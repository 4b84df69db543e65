using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.RetPf;
using static Kvm.Arch.X86.SpteMasks;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>Entries: making, changing and clearing them, and the lists that lead back from a frame to the entries that map it.</remarks>
public sealed unsafe partial class ShadowMmu
{
    /// <summary>RMAP_RECYCLE_THRESHOLD.</summary>
    private const int RmapRecycleThreshold = 1000;

    private bool IsMmuWritable(ulong spte) => (spte & Masks.MmuWritable) != 0;

    /// <summary>mmu_spte_update: the frame stays the same. True when translations made from the old entry must be flushed.</summary>
    private bool UpdateSpte(ulong* sptep, ulong spte)
    {
        // The processor sets accessed and dirty bits meanwhile.
        ulong old = Interlocked.Exchange(ref *sptep, spte);
        if (!IsShadowPresent(old))
            return false;

        // A writable translation may be cached although the entry lost the bit before: only "may be made writable" counts.
        if (IsMmuWritable(old) && !IsWritable(spte))
            return true;
        ulong lost = old & ~spte;
        return (lost & (Masks.AccessedOf(old) | Masks.DirtyOf(old))) != 0;
    }

    /// <summary>mmu_spte_clear_track_bits: a last-level entry that was present.</summary>
    private ulong ClearTrackBits(ulong* sptep, int level)
    {
        ulong old = Interlocked.Exchange(ref *sptep, 0);
        if (IsShadowPresent(old))
            vm.UpdatePageStats(level, -1);
        return old;
    }

    /// <summary>drop_spte.</summary>
    private void DropSpte(ulong* sptep)
    {
        ShadowPage sp = SpOf(sptep);
        if (IsShadowPresent(ClearTrackBits(sptep, sp.Role.Level)))
            RmapRemove(sp, sptep);
    }

    /// <summary>rmap_add: also keeps the guest's own translation. A frame that is mapped too often loses all its mappings.</summary>
    private void RmapAdd(X86Vcpu vcpu, KvmMemorySlot slot, ShadowPage sp, ulong* sptep, ulong gfn, uint access)
    {
        sp.SetTranslation(IndexOf(sptep), gfn, access);
        vm.UpdatePageStats(sp.Role.Level, 1);
        ref ulong head = ref ArchOf(slot).Rmap(gfn, sp.Role.Level);
        int count = lists.Add(vcpu.PteListDescCache, sptep, ref head);
        if ((ulong)count > vm.Stat.MaxMmuRmapSize)
            vm.Stat.MaxMmuRmapSize = (ulong)count;
        if (count <= RmapRecycleThreshold)
            return;
        ZapAllRmapSptes(ref head, sp.Role.Level);
        vm.FlushRemoteTlbs();
    }

    /// <summary>rmap_remove.</summary>
    private void RmapRemove(ShadowPage sp, ulong* sptep)
    {
        ulong gfn = sp.GfnOf(IndexOf(sptep));
        KvmMemorySlot? slot = SlotOf(sp.Role, gfn);
        Expect(slot is not null && lists.Remove(sptep, ref ArchOf(slot).Rmap(gfn, sp.Role.Level)), "rmap_remove");
    }

    /// <summary>kvm_zap_all_rmap_sptes.</summary>
    private bool ZapAllRmapSptes(ref ulong head, int level)
    {
        if (head == 0)
            return false;
        for (ulong* sptep = PteLists.First(head, out PteLists.Position at); sptep != null; sptep = PteLists.Next(ref at))
            ClearTrackBits(sptep, level);
        lists.Clear(ref head);
        return true;
    }

    // ---- making entries ----

    /// <summary>
    /// make_spte: a last-level entry. True when it had to be write-protected, because it maps a table of the guest.
    /// </summary>
    [KernelFunction("make_spte", File = "arch/x86/kvm/mmu/spte.c")]
    private bool MakeSpte(X86Vcpu vcpu, ShadowPage sp, KvmMemorySlot slot, uint access, ulong gfn, ulong pfn, ulong old, bool prefetch, bool canUnsync, bool hostWritable, out ulong spte)
    {
        using var _ = FunctionTrace.Enter("make_spte");
        SpteMasks m = Masks;
        int level = sp.Role.Level;
        bool writeProtected = false;
        ulong made = SPTE_MMU_PRESENT_MASK | m.Present | m.MeValue | (pfn << 12);
        if (sp.Role.AdDisabled)
            made |= SPTE_TDP_AD_DISABLED_MASK;
        if (!prefetch)
            made |= m.AccessedOf(made);
        if (level > PG_LEVEL_4K)
        {
            made |= PT_PAGE_SIZE_MASK;
            if (vm.NxHugePageEnabled)
                access &= ~ACC_EXEC_MASK;
        }

        made |= (access & ACC_EXEC_MASK) != 0 ? m.X : m.Nx;
        if ((access & ACC_USER_MASK) != 0)
            made |= m.User;
        if (m.Memtype != 0)
            made |= vcpu.Ops.GetMtMask(vcpu, gfn, false);
        if (hostWritable)
            made |= m.HostWritable;
        else
            access &= ~ACC_WRITE_MASK;

        if ((access & ACC_WRITE_MASK) != 0)
        {
            made |= PT_WRITABLE_MASK | m.MmuWritable;

            // Where the entry was writable before, pages that shadow the frame are out of sync already; its dirty bit has been seen, too.
            if (!(IsShadowPresent(old) && IsLast(old, level) && IsWritable(old)))
            {
                if (TryToUnsyncPages(slot, gfn, canUnsync, prefetch) != 0)
                {
                    writeProtected = true;
                    made &= ~(PT_WRITABLE_MASK | m.MmuWritable);
                }
                else
                {
                    made |= m.DirtyOf(made);
                }
            }
        }

        if ((made & PT_WRITABLE_MASK) != 0 && slot.DirtyTrackEnabled)
            vm.MarkPageDirtyInSlot(slot, gfn);
        spte = made;
        return writeProtected;
    }

    /// <summary>
    /// mmu_set_spte: RET_PF_FIXED, SPURIOUS, or EMULATE for MMIO and for a write to a page that must stay write-protected. <paramref name="prefetch"/>: not for a
    /// fault, but because the guest will probably want it.
    /// </summary>
    [KernelFunction("mmu_set_spte", File = "arch/x86/kvm/mmu/mmu.c")]
    private int SetSpte(X86Vcpu vcpu, KvmMemorySlot? slot, ulong* sptep, uint access, ulong gfn, ulong pfn, bool writeFault, bool mapWritable, bool prefetch)
    {
        using var _ = FunctionTrace.Enter("mmu_set_spte");
        ShadowPage sp = SpOf(sptep);
        int level = sp.Role.Level;
        ulong old = *sptep;
        bool wasMapped = false;
        bool flush = false;
        if (IsShadowPresent(old))
        {
            if (level > PG_LEVEL_4K && !IsLarge(old))
            {
                // A table gives way to a large page.
                DropParentPte(ChildOf(old), sptep);
                flush = true;
            }
            else if (pfn != PfnOf(old))
            {
                DropSpte(sptep);
                flush = true;
            }
            else
            {
                wasMapped = true;
            }
        }

        if (slot is null || KvmPfn.IsNoslot(pfn))
        {
            vcpu.Stat.PfMmioSpteCreated++;
            MarkMmioSpte(vcpu, sptep, gfn, access);
            if (flush)
                vm.FlushRemoteTlbs();
            return RET_PF_EMULATE;
        }

        bool writeProtected = MakeSpte(vcpu, sp, slot, access, gfn, pfn, *sptep, prefetch, true, mapWritable, out ulong spte);
        int ret = RET_PF_FIXED;
        if (*sptep == spte)
        {
            ret = RET_PF_SPURIOUS;
        }
        else
        {
            flush |= UpdateSpte(sptep, spte);
            if (Tracepoints.Enabled)
                MmuTrace.SetSpte(Masks, (ulong)sptep, gfn, level, spte);
        }

        if (writeProtected && writeFault)
            ret = RET_PF_EMULATE;
        if (flush)
            vm.FlushRemoteTlbs();
        if (wasMapped)
            sp.SetTranslation(IndexOf(sptep), gfn, access);
        else
            RmapAdd(vcpu, slot, sp, sptep, gfn, access);
        return ret;
    }

    /// <summary>mark_mmio_spte: with MMIO caching off the entry stays not present.</summary>
    private void MarkMmioSpte(X86Vcpu vcpu, ulong* sptep, ulong gfn, uint access)
    {
        ulong spte = Masks.MakeMmio(Volatile.Read(ref vcpu.Memslots.Generation), gfn, access);
        if (Tracepoints.Enabled)
            MmuTrace.MarkMmio((ulong)sptep, gfn, spte);
        Volatile.Write(ref *sptep, spte);
    }

    // ---- who watches a frame ----

    /// <summary>kvm_slot_page_track_is_active: writes to the frame must be seen, in whichever address space. Any thread may ask.</summary>
    internal bool IsWriteTracked(KvmMemorySlot? slot, ulong gfn)
    {
        FunctionTrace.Leaf("kvm_slot_page_track_is_active");
        if (slot is null)
            return false;
        if (ArchOf(slot).WriteTrack(gfn) != 0)
            return true;
        return vm.Memslots(slot.AsId ^ 1).Find(gfn) is { } other && ArchOf(other).WriteTrack(gfn) != 0;
    }

    /// <summary>account_shadowed: the guest's table is write-protected; upper levels for good, the last until it is made writable and out of sync.</summary>
    private void AccountShadowed(ShadowPage sp)
    {
        Interlocked.Increment(ref IndirectShadowPages);
        if (SlotOf(sp.Role, sp.Gfn) is not { } slot)
            return;
        KvmArchMemorySlot arch = ArchOf(slot);
        if (sp.Role.Level > PG_LEVEL_4K)
        {
            FunctionTrace.Leaf("kvm_slot_page_track_add_page");
            arch.WriteTrack(sp.Gfn)++;
        }

        arch.UpdateDisallowLpage(sp.Gfn, 1);
        if (SlotGfnWriteProtect(slot, sp.Gfn, PG_LEVEL_4K))
            vm.FlushRemoteTlbs();
    }

    /// <summary>unaccount_shadowed.</summary>
    private void UnaccountShadowed(ShadowPage sp)
    {
        Interlocked.Decrement(ref IndirectShadowPages);
        if (SlotOf(sp.Role, sp.Gfn) is not { } slot)
            return;
        KvmArchMemorySlot arch = ArchOf(slot);
        if (sp.Role.Level > PG_LEVEL_4K)
        {
            FunctionTrace.Leaf("kvm_slot_page_track_remove_page");
            arch.WriteTrack(sp.Gfn)--;
        }

        arch.UpdateDisallowLpage(sp.Gfn, -1);
    }

    /// <summary>kvm_mmu_slot_gfn_write_protect: no entry of at least this size lets the frame be written; true when one changed.</summary>
    [KernelFunction("kvm_mmu_slot_gfn_write_protect", File = "arch/x86/kvm/mmu/mmu.c")]
    internal bool SlotGfnWriteProtect(KvmMemorySlot slot, ulong gfn, int minLevel)
    {
        bool changed = false;
        for (int level = minLevel; level <= KvmArchMemorySlot.PageSizes; level++)
            changed |= RmapWriteProtect(ArchOf(slot).Rmap(gfn, level), true);
        return changed;
    }

    private bool WriteProtectGfn(X86Vcpu vcpu, ulong gfn) => vcpu.GfnToMemslot(gfn) is { } slot && SlotGfnWriteProtect(slot, gfn, PG_LEVEL_4K);

    /// <summary>rmap_write_protect. With <paramref name="tableProtect"/> a fault may not simply make the entry writable again, as it may for dirty logging.</summary>
    private bool RmapWriteProtect(ulong head, bool tableProtect)
    {
        bool flush = false;
        for (ulong* sptep = PteLists.First(head, out PteLists.Position at); sptep != null; sptep = PteLists.Next(ref at))
        {
            ulong spte = *sptep;
            if (!IsWritable(spte) && !(tableProtect && IsMmuWritable(spte)))
                continue;
            ulong clear = PT_WRITABLE_MASK | (tableProtect ? Masks.MmuWritable : 0);

            // Only those bits change: the processor may set others right now.
            ulong was = Interlocked.And(ref *sptep, ~clear);
            flush |= IsMmuWritable(was);
        }

        return flush;
    }
}
