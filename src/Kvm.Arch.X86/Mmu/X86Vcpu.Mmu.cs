using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>The vCPU's root: created at the first entry, dropped when the guest's mode or the VM's memory changes.</remarks>
public unsafe partial class X86Vcpu
{
    private MmuMemoryCache? pteListDescCache;
    private MmuMemoryCache? shadowPageCache;
    private MmuMemoryCache? shadowedInfoCache;
    private MmuMemoryCache? pageHeaderCache;

    /// <summary>KVM_MMU_NUM_PREV_ROOTS.</summary>
    private const int previousRoots = 3;

    /// <summary>kvm_mmu_create: 0 or -ENOMEM.</summary>
    [KernelFunction("kvm_mmu_create", File = "arch/x86/kvm/mmu/mmu.c")]
    private int MmuCreate()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_create");
        pteListDescCache = new MmuMemoryCache(Vm.Host, "pte_list_desc", false);
        shadowPageCache = new MmuMemoryCache(Vm.Host, "kvm_mmu_page", true);
        // Only shadow paging fills this one.
        shadowedInfoCache = new MmuMemoryCache(Vm.Host, "kvm_mmu_shadowed_info", false);
        pageHeaderCache = new MmuMemoryCache(Vm.Host, "kvm_mmu_page_header", false);
        FunctionTrace.Leaf("__kvm_mmu_create");
        FunctionTrace.Leaf("__kvm_mmu_create");
        return 0;
    }

    [KernelFunction("kvm_mmu_destroy", File = "arch/x86/kvm/mmu/mmu.c")]
    private void MmuDestroy()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_destroy");
        MmuUnloadRoots();
        FunctionTrace.Leaf("free_mmu_pages");
        FunctionTrace.Leaf("free_mmu_pages");
        pteListDescCache?.Free();
        shadowPageCache?.Free();
        shadowedInfoCache?.Free();
        pageHeaderCache?.Free();
    }

    /// <summary>A zeroed page and a header from the caches; <see cref="TopupMemoryCaches"/> made sure that they are there.</summary>
    internal ulong AllocMmuPage()
    {
        pageHeaderCache!.Alloc();
        return shadowPageCache!.Alloc();
    }

    [KernelFunction("mmu_topup_memory_caches", File = "arch/x86/kvm/mmu/mmu.c")]
    private int TopupMemoryCaches()
    {
        using var _ = FunctionTrace.Enter("mmu_topup_memory_caches");
        int r = pteListDescCache!.Topup(1);
        if (r == 0)
            r = shadowPageCache!.Topup(PT64_ROOT_5LEVEL);
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
        if (Arch.HostX86.BootCpuData.Vendor is CpuVendorId.Amd or CpuVendorId.Hygon)
            FunctionTrace.Leaf("__reset_rsvds_bits_mask"); // of nested page tables, which are the guest's own format there
        RootMmu.RootLevel = TdpLevel;
        RootMmu.Reset();
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
        MmuFreeRoots();

        // The MMU of nested guests never has one.
        FunctionTrace.Leaf("kvm_mmu_free_roots");
        ClearMmioInfo();
    }

    [KernelFunction("kvm_mmu_free_roots", File = "arch/x86/kvm/mmu/mmu.c")]
    private void MmuFreeRoots()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_free_roots");
        if (RootMmu.RootHpa == INVALID_PAGE)
            return;
        Vm.MmuLock.WriteLock();

        // Three remembered roots are tried first; with nested paging there are none.
        for (int i = 0; i < previousRoots; i++)
            FunctionTrace.Leaf("mmu_free_root_page");
        ulong root = RootMmu.RootHpa;
        RootMmu.RootHpa = INVALID_PAGE;
        using (FunctionTrace.Enter("mmu_free_root_page"))
            Vm.Mmu.PutRoot(root);
        Vm.MmuLock.WriteUnlock();
    }

    /// <summary>kvm_mmu_free_obsolete_roots: the VM's tables were invalidated as a whole.</summary>
    [KernelFunction("kvm_mmu_free_obsolete_roots", File = "arch/x86/kvm/mmu/mmu.c")]
    private void MmuFreeObsoleteRoots()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_free_obsolete_roots");
        if (RootMmu.RootHpa == INVALID_PAGE)
            return;
        Vm.MmuLock.WriteLock();
        if (Vm.Mmu.IsObsoleteRoot(RootMmu.RootHpa))
        {
            ulong root = RootMmu.RootHpa;
            RootMmu.RootHpa = INVALID_PAGE;
            Vm.Mmu.PutRoot(root);
        }

        Vm.MmuLock.WriteUnlock();
    }

    /// <summary>kvm_mmu_reload: 0; -ENOMEM, or -ENOSPC for a VM without memory slots.</summary>
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
        int r = TopupMemoryCaches();
        if (r != 0)
            return r;
        Vm.MmuLock.WriteLock();
        r = Vm.MakeMmuPagesAvailable();
        if (r == 0)
            Mmu.RootHpa = Vm.Mmu.GetVcpuRootHpa(this);
        Vm.MmuLock.WriteUnlock();
        if (r != 0)
            return r;
        FunctionTrace.Leaf("kvm_mmu_sync_roots");
        LoadMmuPgd();

        // Nothing is known about what this processor cached for the root before.
        Ops.FlushTlbCurrent(this);
        return 0;
    }

    /// <summary>kvm_mmu_load_pgd.</summary>
    private void LoadMmuPgd()
    {
        if (Mmu.RootHpa != INVALID_PAGE)
            Ops.LoadMmuPgd(this, Mmu.RootHpa, Mmu.RootLevel);
    }

    /// <summary>kvm_mmu_invalidate_gva for the guest's own translations.</summary>
    internal void MmuInvalidateGva(ulong gva)
    {
        if (!IsNoncanonicalAddress(gva))
            Ops.FlushTlbGva(this, gva);
    }

    /// <summary>kvm_mmu_invlpg: an intercepted INVLPG.</summary>
    [KernelFunction("kvm_mmu_invlpg", File = "arch/x86/kvm/mmu/mmu.c")]
    public void MmuInvlpg(ulong gva)
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_invlpg");
        MmuInvalidateGva(gva);
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
    private bool MmioInfoInCache(ulong gpa)
    {
        FunctionTrace.Leaf("mmio_info_in_cache");
        return MatchMmioGpa(gpa);
    }
}
