using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.SpteMasks;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <summary>
/// Shadow paging of one VM: tables that the processor walks in place of the guest's own, from guest-virtual to host-physical addresses, found by the frame and
/// role that they shadow. Everything is under the VM's mmu_lock, held for writing, unless it says otherwise.
/// </summary>
/// <remarks>mmu/mmu.c, mmu/paging_tmpl.h, mmu/page_track.c.</remarks>
public sealed unsafe partial class ShadowMmu
{
    private const int HashShift = 12;
    private readonly X86Vm vm;
    private readonly Dictionary<ulong, ShadowPage> pages = [];
    private readonly Stack<ShadowPage> spareHeaders = new();
    private readonly PteLists lists = new();
    private ShadowPage?[] hash = [];
    private ShadowPage? newest, oldest;
    private byte mmuValidGen;

    internal ShadowMmu(X86Vm vm) => this.vm = vm;

    /// <summary>indirect_shadow_pages: pages with a guest table behind them. Any thread may look.</summary>
    public int IndirectShadowPages;

    /// <summary>Table pages in use, roots included.</summary>
    public int PageCount => pages.Count;

    /// <summary>Descriptors of the lists of entries in use.</summary>
    public int ListDescriptors => lists.InUse;

    private X86Arch Arch => vm.Arch;

    private SpteMasks Masks => vm.Arch.Spte;

    /// <summary>to_shadow_page, sptep_to_sp.</summary>
    private ShadowPage PageOf(ulong address) => pages[address & ~0xffful];

    private ShadowPage ChildOf(ulong spte) => pages[spte & SPTE_BASE_ADDR_MASK];

    private ShadowPage SpOf(ulong* sptep) => pages[(ulong)sptep & ~0xffful];

    /// <summary>spte_index.</summary>
    private static int IndexOf(ulong* sptep) => (int)((ulong)sptep >> 3) & 511;

    /// <summary>is_obsolete_sp.</summary>
    private bool IsObsolete(ShadowPage sp) => sp.Role.Invalid || sp.MmuValidGen != mmuValidGen;

    /// <summary>__gfn_to_memslot in the address space of a page.</summary>
    private KvmMemorySlot? SlotOf(KvmMmuPageRole role, ulong gfn) => vm.Memslots(role.AddressSpace).Find(gfn);

    internal static KvmArchMemorySlot ArchOf(KvmMemorySlot slot) => (KvmArchMemorySlot)slot.Arch!;

    // ---- finding and making pages ----

    /// <summary>kvm_mmu_get_shadow_page: the page for a frame and role; a new one from the vCPU's caches when there is none.</summary>
    [KernelFunction("kvm_mmu_get_shadow_page", File = "arch/x86/kvm/mmu/mmu.c")]
    private ShadowPage GetShadowPage(X86Vcpu vcpu, ulong gfn, KvmMmuPageRole role)
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_get_shadow_page");
        if (hash.Length == 0)
            hash = new ShadowPage?[1 << HashShift];
        ref ShadowPage? bucket = ref hash[HashOf(gfn)];
        ShadowPage? sp = FindShadowPage(vcpu, bucket, gfn, role);
        bool created = sp is null;
        sp ??= AllocShadowPage(vcpu, ref bucket, gfn, role);
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_mmu_get_page", $"{sp} {(created ? "new" : "existing")}");
        return sp;
    }

    /// <summary>kvm_page_table_hashfn.</summary>
    private static int HashOf(ulong gfn) => (int)((gfn * 0x61c8864680b583eb) >> (64 - HashShift));

    /// <summary>kvm_mmu_find_shadow_page: a page that is out of sync is brought up to date on the way, but stays writable for the guest.</summary>
    [KernelFunction("kvm_mmu_find_shadow_page", File = "arch/x86/kvm/mmu/mmu.c")]
    private ShadowPage? FindShadowPage(X86Vcpu vcpu, ShadowPage? bucket, ulong gfn, KvmMmuPageRole role)
    {
        ulong collisions = 0;
        ShadowPage? invalid = null;
        ShadowPage? found = null;
        for (ShadowPage? sp = bucket; sp is not null; sp = sp.HashNext)
        {
            if (IsObsolete(sp))
                continue;
            if (sp.Gfn != gfn)
            {
                collisions++;
                continue;
            }

            if (sp.Role != role)
            {
                // The guest makes an upper table of a frame: a last-level page that could be written meanwhile is probably done with, and the frame must not stay writable.
                if (role.Level > PG_LEVEL_4K && sp.Unsync)
                    PrepareZapPage(sp, ref invalid);
                continue;
            }

            if (!sp.Role.Direct)
            {
                if (sp.Unsync)
                {
                    int r = SyncPage(vcpu, sp, ref invalid);
                    if (r < 0)
                        break;
                    if (r > 0)
                        vm.FlushRemoteTlbs();
                }

                Volatile.Write(ref sp.WriteFloodingCount, 0);
            }

            found = sp;
            break;
        }

        if (found is null)
            vm.Stat.MmuCacheMiss++;
        CommitZapPage(ref invalid);
        if (collisions > vm.Stat.MaxMmuPageHashCollisions)
            vm.Stat.MaxMmuPageHashCollisions = collisions;
        return found;
    }

    [KernelFunction("kvm_mmu_alloc_shadow_page", File = "arch/x86/kvm/mmu/mmu.c")]
    private ShadowPage AllocShadowPage(X86Vcpu vcpu, ref ShadowPage? bucket, ulong gfn, KvmMmuPageRole role)
    {
        ShadowPage sp = spareHeaders.Count > 0 ? spareHeaders.Pop() : new ShadowPage();
        sp.Spt = (ulong*)vcpu.AllocMmuPage();
        if (!role.Direct)
            sp.ShadowedTranslation = (ulong*)vcpu.ShadowedInfoCache.Alloc();
        pages.Add(sp.Address, sp);

        // Newest first: whoever looks for old pages begins at the other end.
        sp.MmuValidGen = mmuValidGen;
        LinkActive(sp);
        vm.NUsedMmuPages++;
        sp.Gfn = gfn;
        sp.Role = role;
        sp.HashNext = bucket;
        bucket = sp;
        if (sp.HasGptes)
            AccountShadowed(sp);
        return sp;
    }

    /// <summary>kvm_mmu_free_shadow_page.</summary>
    [KernelFunction("kvm_mmu_free_shadow_page", File = "arch/x86/kvm/mmu/mmu.c")]
    private void FreeShadowPage(ShadowPage sp)
    {
        ref ShadowPage? link = ref hash[HashOf(sp.Gfn)];
        while (link != sp)
            link = ref link!.HashNext;
        link = sp.HashNext;
        pages.Remove(sp.Address);
        vm.Host.Pages.FreePage(sp.Address);
        if (sp.ShadowedTranslation != null)
            vm.Host.Pages.FreePage((ulong)sp.ShadowedTranslation);
        sp.Clear();
        spareHeaders.Push(sp);
    }

    private void LinkActive(ShadowPage sp)
    {
        sp.Newer = null;
        sp.Older = newest;
        if (newest is not null)
            newest.Newer = sp;
        newest = sp;
        oldest ??= sp;
        sp.OnActiveList = true;
    }

    private void UnlinkActive(ShadowPage sp)
    {
        if (!sp.OnActiveList)
            return;
        if (sp.Newer is not null)
            sp.Newer.Older = sp.Older;
        else
            newest = sp.Older;
        if (sp.Older is not null)
            sp.Older.Newer = sp.Newer;
        else
            oldest = sp.Newer;
        sp.Newer = sp.Older = null;
        sp.OnActiveList = false;
    }

    /// <summary>kvm_mmu_child_role: a guest table with 4-byte entries needs two pages of 8-byte entries, told apart by the quadrant.</summary>
    private KvmMmuPageRole ChildRole(ulong* sptep, bool direct, uint access)
    {
        KvmMmuPageRole parent = SpOf(sptep).Role;
        KvmMmuPageRole role = parent with { Level = parent.Level - 1, Access = access, Direct = direct, Passthrough = false, Invalid = false };
        return role.Has4ByteGpte ? role with { Quadrant = IndexOf(sptep) & 1 } : role;
    }

    /// <summary>kvm_mmu_get_child_sp: null when the entry points to the right page already.</summary>
    private ShadowPage? GetChildSp(X86Vcpu vcpu, ulong* sptep, ulong gfn, bool direct, uint access)
    {
        KvmMmuPageRole role = ChildRole(sptep, direct, access);
        ulong spte = *sptep;
        if (IsShadowPresent(spte) && !IsLarge(spte) && pages.TryGetValue(spte & SPTE_BASE_ADDR_MASK, out ShadowPage? child) && child.Gfn == gfn && child.Role == role)
            return null;
        return GetShadowPage(vcpu, gfn, role);
    }

    /// <summary>link_shadow_page: the entry points to the page from now on; what it said before is undone.</summary>
    private void LinkShadowPage(X86Vcpu vcpu, ulong* sptep, ShadowPage sp)
    {
        if (IsShadowPresent(*sptep))
        {
            ShadowPage? invalid = null;
            ZapPte(SpOf(sptep), sptep, ref invalid);
            RemoteFlushOrZap(ref invalid, true);
        }

        Volatile.Write(ref *sptep, Masks.MakeNonleaf(sp.Address, sp.Role.AdDisabled));
        lists.Add(vcpu.PteListDescCache, sptep, ref sp.ParentPtes);
        if (sp.UnsyncChildren != 0 || sp.Unsync)
            MarkUnsync(sptep);
    }

    /// <summary>drop_parent_pte.</summary>
    private void DropParentPte(ShadowPage sp, ulong* parent)
    {
        Expect(lists.Remove(parent, ref sp.ParentPtes), "pte_list_remove");
        Volatile.Write(ref *parent, 0);
    }

    /// <summary>Corrupt bookkeeping kills the VM, as the kernel's BUG does the machine.</summary>
    private void Expect(bool condition, string what) => vm.BugOn(!condition, $"kvm: {what}: entry is not in its list");

    // ---- taking pages away ----

    /// <summary>mmu_page_zap_pte: one entry.</summary>
    private void ZapPte(ShadowPage sp, ulong* sptep, ref ShadowPage? invalid)
    {
        ulong spte = *sptep;
        if (IsShadowPresent(spte))
        {
            if (IsLast(spte, sp.Role.Level))
                DropSpte(sptep);
            else
                DropParentPte(ChildOf(spte), sptep);
        }
        else if (Masks.IsMmio(spte))
        {
            Volatile.Write(ref *sptep, 0);
        }
    }

    /// <summary>
    /// __kvm_mmu_prepare_zap_page: nothing points to the page any more and it points to nothing; it is freed by <see cref="CommitZapPage"/>, a root by its last user.
    /// The number of pages that this took, itself included.
    /// </summary>
    [KernelFunction("__kvm_mmu_prepare_zap_page", File = "arch/x86/kvm/mmu/mmu.c")]
    private int PrepareZapPage(ShadowPage sp, ref ShadowPage? invalid)
    {
        using var _ = FunctionTrace.Enter("__kvm_mmu_prepare_zap_page");
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_mmu_prepare_zap_page", sp.ToString());
        vm.Stat.MmuShadowZapped++;
        int zapped = ZapUnsyncChildren(sp, ref invalid);
        for (int i = 0; i < 512; i++)
        {
            if (sp.Spt[i] != 0)
                ZapPte(sp, sp.Spt + i, ref invalid);
        }

        for (ulong* parent; (parent = PteLists.First(sp.ParentPtes, out PteLists.Position _)) != null;)
            DropParentPte(sp, parent);
        if (!sp.Role.Invalid && sp.HasGptes)
            UnaccountShadowed(sp);
        if (sp.Unsync)
            UnlinkUnsyncPage(sp);

        bool zappedRoot = false;
        UnlinkActive(sp);
        if (sp.RootCount == 0)
        {
            zapped++;
            sp.NextInvalid = invalid;
            invalid = sp;
            vm.NUsedMmuPages--;
        }
        else
        {
            zappedRoot = !IsObsolete(sp);
        }

        if (sp.NxHugePageDisallowed)
        {
            vm.Stat.NxLpageSplits--;
            sp.NxHugePageDisallowed = false;
        }

        sp.Role = sp.Role with { Invalid = true };

        // After the root is invalid: who answers the request must see that.
        if (zappedRoot)
            vm.MakeAllCpusRequest(X86Request.KVM_REQ_MMU_FREE_OBSOLETE_ROOTS);
        return zapped;
    }

    /// <summary>kvm_mmu_commit_zap_page: frees pages when no processor and no walk without the lock can still be in them.</summary>
    [KernelFunction("kvm_mmu_commit_zap_page", File = "arch/x86/kvm/mmu/mmu.c")]
    private void CommitZapPage(ref ShadowPage? invalid)
    {
        if (invalid is null)
            return;
        using var _ = FunctionTrace.Enter("kvm_mmu_commit_zap_page");
        vm.FlushRemoteTlbs();
        while (invalid is { } sp)
        {
            invalid = sp.NextInvalid;
            FreeShadowPage(sp);
        }
    }

    /// <summary>kvm_mmu_remote_flush_or_zap.</summary>
    private bool RemoteFlushOrZap(ref ShadowPage? invalid, bool remoteFlush)
    {
        if (invalid is not null)
            CommitZapPage(ref invalid);
        else if (remoteFlush)
            vm.FlushRemoteTlbs();
        else
            return false;
        return true;
    }

    // ---- the budget ----

    /// <summary>kvm_mmu_zap_oldest_mmu_pages: pages that are not roots, the oldest first; how many went.</summary>
    [KernelFunction("kvm_mmu_zap_oldest_mmu_pages", File = "arch/x86/kvm/mmu/mmu.c")]
    internal ulong ZapOldestMmuPages(ulong wanted)
    {
        ulong total = 0;
        ShadowPage? invalid = null;
        for (ShadowPage? sp = oldest; sp is not null && total < wanted;)
        {
            if (sp.RootCount != 0)
            {
                sp = sp.Newer;
                continue;
            }

            ShadowPage? next = sp.Newer;
            int zapped = PrepareZapPage(sp, ref invalid);
            total += (ulong)zapped;

            // Children went with it: the list is not the same any more.
            sp = zapped > 1 ? oldest : next;
        }

        CommitZapPage(ref invalid);
        vm.Stat.MmuRecycled += total;
        return total;
    }

    // ---- all pages ----

    /// <summary>kvm_mmu_zap_all_fast: pages of the present generation are not found any more; vCPUs leave their roots before they enter the guest again.</summary>
    [KernelFunction("kvm_mmu_zap_all_fast", File = "arch/x86/kvm/mmu/mmu.c")]
    internal void ZapAllFast()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_zap_all_fast");
        vm.MmuLock.WriteLock();
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_mmu_zap_all_fast", $"kvm-mmu-valid-gen {mmuValidGen} used_pages {vm.NUsedMmuPages:x}");
        mmuValidGen ^= 1;
        vm.MakeAllCpusRequest(X86Request.KVM_REQ_MMU_FREE_OBSOLETE_ROOTS);
        ZapObsoletePages();
        vm.MmuLock.WriteUnlock();
    }

    [KernelFunction("kvm_zap_obsolete_pages", File = "arch/x86/kvm/mmu/mmu.c")]
    private void ZapObsoletePages()
    {
        ShadowPage? invalid = null;
        for (ShadowPage? sp = oldest; sp is not null && IsObsolete(sp);)
        {
            ShadowPage? next = sp.Newer;
            bool root = sp.RootCount != 0;
            sp = PrepareZapPage(sp, ref invalid) > (root ? 0 : 1) ? oldest : next;
        }

        // Also kicks vCPUs that walk the tables without the lock.
        CommitZapPage(ref invalid);
    }

    /// <summary>kvm_mmu_zap_all: the address space dies.</summary>
    [KernelFunction("kvm_mmu_zap_all", File = "arch/x86/kvm/mmu/mmu.c")]
    internal void ZapAll()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_zap_all");
        ZapEveryPage();
    }

    private void ZapEveryPage()
    {
        vm.MmuLock.WriteLock();
        ShadowPage? invalid = null;
        while (newest is { } sp)
            PrepareZapPage(sp, ref invalid);
        CommitZapPage(ref invalid);
        vm.MmuLock.WriteUnlock();
    }

    /// <summary>kvm_mmu_uninit_vm: no vCPU has a root any more, and every page is gone but those that nobody asked for.</summary>
    internal void Uninit()
    {
        if (vm.TdpMmuEnabled)
            return;
        ZapEveryPage();
        vm.BugOn(pages.Count != 0 || lists.InUse != 0, "kvm: shadow pages are left at the end of the VM");
        lists.Free();
        spareHeaders.Clear();
        hash = [];
    }
}
