using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.RetPf;
using static Kvm.Arch.X86.SpteMasks;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>Mapping a frame that faulted.</remarks>
public sealed unsafe partial class TdpMmu
{
    /// <summary>Installs the mapping that the fault needs: RET_PF_FIXED, SPURIOUS, EMULATE or RETRY.</summary>
    [KernelFunction("kvm_tdp_mmu_map", File = "arch/x86/kvm/mmu/tdp_mmu.c")]
    internal int Map(X86Vcpu vcpu, ref KvmPageFault fault)
    {
        using var _ = FunctionTrace.Enter("kvm_tdp_mmu_map");
        vm.HugepageAdjust(ref fault);
        if (Tracepoints.Enabled)
            MmuTrace.Requested(fault);
        IterStart();

        KvmMmuPage sp = pages[vcpu.Mmu.RootHpa];
        for (; ; )
        {
            int index = (int)(fault.Gfn >> (9 * (sp.Level - 1))) & 511;
            ulong* ptep = sp.Spt + index;
            ulong old = *ptep;
            if (fault.NxHugePageWorkaroundEnabled)
                X86Vm.DisallowedHugepageAdjust(ref fault, old, sp.Level);
            if (sp.Level == fault.GoalLevel)
                return MapTargetLevel(vcpu, ref fault, sp, ptep, old);

            if (IsShadowPresent(old) && IsLarge(old))
            {
                // A large page is in the way: it goes, and its translations with it, before a table takes its place.
                *ptep = 0;
                if (Tracepoints.Enabled)
                    MmuTrace.Changed(sp, ptep, old, 0);
                Removed(old, sp.Level);
                vm.FlushRemoteTlbs();
                old = 0;
            }

            if (!IsShadowPresent(old))
                LinkTable(vcpu, sp, ptep, fault.Gfn, fault.HugePageDisallowed && fault.ReqLevel >= sp.Level);
            FunctionTrace.Leaf("tdp_iter_next");
            sp = pages[*ptep & SPTE_BASE_ADDR_MASK];
        }
    }

    private void LinkTable(X86Vcpu vcpu, KvmMmuPage parent, ulong* ptep, ulong gfn, bool accountNx)
    {
        KvmMmuPage child = AllocSp(vcpu);
        int level = parent.Level - 1;
        using (FunctionTrace.Enter("tdp_mmu_init_child_sp"))
            InitSp(child, ptep, parent, gfn & ~((1ul << (9 * level)) - 1), level, parent.Smm);
        using var _ = FunctionTrace.Enter("tdp_mmu_link_sp");
        SetSpte(parent, ptep, Masks.MakeNonleaf(child.Address, AdDisabled));
        if (!accountNx)
            return;
        child.NxHugePageDisallowed = true;
        vm.Stat.NxLpageSplits++;
    }

    private static void SetSpte(KvmMmuPage table, ulong* ptep, ulong spte)
    {
        if (Tracepoints.Enabled)
            MmuTrace.Changed(table, ptep, *ptep, spte);

        // The table is complete before the processor can find it.
        Volatile.Write(ref *ptep, spte);
        FunctionTrace.Leaf("__handle_changed_spte");
        FunctionTrace.Leaf("handle_changed_spte_acc_track");
    }

    private int MapTargetLevel(X86Vcpu vcpu, ref KvmPageFault fault, KvmMmuPage sp, ulong* ptep, ulong old)
    {
        ulong gfn = fault.Gfn & ~((1ul << (9 * (sp.Level - 1))) - 1);
        ulong spte = fault.Slot is null
            ? Masks.MakeMmio(Volatile.Read(ref vcpu.Memslots.Generation), gfn, ACC_ALL)
            : MakeSpte(vcpu, sp, fault.Slot, gfn, fault.Pfn, old, fault.MapWritable);
        int ret = RET_PF_FIXED;
        if (spte == old)
        {
            ret = RET_PF_SPURIOUS;
        }
        else
        {
            bool replacedTable = IsShadowPresent(old) && !IsLast(old, sp.Level);
            SetSpte(sp, ptep, spte);
            if (IsShadowPresent(old))
                Removed(old, sp.Level);
            if (IsShadowPresent(spte))
                vm.UpdatePageStats(sp.Level, 1);
            if (replacedTable || (IsShadowPresent(old) && PfnOf(old) != PfnOf(spte)))
            {
                vm.FlushRemoteTlbs();
                FreeCondemned();
            }
        }

        if (fault.Slot is null)
        {
            vcpu.Stat.PfMmioSpteCreated++;
            if (Tracepoints.Enabled)
                MmuTrace.MarkMmio((ulong)ptep, gfn, spte);
            return RET_PF_EMULATE;
        }

        if (Tracepoints.Enabled)
            MmuTrace.SetSpte(Masks, (ulong)ptep, gfn, sp.Level, *ptep);
        return ret;
    }

    /// <summary>A leaf entry for <paramref name="pfn"/>; a writable one marks the frame dirty when the slot is logged.</summary>
    [KernelFunction("make_spte", File = "arch/x86/kvm/mmu/spte.c")]
    private ulong MakeSpte(X86Vcpu vcpu, KvmMmuPage sp, KvmMemorySlot slot, ulong gfn, ulong pfn, ulong old, bool hostWritable)
    {
        using var _ = FunctionTrace.Enter("make_spte");
        SpteMasks m = Masks;
        ulong spte = SPTE_MMU_PRESENT_MASK;
        if (AdDisabled)
            spte |= SPTE_TDP_AD_DISABLED_MASK;
        spte |= m.Present | m.AccessedOf(spte);

        bool exec = !(sp.Level > PG_LEVEL_4K && vm.NxHugePageEnabled);
        spte |= exec ? m.X : m.Nx;
        spte |= m.User;
        if (sp.Level > PG_LEVEL_4K)
            spte |= PT_PAGE_SIZE_MASK;
        if (m.Memtype != 0)
        {
            FunctionTrace.Leaf("kvm_is_mmio_pfn");
            spte |= vcpu.Ops.GetMtMask(vcpu, gfn, false);
        }

        spte |= m.MeValue | (pfn << 12);
        if (hostWritable)
        {
            spte |= m.HostWritable | PT_WRITABLE_MASK | m.MmuWritable;
            if (!IsWritable(old) || !IsShadowPresent(old))
            {
                using (FunctionTrace.Enter("mmu_try_to_unsync_pages"))
                    FunctionTrace.Leaf("kvm_slot_page_track_is_active");
                spte |= m.DirtyOf(spte);
            }
            else
            {
                spte |= old & m.DirtyOf(spte);
            }

            if (slot.DirtyTrackEnabled)
                vm.MarkPageDirtyInSlot(slot, gfn);
        }

        return spte;
    }

    // ---- without the lock ----

    /// <summary>
    /// kvm_tdp_mmu_fast_pf_get_last_sptep: the leaf (or the entry where the walk ends) of a frame. Without the lock, between
    /// X86Vcpu's walk_shadow_page_lockless_begin and end: tables are only freed after this vCPU left that section.
    /// </summary>
    internal ulong* LastSptep(ulong rootHpa, int rootLevel, ulong gfn, out ulong spte, out int level)
    {
        ulong* table = (ulong*)rootHpa;
        level = rootLevel;
        for (; ; )
        {
            ulong* ptep = table + ((int)(gfn >> (9 * (level - 1))) & 511);
            spte = Volatile.Read(ref *ptep);
            if (!IsShadowPresent(spte) || IsLast(spte, level))
                return ptep;
            table = (ulong*)(spte & SPTE_BASE_ADDR_MASK);
            level--;
        }
    }
}
