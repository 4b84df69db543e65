using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.SpteMasks;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>Which size of page maps a frame, for both MMUs. Under mmu_lock.</remarks>
public abstract partial class X86Vm
{
    /// <summary>Chooses 2 MiB where slot, process memory and settings allow it.</summary>
    [KernelFunction("kvm_mmu_hugepage_adjust", File = "arch/x86/kvm/mmu/mmu.c")]
    internal void HugepageAdjust(ref KvmPageFault fault)
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_hugepage_adjust");
        fault.HugePageDisallowed = fault.Exec && fault.NxHugePageWorkaroundEnabled;
        if (fault.MaxLevel == PG_LEVEL_4K || KvmPfn.IsErrorOrNoslot(fault.Pfn) || fault.Slot is not { } slot || slot.DirtyTrackEnabled)
            return;
        fault.ReqLevel = MaxMappingLevel(slot, fault.Gfn, fault.MaxLevel, fault.MapWritable);
        if (fault.ReqLevel == PG_LEVEL_4K || fault.HugePageDisallowed)
            return;
        fault.GoalLevel = fault.ReqLevel;
        fault.Pfn &= ~(KvmArchMemorySlot.PagesPer(fault.GoalLevel) - 1);
    }

    /// <summary>The largest page that may map the frame: the slot covers it, no frame of it is watched, and one process mapping backs all of it.</summary>
    [KernelFunction("kvm_mmu_max_mapping_level", File = "arch/x86/kvm/mmu/mmu.c")]
    internal int MaxMappingLevel(KvmMemorySlot slot, ulong gfn, int maxLevel, bool writable)
    {
        FunctionTrace.Leaf("kvm_mmu_max_mapping_level");
        int level = Math.Min(maxLevel, Arch.MaxHugePageLevel);
        while (level > PG_LEVEL_4K && !AllowsLargePage(slot, gfn, level))
            level--;
        return level == PG_LEVEL_4K ? level : Math.Min(level, HostMappingLevel(slot, gfn, writable));
    }

    /// <summary>Only shadow paging has reasons that change (<see cref="KvmArchMemorySlot"/>); the others follow from where the slot lies.</summary>
    private bool AllowsLargePage(KvmMemorySlot slot, ulong gfn, int level)
    {
        if (!TdpMmuEnabled)
            return ShadowMmu.ArchOf(slot).DisallowLpage(gfn, level) == 0;
        ulong pages = KvmArchMemorySlot.PagesPer(level), first = gfn & ~(pages - 1);
        return first >= slot.BaseGfn && first + pages <= slot.EndGfn;
    }

    /// <summary>nx_huge_pages: where a table already replaced a large page for execution, the mapping goes one level down.</summary>
    [KernelFunction("disallowed_hugepage_adjust", File = "arch/x86/kvm/mmu/mmu.c")]
    internal static void DisallowedHugepageAdjust(ref KvmPageFault fault, ulong spte, int level)
    {
        FunctionTrace.Leaf("disallowed_hugepage_adjust");
        if (level <= PG_LEVEL_4K || level != fault.GoalLevel || !IsShadowPresent(spte) || IsLarge(spte))
            return;
        fault.Pfn |= fault.Gfn & (KvmArchMemorySlot.PagesPer(level) - KvmArchMemorySlot.PagesPer(level - 1));
        fault.GoalLevel--;
    }

    /// <summary>kvm_update_page_stats.</summary>
    internal void UpdatePageStats(int level, int count)
    {
        if (level == PG_LEVEL_4K)
            Stat.Pages4k += count;
        else if (level == PG_LEVEL_2M)
            Stat.Pages2m += count;
        else
            Stat.Pages1g += count;
    }
}
