using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>Memory slots: what changes of them mean for the tables, dirty logging, process memory that goes away.</remarks>
public sealed partial class X86Arch
{
    private const ulong KVM_MEMSLOT_PAGES_TO_MMU_PAGES_RATIO = 50;

    /// <summary>kvm_mmu_max_gfn: 52 bits of guest-physical address with nested paging.</summary>
    internal const ulong MaxGfn = (1ul << (52 - 12)) - 1;

    /// <summary>kvm_arch_free_memslot: what shadow paging keeps per frame. With nested paging there is nothing.</summary>
    public void FreeMemslot(KvmVm vm, KvmMemorySlot slot)
    {
        (slot.Arch as KvmArchMemorySlot)?.Free();
        slot.Arch = null;
    }

    [KernelFunction("kvm_arch_memslots_updated", File = "arch/x86/kvm/x86.c")]
    public void MemslotsUpdated(KvmVm vm, ulong generation)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_memslots_updated");
        using (FunctionTrace.Enter("kvm_mmu_invalidate_mmio_sptes"))
        {
            // MMIO entries keep some bits of the generation: when those wrap, old entries could look current.
            ulong gen = generation & SpteMasks.MMIO_SPTE_GEN_MASK & ~((ulong)KvmLimits.KVM_ADDRESS_SPACE_NUM - 1);
            if (gen == 0)
                ZapAllFast((X86Vm)vm);
        }

        // vCPUs that cached an MMIO access notice the new generation when they next enter.
        foreach (KvmVcpu vcpu in vm.Vcpus)
            vcpu.Kick();
    }

    private static void ZapAllFast(X86Vm vm)
    {
        if (vm.TdpMmuEnabled)
            vm.Mmu.ZapAllFast();
        else
            vm.Shadow.ZapAllFast();
    }

    [KernelFunction("kvm_arch_prepare_memory_region", File = "arch/x86/kvm/x86.c")]
    public KvmResult PrepareMemoryRegion(KvmVm vm, KvmMemorySlot? old, KvmMemorySlot? @new, KvmMrChange change)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_prepare_memory_region");
        if (change == KvmMrChange.FlagsOnly)
            @new!.Arch = old!.Arch;
        if (change is not (KvmMrChange.Create or KvmMrChange.Move))
            return 0;
        if (@new!.BaseGfn + @new.Npages - 1 > MaxGfn)
            return -EINVAL;
        return AllocMemslotMetadata((X86Vm)vm, @new);
    }

    /// <summary>
    /// The slot's reverse maps and what is watched (shadow paging only), and its large-page counts. With nested paging the model keeps none of it; only having no
    /// memory for the counts shows.
    /// </summary>
    [KernelFunction("kvm_alloc_memslot_metadata", File = "arch/x86/kvm/x86.c")]
    private KvmResult AllocMemslotMetadata(X86Vm vm, KvmMemorySlot slot)
    {
        if (vm.HasRmaps)
        {
            slot.Arch = KvmArchMemorySlot.Alloc(Host, slot);
            return slot.Arch is null ? -ENOMEM : 0;
        }

        for (int level = 1; level < KvmArchMemorySlot.PageSizes; level++)
        {
            using (FunctionTrace.Enter("__vmalloc"))
            {
                if (Host.Faults.ShouldFail("vmalloc", "lpage_info"))
                    return -ENOMEM;
            }
        }

        FunctionTrace.Leaf("kvm_page_track_create_memslot");
        return 0;
    }

    [KernelFunction("kvm_arch_commit_memory_region", File = "arch/x86/kvm/x86.c")]
    public void CommitMemoryRegion(KvmVm kvm, KvmMemorySlot? old, KvmMemorySlot? @new, KvmMrChange change)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_commit_memory_region");
        var vm = (X86Vm)kvm;
        if (vm.NRequestedMmuPages == 0 && change is KvmMrChange.Create or KvmMrChange.Delete)
            vm.ChangeMmuPages(Math.Max(vm.NrMemslotPages / KVM_MEMSLOT_PAGES_TO_MMU_PAGES_RATIO, KVM_MIN_ALLOC_MMU_PAGES));
        SlotApplyFlags(vm, old, @new, change);
        if (change == KvmMrChange.Move)
            FreeMemslot(vm, old!);
    }

    /// <summary>kvm_mmu_slot_apply_flags: dirty logging begins or ends.</summary>
    private void SlotApplyFlags(X86Vm vm, KvmMemorySlot? old, KvmMemorySlot? @new, KvmMrChange change)
    {
        bool wasLogging = old is { DirtyTrackEnabled: true };
        bool logging = @new is { DirtyTrackEnabled: true };
        if (wasLogging != logging)
            UpdateCpuDirtyLogging(vm, logging);
        if (change != KvmMrChange.FlagsOnly || @new!.IsReadonly || wasLogging == logging)
            return;
        if (!logging)
        {
            using (FunctionTrace.Enter("kvm_mmu_zap_collapsible_sptes"))
                Locked(vm, () => vm.TdpMmuEnabled ? vm.Mmu.ZapCollapsible(@new) : vm.Shadow.ZapCollapsible(@new), flush: true);
            return;
        }

        // Everything counts as dirty at first: nothing has to be protected yet.
        if (vm.DirtyLogManualProtectAndInitSet)
            return;
        if (Params.EagerPageSplit && vm.TdpMmuEnabled)
        {
            using (FunctionTrace.Enter("kvm_mmu_slot_try_split_huge_pages"))
                Locked(vm, () => vm.Mmu.SplitHugePages(@new.BaseGfn, @new.EndGfn), flush: false);
        }

        if (Ops.CpuDirtyLogSize != 0)
        {
            using (FunctionTrace.Enter("kvm_mmu_slot_leaf_clear_dirty"))
                Locked(vm, () => vm.TdpMmuEnabled ? vm.Mmu.ClearDirty(@new.BaseGfn, @new.EndGfn) : vm.Shadow.SlotLeafClearDirty(@new), flush: false);
            RemoveWriteAccess(vm, @new, PG_LEVEL_2M);
        }
        else
        {
            RemoveWriteAccess(vm, @new, PG_LEVEL_4K);
        }

        // Always: a processor may still hold a writable translation of an entry that lost the bit before.
        FlushRemoteTlbsMemslot(vm, @new);
    }

    [KernelFunction("kvm_mmu_slot_remove_write_access", File = "arch/x86/kvm/mmu/mmu.c")]
    private static void RemoveWriteAccess(X86Vm vm, KvmMemorySlot slot, int minLevel)
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_slot_remove_write_access");
        Locked(vm, () => vm.TdpMmuEnabled ? vm.Mmu.WriteProtect(slot.BaseGfn, slot.EndGfn, minLevel) : vm.Shadow.SlotRemoveWriteAccess(slot, minLevel), flush: false);
    }

    private static void Locked(X86Vm vm, Func<bool> action, bool flush)
    {
        vm.MmuLock.WriteLock();
        if (action() && flush)
            vm.FlushRemoteTlbs();
        vm.MmuLock.WriteUnlock();
    }

    /// <summary>kvm_mmu_update_cpu_dirty_logging: the processor's own log is on while any slot is logged.</summary>
    private void UpdateCpuDirtyLogging(X86Vm vm, bool enable)
    {
        if (Ops.CpuDirtyLogSize == 0)
            return;
        int users = enable ? Interlocked.Increment(ref vm.CpuDirtyLoggingCount) : Interlocked.Decrement(ref vm.CpuDirtyLoggingCount);
        if ((enable && users == 1) || (!enable && users == 0))
            vm.MakeAllCpusRequest(KVM_REQ_UPDATE_CPU_DIRTY_LOGGING);
    }

    [KernelFunction("kvm_arch_flush_shadow_all", File = "arch/x86/kvm/x86.c")]
    public void FlushShadowAll(KvmVm vm)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_flush_shadow_all");
        if (((X86Vm)vm).TdpMmuEnabled)
            ((X86Vm)vm).Mmu.ZapAll();
        else
            ((X86Vm)vm).Shadow.ZapAll();
    }

    [KernelFunction("kvm_arch_flush_shadow_memslot", File = "arch/x86/kvm/x86.c")]
    public void FlushShadowMemslot(KvmVm vm, KvmMemorySlot slot)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_flush_shadow_memslot");
        using (FunctionTrace.Enter("kvm_page_track_flush_slot"))
        using (FunctionTrace.Enter("kvm_mmu_invalidate_zap_pages_in_memslot"))
            ZapAllFast((X86Vm)vm);
    }

    /// <summary>kvm_arch_flush_remote_tlb: an error makes Core request a flush from every vCPU.</summary>
    public KvmResult FlushRemoteTlb(KvmVm vm) => ops?.TlbRemoteFlush((X86Vm)vm) == 0 ? 0 : Abi.Errno.EOPNOTSUPP;

    [KernelFunction("kvm_arch_flush_remote_tlbs_memslot", File = "arch/x86/kvm/mmu/mmu.c")]
    public void FlushRemoteTlbsMemslot(KvmVm vm, KvmMemorySlot slot)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_flush_remote_tlbs_memslot");
        vm.FlushRemoteTlbs();
    }

    /// <summary>The frames of the mask are watched again: dirty bits cleared when the processor logs, write-protected otherwise. mmu_lock is held.</summary>
    [KernelFunction("kvm_arch_mmu_enable_log_dirty_pt_masked", File = "arch/x86/kvm/mmu/mmu.c")]
    public void MmuEnableLogDirtyPtMasked(KvmVm kvm, KvmMemorySlot slot, ulong gfnOffset, ulong mask)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_mmu_enable_log_dirty_pt_masked");
        var vm = (X86Vm)kvm;
        ulong start = slot.BaseGfn + gfnOffset;
        if (vm.DirtyLogManualProtectAndInitSet)
        {
            ulong first = start + (ulong)System.Numerics.BitOperations.TrailingZeroCount(mask);
            ulong last = start + 63 - (ulong)System.Numerics.BitOperations.LeadingZeroCount(mask);
            if (!vm.TdpMmuEnabled)
            {
                vm.Shadow.SlotGfnWriteProtect(slot, first, PG_LEVEL_2M);
                if (first >> 9 != last >> 9)
                    vm.Shadow.SlotGfnWriteProtect(slot, last, PG_LEVEL_2M);
            }
            else
            {
                if (Params.EagerPageSplit)
                    vm.Mmu.SplitHugePages(first, last + 1);
                vm.Mmu.WriteProtect(first & ~511ul, last + 1, PG_LEVEL_2M);
            }
        }

        if (vm.TdpMmuEnabled)
            vm.Mmu.ClearDirtyMasked(start, mask, Ops.CpuDirtyLogSize == 0);
        else
            vm.Shadow.EnableLogDirtyPtMasked(slot, start, mask, Ops.CpuDirtyLogSize == 0);
    }

    /// <summary>kvm_arch_sync_dirty_log: running vCPUs leave the guest, so that their processors' logs are read.</summary>
    [KernelFunction("kvm_arch_sync_dirty_log", File = "arch/x86/kvm/x86.c")]
    public void SyncDirtyLog(KvmVm vm, KvmMemorySlot slot)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_sync_dirty_log");
        foreach (KvmVcpu vcpu in vm.Vcpus)
            vcpu.Kick();
    }

    public int CpuDirtyLogSize => ops?.CpuDirtyLogSize ?? 0;

    public bool UnmapGfnRange(KvmVm kvm, in KvmGfnRange range)
    {
        var vm = (X86Vm)kvm;
        return vm.TdpMmuEnabled ? vm.Mmu.ZapLeafs(range.Start, range.End) : vm.Shadow.UnmapGfnRange(range.Slot, range.Start, range.End);
    }

    public bool AgeGfn(KvmVm kvm, in KvmGfnRange range)
    {
        var vm = (X86Vm)kvm;
        return vm.TdpMmuEnabled ? vm.Mmu.AgeGfn(range.Start, range.End) : vm.Shadow.AgeGfn(range.Slot, range.Start, range.End);
    }

    public bool TestAgeGfn(KvmVm kvm, in KvmGfnRange range)
    {
        var vm = (X86Vm)kvm;
        return vm.TdpMmuEnabled ? vm.Mmu.TestAgeGfn(range.Start, range.End) : vm.Shadow.TestAgeGfn(range.Slot, range.Start, range.End);
    }

    [KernelFunction("kvm_arch_guest_memory_reclaimed", File = "arch/x86/kvm/x86.c")]
    public void GuestMemoryReclaimed(KvmVm vm)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_guest_memory_reclaimed");
        ops?.GuestMemoryReclaimed((X86Vm)vm);
    }

    /// <summary>kvm_arch_mmu_notifier_invalidate_range: the page that stands for the APIC's registers may have moved.</summary>
    public void MmuNotifierInvalidateRange(KvmVm vm, ulong start, ulong end)
    {
        ulong address = vm.GfnToHva(APIC_DEFAULT_PHYS_BASE >> 12);
        if (start <= address && address < end)
            vm.MakeAllCpusRequest(KVM_REQ_APIC_PAGE_RELOAD);
    }

    /// <summary>nx_huge_pages was written: every VM builds its tables anew.</summary>
    internal void NxHugePagesChanged()
    {
        if (module is null)
            return;
        foreach (KvmVm vm in module.VmList)
            ZapAllFast((X86Vm)vm);
    }

    /// <summary>vm_list is not empty.</summary>
    internal bool HasVms => module is { UsageCount: > 0 };

    // ---- the shrinker ----

    /// <summary>mmu_shrink_count: table pages of all VMs that could be given back.</summary>
    [KernelFunction("mmu_shrink_count", File = "arch/x86/kvm/mmu/mmu.c")]
    public ulong MmuShrinkCount()
    {
        ulong count = 0;
        foreach (KvmVm vm in module?.VmList ?? [])
            count += ((X86Vm)vm).NUsedMmuPages;
        return count;
    }

    /// <summary>mmu_shrink_scan: takes up to so many pages from the first VM that has any, which goes to the end of the row. The pages that went.</summary>
    [KernelFunction("mmu_shrink_scan", File = "arch/x86/kvm/mmu/mmu.c")]
    public ulong MmuShrinkScan(ulong wanted)
    {
        foreach (KvmVm kvm in module?.VmList ?? [])
        {
            var vm = (X86Vm)kvm;
            if (vm.NUsedMmuPages == 0)
                continue;
            int index = vm.Srcu.ReadLock();
            vm.MmuLock.WriteLock();
            ulong freed = vm.Shadow.ZapOldestMmuPages(wanted);
            vm.MmuLock.WriteUnlock();
            vm.Srcu.ReadUnlock(index);
            return freed;
        }

        return 0;
    }
}
