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

    /// <summary>kvm_mmu_change_mmu_pages.</summary>
    [KernelFunction("kvm_mmu_change_mmu_pages", File = "arch/x86/kvm/mmu/mmu.c")]
    internal void ChangeMmuPages(ulong goal)
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_change_mmu_pages");
        NMaxMmuPages = goal;
    }

    /// <summary>make_mmu_pages_available: -ENOSPC while the budget is 0, as in a VM that never had a slot.</summary>
    internal int MakeMmuPagesAvailable()
    {
        ulong available = NMaxMmuPages > NUsedMmuPages ? NMaxMmuPages - NUsedMmuPages : 0;
        return available >= KVM_MIN_FREE_MMU_PAGES || available > 0 ? 0 : -ENOSPC;
    }

    /// <summary>kvm_mmu_init_vm.</summary>
    [KernelFunction("kvm_mmu_init_vm", File = "arch/x86/kvm/mmu/mmu.c")]
    internal void MmuInitVm()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_init_vm");
        FunctionTrace.Leaf("kvm_mmu_init_tdp_mmu");
        FunctionTrace.Leaf("kvm_page_track_register_notifier");
    }

    /// <summary>kvm_mmu_uninit_vm: every table page goes back.</summary>
    [KernelFunction("kvm_mmu_uninit_vm", File = "arch/x86/kvm/mmu/mmu.c")]
    internal void MmuUninitVm()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_uninit_vm");
        FunctionTrace.Leaf("kvm_page_track_unregister_notifier");
        Mmu.Uninit();

        // Caches for splitting large pages of shadow paging.
        for (int i = 0; i < 3; i++)
            FunctionTrace.Leaf("kvm_mmu_free_memory_cache");
    }
}
