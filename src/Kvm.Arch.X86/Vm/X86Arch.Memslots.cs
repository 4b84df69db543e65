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

    /// <summary>The arrays per slot of the kernel (huge-page permissions, page tracking) are computed in this model; only their allocation can fail.</summary>
    public void FreeMemslot(KvmVm vm, KvmMemorySlot slot)
    {
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
                ((X86Vm)vm).Mmu.ZapAllFast();
        }

        // vCPUs that cached an MMIO access notice the new generation when they next enter.
        foreach (KvmVcpu vcpu in vm.Vcpus)
            vcpu.Kick();
    }

    [KernelFunction("kvm_arch_prepare_memory_region", File = "arch/x86/kvm/x86.c")]
    public KvmResult PrepareMemoryRegion(KvmVm vm, KvmMemorySlot? old, KvmMemorySlot? @new, KvmMrChange change)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_prepare_memory_region");
        if (change is not (KvmMrChange.Create or KvmMrChange.Move))
            return 0;
        if (@new!.BaseGfn + @new.Npages - 1 > MaxGfn)
            return -EINVAL;
        return AllocMemslotMetadata();
    }

    /// <summary>The slot's reverse maps (shadow paging only) and large-page counts. The model keeps neither; only having no memory for them shows.</summary>
    [KernelFunction("kvm_alloc_memslot_metadata", File = "arch/x86/kvm/x86.c")]
    private KvmResult AllocMemslotMetadata()
    {
        const int pageSizes = 3;
        for (int level = 0; level < pageSizes && !TdpEnabled; level++)
        {
            if (Host.Faults.ShouldFail("vmalloc", "rmap"))
                return -ENOMEM;
        }

        for (int level = 1; level < pageSizes; level++)
        {
            using (FunctionTrace.Enter("__vmalloc"))
            {
                if (Host.Faults.ShouldFail("vmalloc", "lpage_info"))
                    return -ENOMEM;
            }
        }

        FunctionTrace.Leaf("kvm_page_track_create_memslot");
        return !TdpEnabled && Host.Faults.ShouldFail("vmalloc", "gfn_track") ? -ENOMEM : 0;
    }

    [KernelFunction("kvm_arch_commit_memory_region", File = "arch/x86/kvm/x86.c")]
    public void CommitMemoryRegion(KvmVm kvm, KvmMemorySlot? old, KvmMemorySlot? @new, KvmMrChange change)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_commit_memory_region");
        var vm = (X86Vm)kvm;
        if (vm.NRequestedMmuPages == 0 && change is KvmMrChange.Create or KvmMrChange.Delete)
            vm.ChangeMmuPages(Math.Max(vm.NrMemslotPages / KVM_MEMSLOT_PAGES_TO_MMU_PAGES_RATIO, KVM_MIN_ALLOC_MMU_PAGES));
        SlotApplyFlags(vm, old, @new, change);
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
                Locked(vm, () => vm.Mmu.ZapCollapsible(@new), flush: true);
            return;
        }

        // Everything counts as dirty at first: nothing has to be protected yet.
        if (vm.DirtyLogManualProtectAndInitSet)
            return;
        if (Params.EagerPageSplit)
        {
            using (FunctionTrace.Enter("kvm_mmu_slot_try_split_huge_pages"))
                Locked(vm, () => vm.Mmu.SplitHugePages(@new.BaseGfn, @new.EndGfn), flush: false);
        }

        if (Ops.CpuDirtyLogSize != 0)
        {
            using (FunctionTrace.Enter("kvm_mmu_slot_leaf_clear_dirty"))
                Locked(vm, () => vm.Mmu.ClearDirty(@new.BaseGfn, @new.EndGfn), flush: false);
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
        Locked(vm, () => vm.Mmu.WriteProtect(slot.BaseGfn, slot.EndGfn, minLevel), flush: false);
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
        ((X86Vm)vm).Mmu.ZapAll();
    }

    [KernelFunction("kvm_arch_flush_shadow_memslot", File = "arch/x86/kvm/x86.c")]
    public void FlushShadowMemslot(KvmVm vm, KvmMemorySlot slot)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_flush_shadow_memslot");
        using (FunctionTrace.Enter("kvm_page_track_flush_slot"))
        using (FunctionTrace.Enter("kvm_mmu_invalidate_zap_pages_in_memslot"))
            ((X86Vm)vm).Mmu.ZapAllFast();
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
            if (Params.EagerPageSplit)
                vm.Mmu.SplitHugePages(first, last + 1);
            vm.Mmu.WriteProtect(first & ~511ul, last + 1, PG_LEVEL_2M);
        }

        vm.Mmu.ClearDirtyMasked(start, mask, Ops.CpuDirtyLogSize == 0);
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

    public bool UnmapGfnRange(KvmVm vm, in KvmGfnRange range) => ((X86Vm)vm).Mmu.ZapLeafs(range.Start, range.End);

    public bool AgeGfn(KvmVm vm, in KvmGfnRange range) => ((X86Vm)vm).Mmu.AgeGfn(range.Start, range.End);

    public bool TestAgeGfn(KvmVm vm, in KvmGfnRange range) => ((X86Vm)vm).Mmu.TestAgeGfn(range.Start, range.End);

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
            ((X86Vm)vm).Mmu.ZapAllFast();
    }
}
