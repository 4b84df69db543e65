using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>The vCPU's root: created at the first entry, dropped when the guest's mode or the VM's memory changes.</remarks>
public unsafe partial class X86Vcpu
{
    private MmuMemoryCache? shadowPageCache;
    private MmuMemoryCache? pageHeaderCache;

    /// <summary>Pays for descriptors of the lists of entries.</summary>
    internal MmuMemoryCache PteListDescCache { get; private set; } = null!;

    /// <summary>Pages for what the guest's tables said.</summary>
    internal MmuMemoryCache ShadowedInfoCache { get; private set; } = null!;

    /// <summary>kvm_mmu_create: 0 or -ENOMEM.</summary>
    [KernelFunction("kvm_mmu_create", File = "arch/x86/kvm/mmu/mmu.c")]
    private int MmuCreate()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_create");
        int capacity = Vm.TdpMmuEnabled ? MmuMemoryCache.SmallCapacity : MmuMemoryCache.KernelCapacity;
        PteListDescCache = new MmuMemoryCache(Vm.Host, "pte_list_desc", false, capacity);
        shadowPageCache = new MmuMemoryCache(Vm.Host, "kvm_mmu_page", true, capacity);
        ShadowedInfoCache = new MmuMemoryCache(Vm.Host, "kvm_mmu_shadowed_info", true, capacity);
        pageHeaderCache = new MmuMemoryCache(Vm.Host, "kvm_mmu_page_header", false, capacity);

        // The MMU of nested guests first: it has nothing of its own. The other has the page that CR3 points at with PAE paging.
        FunctionTrace.Leaf("__kvm_mmu_create");
        using (FunctionTrace.Enter("__kvm_mmu_create"))
        {
            if (Arch.TdpEnabled)
                return 0;
            RootMmu.PaeRoot = (ulong*)Vm.Host.Pages.AllocPage32("pae_root");
            return RootMmu.PaeRoot == null ? -ENOMEM : 0;
        }
    }

    [KernelFunction("kvm_mmu_destroy", File = "arch/x86/kvm/mmu/mmu.c")]
    private void MmuDestroy()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_destroy");
        MmuUnloadRoots();
        FunctionTrace.Leaf("free_mmu_pages");
        FunctionTrace.Leaf("free_mmu_pages");
        Vm.Host.Pages.FreePage((ulong)RootMmu.PaeRoot);
        RootMmu.PaeRoot = null;
        PteListDescCache.Free();
        shadowPageCache!.Free();
        ShadowedInfoCache.Free();
        pageHeaderCache!.Free();
    }

    /// <summary>A zeroed page and a header from the caches; <see cref="TopupMemoryCaches"/> made sure that they are there.</summary>
    internal ulong AllocMmuPage()
    {
        pageHeaderCache!.Alloc();
        return shadowPageCache!.Alloc();
    }

    /// <summary>mmu_topup_memory_caches: 0 or -ENOMEM. <paramref name="maybeIndirect"/>: guest tables may be shadowed.</summary>
    [KernelFunction("mmu_topup_memory_caches", File = "arch/x86/kvm/mmu/mmu.c")]
    private int TopupMemoryCaches(bool maybeIndirect)
    {
        using var _ = FunctionTrace.Enter("mmu_topup_memory_caches");

        // One for the frame, one for each level, and those of the entries mapped in advance.
        int r = PteListDescCache.Topup(Vm.TdpMmuEnabled ? 1 : 1 + PT64_ROOT_5LEVEL + GuestWalker.PrefetchNum);
        if (r == 0)
            r = shadowPageCache!.Topup(PT64_ROOT_5LEVEL);
        if (r == 0 && maybeIndirect)
            r = ShadowedInfoCache.Topup(PT64_ROOT_5LEVEL);
        if (r == 0)
            r = pageHeaderCache!.Topup(PT64_ROOT_5LEVEL);
        return r;
    }

    /// <summary>kvm_init_mmu: takes the paging mode over from the registers.</summary>
    [KernelFunction("kvm_init_mmu", File = "arch/x86/kvm/mmu/mmu.c")]
    public void InitMmu()
    {
        using var _ = FunctionTrace.Enter("kvm_init_mmu");
        FunctionTrace.Leaf("kvm_calc_cpu_role.isra.0");
        if (RootMmu.Init(Arch.TdpEnabled, TdpLevel) && Arch.HostX86.BootCpuData.Vendor is (CpuVendorId.Amd or CpuVendorId.Hygon))
            FunctionTrace.Leaf("__reset_rsvds_bits_mask"); // of nested page tables, which are the guest's own format there
    }

    /// <summary>kvm_mmu_get_tdp_level: 4 levels unless the vendor forces a depth or the guest's addresses need 5.</summary>
    private int TdpLevel
    {
        get
        {
            if (Arch.TdpRootLevel != 0)
                return Arch.TdpRootLevel;
            return Arch.MaxTdpLevel == 5 && Maxphyaddr <= 48 ? 4 : Arch.MaxTdpLevel;
        }
    }

    [KernelFunction("kvm_mmu_reset_context", File = "arch/x86/kvm/mmu/mmu.c")]
    public void MmuResetContext()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_reset_context");
        MmuUnload();
        InitMmu();
    }

    [KernelFunction("kvm_mmu_after_set_cpuid", File = "arch/x86/kvm/mmu/mmu.c")]
    private void MmuAfterSetCpuid()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_after_set_cpuid");
        RootMmu.Forget();
        MmuUnloadRoots();
        InitMmu();
    }

    /// <summary>Gives the roots of both MMUs back.</summary>
    [KernelFunction("kvm_mmu_unload", File = "arch/x86/kvm/mmu/mmu.c")]
    internal void MmuUnload()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_unload");
        MmuUnloadRoots();
    }

    private void MmuUnloadRoots()
    {
        if (Vm.TdpMmuEnabled)
            MmuFreeTdpRoots();
        else
            Vm.Shadow.FreeRoots(RootMmu, ShadowMmu.RootsAll);

        // The MMU of nested guests never has one.
        FunctionTrace.Leaf("kvm_mmu_free_roots");
        ClearMmioInfo();
    }

    [KernelFunction("kvm_mmu_free_roots", File = "arch/x86/kvm/mmu/mmu.c")]
    private void MmuFreeTdpRoots()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_free_roots");
        if (RootMmu.RootHpa == INVALID_PAGE)
            return;
        Vm.MmuLock.WriteLock();

        // Three remembered roots are tried first; with nested paging there are none.
        for (int i = 0; i < KvmMmu.PreviousRoots; i++)
            FunctionTrace.Leaf("mmu_free_root_page");
        ulong root = RootMmu.RootHpa;
        RootMmu.Root = KvmMmuRootInfo.Invalid;
        using (FunctionTrace.Enter("mmu_free_root_page"))
            Vm.Mmu.PutRoot(root);
        Vm.MmuLock.WriteUnlock();
    }

    /// <summary>kvm_mmu_free_obsolete_roots: the VM's tables were invalidated as a whole.</summary>
    [KernelFunction("kvm_mmu_free_obsolete_roots", File = "arch/x86/kvm/mmu/mmu.c")]
    private void MmuFreeObsoleteRoots()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_free_obsolete_roots");
        if (!Vm.TdpMmuEnabled)
        {
            Vm.Shadow.FreeObsoleteRoots(RootMmu);
            return;
        }

        if (RootMmu.RootHpa == INVALID_PAGE)
            return;
        Vm.MmuLock.WriteLock();
        if (Vm.Mmu.IsObsoleteRoot(RootMmu.RootHpa))
        {
            ulong root = RootMmu.RootHpa;
            RootMmu.Root = KvmMmuRootInfo.Invalid;
            Vm.Mmu.PutRoot(root);
        }

        Vm.MmuLock.WriteUnlock();
    }

    /// <summary>kvm_mmu_reload: 0; -ENOMEM, or -ENOSPC for a VM without memory slots; 1 when the guest's root is nowhere.</summary>
    private int MmuReload()
    {
        if (CheckRequest(KVM_REQ_MMU_FREE_OBSOLETE_ROOTS))
            MmuFreeObsoleteRoots();
        return Mmu.RootHpa != INVALID_PAGE ? 0 : MmuLoad();
    }

    [KernelFunction("kvm_mmu_load", File = "arch/x86/kvm/mmu/mmu.c")]
    private int MmuLoad()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_load");
        int r = TopupMemoryCaches(!Mmu.RootRole.Direct);
        if (r != 0)
            return r;
        r = Vm.TdpMmuEnabled ? AllocTdpRoot() : Mmu.RootRole.Direct ? Vm.Shadow.AllocDirectRoots(this) : Vm.Shadow.AllocShadowRoots(this);
        if (r != 0)
            return r;
        MmuSyncRoots();
        LoadMmuPgd();

        // Nothing is known about what this processor cached for the root before.
        Ops.FlushTlbCurrent(this);
        return 0;
    }

    private int AllocTdpRoot()
    {
        Vm.MmuLock.WriteLock();
        int r = Vm.MakeMmuPagesAvailable();
        if (r == 0)
            Mmu.Root = new KvmMmuRootInfo { Hpa = Vm.Mmu.GetVcpuRootHpa(this) };
        Vm.MmuLock.WriteUnlock();
        return r;
    }

    /// <summary>kvm_mmu_load_pgd.</summary>
    private void LoadMmuPgd()
    {
        if (Mmu.RootHpa != INVALID_PAGE)
            Ops.LoadMmuPgd(this, Mmu.RootHpa, Mmu.RootLevel);
    }

    /// <summary>kvm_mmu_sync_roots: shadow tables say what the guest's tables say.</summary>
    [KernelFunction("kvm_mmu_sync_roots", File = "arch/x86/kvm/mmu/mmu.c")]
    private void MmuSyncRoots()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_sync_roots");
        if (Mmu.RootRole.Direct || Mmu.RootHpa == INVALID_PAGE)
            return;
        ClearMmioInfo();
        Vm.Shadow.SyncRoots(this);
    }

    /// <summary>kvm_mmu_sync_prev_roots: by giving them back.</summary>
    [KernelFunction("kvm_mmu_sync_prev_roots", File = "arch/x86/kvm/mmu/mmu.c")]
    private void MmuSyncPrevRoots()
    {
        uint roots = 0;
        for (int i = 0; i < KvmMmu.PreviousRoots; i++)
            roots |= ShadowMmu.IsUnsyncRoot(in Mmu.PrevRoots[i]) ? ShadowMmu.RootPrevious(i) : 0;
        Vm.Shadow.FreeRoots(Mmu, roots);
    }

    /// <summary>kvm_mmu_new_pgd: the guest's CR3 changes. A root that was left a moment ago is taken up again; else one is made before the next entry.</summary>
    [KernelFunction("kvm_mmu_new_pgd", File = "arch/x86/kvm/mmu/mmu.c")]
    internal void MmuNewPgd(ulong pgd)
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_new_pgd");
        if (Arch.TdpEnabled)
        {
            // Direct roots do not depend on CR3: the present one serves, loading it writes CR3.
            if (Mmu.RootHpa == INVALID_PAGE)
                return;
        }
        else if (!Vm.Shadow.FastPgdSwitch(Mmu, pgd))
        {
            return;
        }

        MakeRequest(KVM_REQ_LOAD_MMU_PGD);
        if (Arch.Params.FlushOnReuse)
        {
            MakeRequest(KVM_REQ_MMU_SYNC);
            MakeRequest(KVM_REQ_TLB_FLUSH_CURRENT);
        }

        ClearMmioInfo();
        if (!Mmu.RootRole.Direct && Mmu.Root.Page is { } sp)
            Volatile.Write(ref sp.WriteFloodingCount, 0);
    }

    /// <summary>kvm_invalidate_pcid: MOV to CR3 and INVPCID of one context.</summary>
    [KernelFunction("kvm_invalidate_pcid", File = "arch/x86/kvm/x86.c")]
    internal void InvalidatePcid(ulong pcid)
    {
        // The VM's tables do not depend on it, but the processor may have cached the guest's translations.
        if (Arch.TdpEnabled)
        {
            MakeRequest(KVM_REQ_TLB_FLUSH_GUEST);
            return;
        }

        if (PcidOf(ReadCr3()) == pcid)
        {
            MakeRequest(KVM_REQ_MMU_SYNC);
            MakeRequest(KVM_REQ_TLB_FLUSH_CURRENT);
        }

        // Without PCIDs every MOV to CR3 flushes: roots that are taken up again are synchronized then.
        if (ReadCr4Bits(X86_CR4_PCIDE) == 0)
            return;
        uint roots = 0;
        for (int i = 0; i < KvmMmu.PreviousRoots; i++)
            roots |= PcidOf(Mmu.PrevRoots[i].Pgd) == pcid ? ShadowMmu.RootPrevious(i) : 0;
        Vm.Shadow.FreeRoots(Mmu, roots);
    }

    /// <summary>kvm_get_pcid.</summary>
    private ulong PcidOf(ulong cr3) => ReadCr4Bits(X86_CR4_PCIDE) != 0 ? cr3 & X86_CR3_PCID_MASK : 0;

    /// <summary>kvm_mmu_invalidate_gva: the guest's own translations, and what shadows them under this root; without one under all that are at hand.</summary>
    internal void MmuInvalidateGva(ulong gva, ulong root = INVALID_PAGE)
    {
        if (IsNoncanonicalAddress(gva))
            return;
        Ops.FlushTlbGva(this, gva);
        if (Mmu.RootRole.Direct)
            return;
        if (root != INVALID_PAGE)
        {
            ShadowInvlpg(gva, root);
            return;
        }

        if (Mmu.RootHpa != INVALID_PAGE)
            ShadowInvlpg(gva, Mmu.RootHpa);
        for (int i = 0; i < KvmMmu.PreviousRoots; i++)
        {
            if (Mmu.PrevRoots[i].IsValid)
                ShadowInvlpg(gva, Mmu.PrevRoots[i].Hpa);
        }
    }

    private void ShadowInvlpg(ulong gva, ulong root)
    {
        if (MmioGva == (gva & ~0xffful))
            ClearMmioInfo();

        // Whether it works decides only if the entry is mapped again at once.
        TopupMemoryCaches(true);
        Vm.Shadow.Invlpg(this, gva, root);
    }

    /// <summary>kvm_mmu_invlpg: an intercepted INVLPG.</summary>
    [KernelFunction("kvm_mmu_invlpg", File = "arch/x86/kvm/mmu/mmu.c")]
    public void MmuInvlpg(ulong gva)
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_invlpg");
        MmuInvalidateGva(gva);
        Stat.Invlpg++;
    }

    /// <summary>kvm_mmu_invpcid_gva: INVPCID of one address of one context.</summary>
    [KernelFunction("kvm_mmu_invpcid_gva", File = "arch/x86/kvm/mmu/mmu.c")]
    private void MmuInvpcidGva(ulong gva, ulong pcid)
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_invpcid_gva");
        bool shadow = !Mmu.RootRole.Direct;
        bool flush = false;
        if (pcid == PcidOf(ReadCr3()))
        {
            if (shadow && Mmu.RootHpa != INVALID_PAGE)
                ShadowInvlpg(gva, Mmu.RootHpa);
            flush = true;
        }

        for (int i = 0; i < KvmMmu.PreviousRoots; i++)
        {
            if (!Mmu.PrevRoots[i].IsValid || pcid != PcidOf(Mmu.PrevRoots[i].Pgd))
                continue;
            if (shadow)
                ShadowInvlpg(gva, Mmu.PrevRoots[i].Hpa);
            flush = true;
        }

        if (flush)
            Ops.FlushTlbGva(this, gva);
        Stat.Invlpg++;
    }

    // ---- the MMIO access that was emulated last ----

    private void CacheMmioInfo(ulong gva, ulong gfn, uint access)
    {
        ulong generation = Volatile.Read(ref Memslots.Generation);
        if ((generation & KvmLimits.KVM_MEMSLOT_GEN_UPDATE_IN_PROGRESS) != 0)
            return;
        MmioGva = gva & ~0xffful;
        MmioAccess = access;
        MmioGfn = gfn;
        MmioGen = generation;
    }

    private void ClearMmioInfo() => MmioGva = 0;

    private bool MatchMmioGen => MmioGen == Volatile.Read(ref Memslots.Generation);

    /// <summary>vcpu_match_mmio_gva.</summary>
    internal bool MatchMmioGva(ulong gva) => MatchMmioGen && MmioGva != 0 && MmioGva == (gva & ~0xffful);

    /// <summary>vcpu_match_mmio_gpa.</summary>
    internal bool MatchMmioGpa(ulong gpa) => MatchMmioGen && MmioGfn != 0 && MmioGfn == gpa >> 12;

    [KernelFunction("mmio_info_in_cache", File = "arch/x86/kvm/mmu/mmu.c")]
    private bool MmioInfoInCache(ulong addr, bool direct)
    {
        FunctionTrace.Leaf("mmio_info_in_cache");
        return direct ? MatchMmioGpa(addr) : MatchMmioGva(addr);
    }
}
