using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.RetPf;
using static Kvm.Arch.X86.SpteMasks;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>Building the entries that a fault needs, and a few more that the guest will want next.</remarks>
public sealed unsafe partial class ShadowMmu
{
    /// <summary>struct kvm_shadow_walk_iterator.</summary>
    internal struct ShadowWalk
    {
        public ulong Addr;
        public ulong Table;
        public ulong* Sptep;
        public int Level;
    }

    /// <summary>shadow_walk_init_using_root; false when there is nothing to walk. Any thread may walk, see X86Vcpu's lockless sections.</summary>
    internal static bool WalkInit(KvmMmu mmu, ulong root, ulong addr, out ShadowWalk walk)
    {
        walk = new ShadowWalk { Addr = addr, Table = root, Level = mmu.RootLevel };
        if (walk.Level == PT32E_ROOT_LEVEL)
        {
            walk.Table = mmu.PaeRoot[(addr >> 30) & 3] & SPTE_BASE_ADDR_MASK;
            walk.Level = walk.Table == 0 ? 0 : PT32_ROOT_LEVEL;
        }

        return WalkStep(ref walk);
    }

    private static bool WalkStep(ref ShadowWalk walk)
    {
        if (walk.Level < PG_LEVEL_4K)
            return false;
        walk.Sptep = (ulong*)walk.Table + ((int)(walk.Addr >> (12 + (9 * (walk.Level - 1)))) & 511);
        return true;
    }

    /// <summary>shadow_walk_next: false below the last entry.</summary>
    internal static bool WalkNext(ref ShadowWalk walk, ulong spte)
    {
        if (!IsShadowPresent(spte) || IsLast(spte, walk.Level))
        {
            walk.Level = 0;
            return false;
        }

        walk.Table = spte & SPTE_BASE_ADDR_MASK;
        walk.Level--;
        return WalkStep(ref walk);
    }

    // ---- direct ----

    /// <summary>direct_map: a guest without paging.</summary>
    [KernelFunction("direct_map", File = "arch/x86/kvm/mmu/mmu.c")]
    internal int DirectMap(X86Vcpu vcpu, ref KvmPageFault fault)
    {
        using var _ = FunctionTrace.Enter("direct_map");
        vm.HugepageAdjust(ref fault);
        TraceRequested(in fault);
        bool more = WalkInit(vcpu.Mmu, vcpu.Mmu.RootHpa, fault.Addr, out ShadowWalk walk);
        while (more)
        {
            if (fault.NxHugePageWorkaroundEnabled)
                X86Vm.DisallowedHugepageAdjust(ref fault, *walk.Sptep, walk.Level);
            ulong baseGfn = fault.Gfn & ~(KvmArchMemorySlot.PagesPer(walk.Level) - 1);
            if (walk.Level == fault.GoalLevel)
            {
                int ret = SetSpte(vcpu, fault.Slot, walk.Sptep, ACC_ALL, baseGfn, fault.Pfn, fault.Write, fault.MapWritable, false);
                if (ret != RET_PF_SPURIOUS)
                    DirectPtePrefetch(vcpu, walk.Sptep);
                return ret;
            }

            if (GetChildSp(vcpu, walk.Sptep, baseGfn, true, ACC_ALL) is { } sp)
            {
                LinkShadowPage(vcpu, walk.Sptep, sp);
                if (fault.IsTdp && fault.HugePageDisallowed && fault.ReqLevel >= walk.Level)
                    AccountHugeNxPage(sp);
            }

            more = WalkNext(ref walk, *walk.Sptep);
        }

        return -Errnos.EFAULT;
    }

    /// <summary>account_huge_nx_page.</summary>
    private void AccountHugeNxPage(ShadowPage sp)
    {
        if (sp.NxHugePageDisallowed)
            return;
        sp.NxHugePageDisallowed = true;
        vm.Stat.NxLpageSplits++;
    }

    /// <summary>direct_pte_prefetch: neighbours in the same group of eight that are not mapped yet. Not without accessed bits: what was used could not be told from what was not.</summary>
    private void DirectPtePrefetch(X86Vcpu vcpu, ulong* sptep)
    {
        ShadowPage sp = SpOf(sptep);
        if (sp.Role.AdDisabled || sp.Role.Level > PG_LEVEL_4K || vm.MmuInvalidateInProgress != 0)
            return;
        int first = IndexOf(sptep) & ~(GuestWalker.PrefetchNum - 1);
        for (int i = first; i < first + GuestWalker.PrefetchNum; i++)
        {
            ulong* at = sp.Spt + i;
            if (at == sptep || IsShadowPresent(*at))
                continue;
            ulong gfn = sp.GfnOf(i);
            KvmMemorySlot? slot = SlotForPrefetch(vcpu, gfn, (sp.Role.Access & ACC_WRITE_MASK) != 0);
            if (slot is null || !PfnForPrefetch(slot, gfn, out ulong pfn))
                return;
            SetSpte(vcpu, slot, at, sp.Role.Access, gfn, pfn, false, true, true);
        }
    }

    /// <summary>gfn_to_memslot_dirty_bitmap: with dirty logging nothing is mapped writable that was not written.</summary>
    private static KvmMemorySlot? SlotForPrefetch(X86Vcpu vcpu, ulong gfn, bool noDirtyLog)
    {
        KvmMemorySlot? slot = vcpu.GfnToMemslot(gfn);
        return slot is null || slot.IsInvalid || (noDirtyLog && slot.DirtyTrackEnabled) ? null : slot;
    }

    /// <summary>gfn_to_pfn_memslot_atomic: only pages that can be written (DIVERGES: D-X86-6).</summary>
    private bool PfnForPrefetch(KvmMemorySlot slot, ulong gfn, out ulong pfn)
    {
        pfn = 0;
        if (slot.IsReadonly)
            return false;
        ulong page = vm.Mm.GetUserPage(slot.GfnToHva(gfn), true);
        pfn = page >> 12;
        return page != 0;
    }

    // ---- indirect ----

    /// <summary>paging64_fetch, paging32_fetch: shadows the guest's tables down to the entry for the fault's address.</summary>
    [KernelFunction("paging64_fetch", File = "arch/x86/kvm/mmu/paging_tmpl.h")]
    internal int Fetch(X86Vcpu vcpu, ref KvmPageFault fault, ref GuestWalker gw)
    {
        int guestLevel = vcpu.Mmu.GuestLevel;
        int size = guestLevel == PT32_ROOT_LEVEL ? 4 : 8;
        using var _ = FunctionTrace.Enter(size == 4 ? "paging32_fetch" : "paging64_fetch");
        uint directAccess = gw.PteAccess;

        // The root of the guest is write-protected or given up: from now on its entry can't change unnoticed.
        if (GpteChanged(vcpu, ref gw, guestLevel == PT32E_ROOT_LEVEL ? PT32_ROOT_LEVEL : guestLevel, size) || vcpu.Mmu.RootHpa == INVALID_PAGE)
            return RET_PF_RETRY;

        bool more = WalkInit(vcpu.Mmu, vcpu.Mmu.RootHpa, fault.Addr, out ShadowWalk walk);
        for (; more && walk.Level > gw.Level; more = WalkNext(ref walk, *walk.Sptep))
        {
            Volatile.Write(ref SpOf(walk.Sptep).WriteFloodingCount, 0);
            ShadowPage? sp = GetChildSp(vcpu, walk.Sptep, gw.TableGfn[walk.Level - 2], false, gw.PtAccess[walk.Level - 2]);

            // Before it is linked: the guest need not flush when it makes an entry present.
            if (sp is { UnsyncChildren: not 0 })
                SyncChildren(vcpu, sp);

            // The page is write-protected now: is the entry still the one that was read?
            if (GpteChanged(vcpu, ref gw, walk.Level - 1, size))
                return RET_PF_RETRY;
            if (sp is not null)
                LinkShadowPage(vcpu, walk.Sptep, sp);
        }

        vm.HugepageAdjust(ref fault);
        TraceRequested(in fault);
        for (; more; more = WalkNext(ref walk, *walk.Sptep))
        {
            Volatile.Write(ref SpOf(walk.Sptep).WriteFloodingCount, 0);
            if (fault.NxHugePageWorkaroundEnabled)
                X86Vm.DisallowedHugepageAdjust(ref fault, *walk.Sptep, walk.Level);
            ulong baseGfn = fault.Gfn & ~(KvmArchMemorySlot.PagesPer(walk.Level) - 1);
            if (walk.Level == fault.GoalLevel)
            {
                int ret = SetSpte(vcpu, fault.Slot, walk.Sptep, gw.PteAccess, baseGfn, fault.Pfn, fault.Write, fault.MapWritable, false);
                if (ret != RET_PF_SPURIOUS)
                    PtePrefetch(vcpu, ref gw, walk.Sptep);
                return ret;
            }

            // The guest's large page, in smaller pieces.
            ValidateDirectSpte(walk.Sptep, directAccess);
            if (GetChildSp(vcpu, walk.Sptep, baseGfn, true, directAccess) is not { } sp)
                continue;
            LinkShadowPage(vcpu, walk.Sptep, sp);
            if (fault.HugePageDisallowed && fault.ReqLevel >= walk.Level)
                AccountHugeNxPage(sp);
        }

        return -Errnos.EFAULT;
    }

    private static void TraceRequested(in KvmPageFault fault)
    {
        if (!Tracepoints.Enabled)
            return;
        ulong pfn = fault.Pfn | (fault.Gfn & (KvmArchMemorySlot.PagesPer(fault.GoalLevel) - 1));
        Tracepoints.Emit("kvm_mmu_spte_requested", $"gfn {fault.Gfn:x} pfn {pfn:x} level {fault.GoalLevel}");
    }

    /// <summary>gpte_changed: at the last level the whole group is read, for prefetching.</summary>
    private bool GpteChanged(X86Vcpu vcpu, ref GuestWalker gw, int level, int size)
    {
        ulong gpa = gw.PteGpa[level - 1];
        ulong current = 0;
        if (level != PG_LEVEL_4K)
            return !ReadGpte(vcpu, gpa, size, out current) || current != gw.Ptes[level - 1];
        ulong first = gpa & ~(ulong)((GuestWalker.PrefetchNum * size) - 1);
        for (int i = 0; i < GuestWalker.PrefetchNum; i++)
        {
            ulong at = first + (ulong)(i * size);
            if (!ReadGpte(vcpu, at, size, out gw.PrefetchPtes[i]))
                return true;
            if (at == gpa)
                current = gw.PrefetchPtes[i];
        }

        return current != gw.Ptes[0];
    }

    /// <summary>validate_direct_spte: the rights of the guest's large page changed (it became dirty): another table takes the place of the present one.</summary>
    private void ValidateDirectSpte(ulong* sptep, uint directAccess)
    {
        ulong spte = *sptep;
        if (!IsShadowPresent(spte) || IsLarge(spte))
            return;
        ShadowPage child = ChildOf(spte);
        if (child.Role.Access == directAccess)
            return;
        DropParentPte(child, sptep);
        vm.FlushRemoteTlbs();
    }

    /// <summary>pte_prefetch.</summary>
    private void PtePrefetch(X86Vcpu vcpu, ref GuestWalker gw, ulong* sptep)
    {
        ShadowPage sp = SpOf(sptep);
        if (sp.Role.Level > PG_LEVEL_4K || vm.MmuInvalidateInProgress != 0)
            return;
        if (sp.Role.Direct)
        {
            DirectPtePrefetch(vcpu, sptep);
            return;
        }

        int first = IndexOf(sptep) & ~(GuestWalker.PrefetchNum - 1);
        for (int i = 0; i < GuestWalker.PrefetchNum; i++)
        {
            ulong* at = sp.Spt + first + i;
            if (at == sptep || IsShadowPresent(*at))
                continue;
            if (!PrefetchGpte(vcpu, sp, at, gw.PrefetchPtes[i], noDirtyLog: true))
                break;
        }
    }

    /// <summary>prefetch_gpte: false when the entry is not worth mapping now.</summary>
    private bool PrefetchGpte(X86Vcpu vcpu, ShadowPage sp, ulong* sptep, ulong gpte, bool noDirtyLog)
    {
        if (PrefetchInvalidGpte(vcpu, sptep, gpte))
            return false;
        ulong gfn = GpteToGfn(gpte, sp.Role.Has4ByteGpte ? 4 : 8);
        uint access = X86Vcpu.ProtectCleanGpte(sp.Role.Access & X86Vcpu.GpteAccess(gpte), gpte);
        KvmMemorySlot? slot = SlotForPrefetch(vcpu, gfn, noDirtyLog && (access & ACC_WRITE_MASK) != 0);
        if (slot is null || !PfnForPrefetch(slot, gfn, out ulong pfn))
            return false;
        SetSpte(vcpu, slot, sptep, access, gfn, pfn, false, true, true);
        return true;
    }
}
