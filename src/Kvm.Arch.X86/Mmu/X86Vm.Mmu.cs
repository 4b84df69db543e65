using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>The VM's budget of table pages, and when huge pages are not executable.</remarks>
public abstract partial class X86Vm
{
    private const ulong KVM_MIN_FREE_MMU_PAGES = 5;

    /// <summary>is_nx_huge_page_enabled.</summary>
    internal bool NxHugePageEnabled => Arch.Params.NxHugePages && !DisableNxHugePages;

    private const ulong KVM_REFILL_PAGES = 25;

    /// <summary>The tables of shadow paging; empty with nested paging.</summary>
    public ShadowMmu Shadow { get; }

    /// <summary>tdp_mmu_enabled: nested paging, by the MMU that is made for it. Else the shadow MMU does it all, nested paging with direct pages included.</summary>
    public bool TdpMmuEnabled { get; private set; }

    /// <summary>kvm_memslots_have_rmaps: slots know the entries that map them.</summary>
    internal bool HasRmaps => !TdpMmuEnabled;

    /// <summary>kvm_mmu_change_mmu_pages: a budget below what is in use takes pages away at once. The caller holds slots_lock.</summary>
    [KernelFunction("kvm_mmu_change_mmu_pages", File = "arch/x86/kvm/mmu/mmu.c")]
    internal void ChangeMmuPages(ulong goal)
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_change_mmu_pages");
        MmuLock.WriteLock();
        if (NUsedMmuPages > goal)
        {
            Shadow.ZapOldestMmuPages(NUsedMmuPages - goal);
            goal = NUsedMmuPages;
        }

        NMaxMmuPages = goal;
        MmuLock.WriteUnlock();
    }

    private ulong AvailableMmuPages => NMaxMmuPages > NUsedMmuPages ? NMaxMmuPages - NUsedMmuPages : 0;

    /// <summary>make_mmu_pages_available: -ENOSPC when old pages can't make room, and while the budget is 0, as in a VM that never had a slot. Under mmu_lock.</summary>
    internal int MakeMmuPagesAvailable()
    {
        ulong available = AvailableMmuPages;
        if (available >= KVM_MIN_FREE_MMU_PAGES)
            return 0;
        Shadow.ZapOldestMmuPages(KVM_REFILL_PAGES - available);
        return AvailableMmuPages != 0 ? 0 : -ENOSPC;
    }

    /// <summary>host_pfn_mapping_level: 2 MiB where guest and process addresses agree and one anonymous mapping backs all of the large page.</summary>
    internal int HostMappingLevel(KvmMemorySlot slot, ulong gfn, bool writable)
    {
        ulong hva = slot.GfnToHva(gfn & ~511ul);
        if ((hva & 0x1fffff) != 0)
            return PG_LEVEL_4K;
        Vma? vma = Mm.Find(hva);
        if (vma is null || vma.File is not null || vma.End - hva < 0x200000 || (vma.Protection & Fcntl.PROT_READ) == 0 || (writable && (vma.Protection & Fcntl.PROT_WRITE) == 0))
            return PG_LEVEL_4K;
        return PG_LEVEL_2M;
    }

    /// <summary>kvm_mmu_init_vm.</summary>
    [KernelFunction("kvm_mmu_init_vm", File = "arch/x86/kvm/mmu/mmu.c")]
    internal void MmuInitVm()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_init_vm");
        FunctionTrace.Leaf("kvm_mmu_init_tdp_mmu");
        TdpMmuEnabled = Arch.TdpEnabled && Arch.Params.TdpMmu;
        FunctionTrace.Leaf("kvm_page_track_register_notifier");
    }

    /// <summary>kvm_mmu_uninit_vm: every table page goes back.</summary>
    [KernelFunction("kvm_mmu_uninit_vm", File = "arch/x86/kvm/mmu/mmu.c")]
    internal void MmuUninitVm()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_uninit_vm");
        FunctionTrace.Leaf("kvm_page_track_unregister_notifier");
        Mmu.Uninit();
        Shadow.Uninit();

        // Caches for splitting large pages of shadow paging.
        for (int i = 0; i < 3; i++)
            FunctionTrace.Leaf("kvm_mmu_free_memory_cache");
    }
}
