using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <remarks>Changes of process memory reach the guest's page tables here.</remarks>
public abstract unsafe partial class KvmVm
{
    /// <summary>mmu_invalidate_seq: counts finished changes.</summary>
    public ulong MmuInvalidateSeq;

    /// <summary>mmu_invalidate_in_progress: changes that hit slots and are not finished; guarded by <see cref="MmuLock"/>.</summary>
    public long MmuInvalidateInProgress;

    public ulong MmuInvalidateRangeStart;
    public ulong MmuInvalidateRangeEnd;

    /// <summary>mmu_invalidate_retry_hva: a page found before must not be mapped, its memory changed meanwhile. Called with <see cref="MmuLock"/>.</summary>
    public bool MmuInvalidateRetryHva(ulong seq, ulong hva)
    {
        if (Volatile.Read(ref MmuInvalidateInProgress) != 0 && hva >= MmuInvalidateRangeStart && hva < MmuInvalidateRangeEnd) return true;
        Interlocked.MemoryBarrier(); // the count is read before the sequence
        return Volatile.Read(ref MmuInvalidateSeq) != seq;
    }

    /// <summary>mmu_invalidate_retry.</summary>
    public bool MmuInvalidateRetry(ulong seq)
    {
        if (Volatile.Read(ref MmuInvalidateInProgress) != 0) return true;
        Interlocked.MemoryBarrier();
        return Volatile.Read(ref MmuInvalidateSeq) != seq;
    }

    /// <summary>kvm_mmu_invalidate_begin; <see cref="MmuLock"/> is held.</summary>
    public void MmuInvalidateBegin(ulong start, ulong end)
    {
        MmuInvalidateInProgress++;
        if (MmuInvalidateInProgress == 1)
        {
            MmuInvalidateRangeStart = start;
            MmuInvalidateRangeEnd = end;
        }
        else
        {
            MmuInvalidateRangeStart = Math.Min(MmuInvalidateRangeStart, start);
            MmuInvalidateRangeEnd = Math.Max(MmuInvalidateRangeEnd, end);
        }
    }

    /// <summary>kvm_mmu_invalidate_end; <see cref="MmuLock"/> is held.</summary>
    public void MmuInvalidateEnd(ulong start, ulong end)
    {
        MmuInvalidateSeq++;
        Interlocked.MemoryBarrier(); // the sequence before the count
        MmuInvalidateInProgress--;
    }

    [KernelFunction("kvm_mmu_notifier_invalidate_range_start", File = "virt/kvm/kvm_main.c")]
    void IMmuNotifier.InvalidateRangeStart(ulong start, ulong end)
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_notifier_invalidate_range_start");
        if (Tracepoints.Enabled) Tracepoints.Emit("kvm_unmap_hva_range", $"mmu notifier unmap range: 0x{start:x16} -- 0x{end:x16}");
        // Slots must not change between start and end.
        using (_mnInvalidateLock.Enter()) MnActiveInvalidateCount++;
        bool locked = false, flush = false;
        int index = Srcu.ReadLock();
        ForEachRange(start, end, range =>
        {
            if (!locked)
            {
                locked = true;
                MmuLock.WriteLock();
                MmuInvalidateBegin(start, end);
            }

            flush |= Arch.UnmapGfnRange(this, in range);
        });
        if (flush) FlushRemoteTlbs();
        if (locked)
        {
            MmuLock.WriteUnlock();
            Arch.GuestMemoryReclaimed(this);
        }

        Srcu.ReadUnlock(index);
        Arch.MmuNotifierInvalidateRange(this, start, end);
    }

    [KernelFunction("kvm_mmu_notifier_invalidate_range_end", File = "virt/kvm/kvm_main.c")]
    void IMmuNotifier.InvalidateRangeEnd(ulong start, ulong end)
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_notifier_invalidate_range_end");
        int index = Srcu.ReadLock();
        bool hit = false;
        ForEachRange(start, end, _ => hit = true);
        if (hit)
        {
            MmuLock.WriteLock();
            MmuInvalidateEnd(start, end);
            MmuLock.WriteUnlock();
        }

        Srcu.ReadUnlock(index);
        bool wake;
        using (_mnInvalidateLock.Enter()) wake = --MnActiveInvalidateCount == 0;
        if (wake) _mnMemslotsUpdateWait.WakeUp();
    }

    [KernelFunction("kvm_mmu_notifier_release", File = "virt/kvm/kvm_main.c")]
    void IMmuNotifier.Release()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_notifier_release");
        int index = Srcu.ReadLock();
        Arch.FlushShadowAll(this);
        Arch.GuestMemoryReclaimed(this);
        Srcu.ReadUnlock(index);
    }

    private void ForEachRange(ulong start, ulong end, Action<KvmGfnRange> action)
    {
        for (int i = 0; i < KvmLimits.KVM_ADDRESS_SPACE_NUM; i++)
        {
            foreach (KvmMemorySlot slot in Memslots(i).HvaRange(start, end - 1))
            {
                ulong from = Math.Max(start, slot.UserspaceAddr);
                ulong to = Math.Min(end, slot.UserspaceAddr + (slot.Npages << KvmLimits.PageShift));
                action(new KvmGfnRange(slot, slot.HvaToGfn(from), slot.HvaToGfn(to + KvmLimits.PageSize - 1), MayBlock: true));
            }
        }
    }
}
