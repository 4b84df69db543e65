using System.Numerics;
using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Core.KvmLimits;

namespace Kvm.Core;

/// <remarks>Dirty page logging: bitmaps and rings.</remarks>
public abstract unsafe partial class KvmVm
{
    /// <summary>kvm_dirty_log_manual_protect_and_init_set.</summary>
    public bool DirtyLogManualProtectAndInitSet => (ManualDirtyLogProtect & Uapi.KVM_DIRTY_LOG_INITIALLY_SET) != 0;

    /// <summary>KVM_GET_DIRTY_LOG: copies the bitmap out; without manual protection it also clears it and re-arms the pages.</summary>
    [KernelFunction("kvm_vm_ioctl_get_dirty_log", File = "virt/kvm/kvm_main.c")]
    internal KvmResult IoctlGetDirtyLog(in kvm_dirty_log log)
    {
        using var _ = SlotsLock.Enter();
        return GetDirtyLogProtect(in log);
    }

    [KernelFunction("kvm_get_dirty_log_protect", File = "virt/kvm/kvm_main.c")]
    private KvmResult GetDirtyLogProtect(in kvm_dirty_log log)
    {
        using var _ = FunctionTrace.Enter("kvm_get_dirty_log_protect");
        KvmResult r = FindLoggingSlot(log.slot, out KvmMemorySlot? slot);
        if (r.IsError) return r;
        ulong* bitmap = slot!.DirtyBitmap;
        ulong* buffer = bitmap;
        Arch.SyncDirtyLog(this, slot);
        ulong bytes = slot.DirtyBitmapBytes;
        bool flush = false;
        if (ManualDirtyLogProtect == 0)
        {
            buffer = slot.SecondDirtyBitmap;
            new Span<byte>(buffer, checked((int)bytes)).Clear();
            MmuLock.WriteLock();
            for (ulong i = 0; i < bytes / 8; i++)
            {
                if (Volatile.Read(ref bitmap[i]) == 0) continue;
                flush = true;
                // Snapshot first, then write-protect: a write in between is reported now or next time, never lost.
                ulong mask = Interlocked.Exchange(ref bitmap[i], 0);
                buffer[i] = mask;
                Arch.MmuEnableLogDirtyPtMasked(this, slot, i * 64, mask);
            }

            MmuLock.WriteUnlock();
        }

        if (flush) Arch.FlushRemoteTlbsMemslot(this, slot);
        return UserMemory.CopyToUser(log.dirty_bitmap, buffer, bytes) ? 0 : Errno.EFAULT;
    }

    /// <summary>KVM_CLEAR_DIRTY_LOG: clears the given bits and re-arms their pages.</summary>
    [KernelFunction("kvm_vm_ioctl_clear_dirty_log", File = "virt/kvm/kvm_main.c")]
    internal KvmResult IoctlClearDirtyLog(in kvm_clear_dirty_log log)
    {
        using var _ = SlotsLock.Enter();
        return ClearDirtyLogProtect(in log);
    }

    [KernelFunction("kvm_clear_dirty_log_protect", File = "virt/kvm/kvm_main.c")]
    private KvmResult ClearDirtyLogProtect(in kvm_clear_dirty_log log)
    {
        using var _ = FunctionTrace.Enter("kvm_clear_dirty_log_protect");
        if (DirtyRingSize != 0) return Errno.ENXIO;
        int asId = (int)(log.slot >> 16), id = (ushort)log.slot;
        if (asId >= KVM_ADDRESS_SPACE_NUM || id >= KVM_USER_MEM_SLOTS) return Errno.EINVAL;
        if ((log.first_page & 63) != 0) return Errno.EINVAL;
        if (Memslots(asId).ById(id) is not { } slot || slot.DirtyBitmap == null) return Errno.ENOENT;
        if (log.first_page > slot.Npages || log.num_pages > slot.Npages - log.first_page ||
            (log.num_pages < slot.Npages - log.first_page && (log.num_pages & 63) != 0))
            return Errno.EINVAL;

        Arch.SyncDirtyLog(this, slot);
        ulong longs = (log.num_pages + 63UL) / 64;
        ulong* buffer = slot.SecondDirtyBitmap;
        if (!UserMemory.CopyFromUser(buffer, log.dirty_bitmap, longs * 8)) return Errno.EFAULT;
        bool flush = false;
        MmuLock.WriteLock();
        ulong offset = log.first_page;
        for (ulong n = 0; n < longs; n++, offset += 64)
        {
            ulong mask = buffer[n];
            if (mask == 0) continue;
            // Only bits that were really set: never one beyond the slot's end.
            mask &= Interlocked.And(ref slot.DirtyBitmap[offset / 64], ~mask);
            if (mask == 0) continue;
            flush = true;
            Arch.MmuEnableLogDirtyPtMasked(this, slot, offset, mask);
        }

        MmuLock.WriteUnlock();
        if (flush) Arch.FlushRemoteTlbsMemslot(this, slot);
        return 0;
    }

    private KvmResult FindLoggingSlot(uint number, out KvmMemorySlot? slot)
    {
        slot = null;
        if (DirtyRingSize != 0) return Errno.ENXIO;
        int asId = (int)(number >> 16), id = (ushort)number;
        if (asId >= KVM_ADDRESS_SPACE_NUM || id >= KVM_USER_MEM_SLOTS) return Errno.EINVAL;
        slot = Memslots(asId).ById(id);
        return slot is null || slot.DirtyBitmap == null ? Errno.ENOENT : 0;
    }

    /// <summary>mark_page_dirty_in_slot: only a running vCPU marks pages.</summary>
    [KernelFunction("mark_page_dirty_in_slot", File = "virt/kvm/kvm_main.c")]
    public void MarkPageDirtyInSlot(KvmMemorySlot? slot, ulong gfn)
    {
        FunctionTrace.Leaf("mark_page_dirty_in_slot");
        if (slot is null || !slot.DirtyTrackEnabled) return;
        KvmVcpu? vcpu = Module.GetRunningVcpu();
        if (Host.Log.WarnOnce(vcpu is null && UsersCount != 0, "mark_page_dirty", "kvm: a page became dirty without a running vCPU") || vcpu is null) return;
        if (Host.Log.WarnOnce(vcpu.Vm != this, "mark_page_dirty_vm", "kvm: a page of another VM became dirty")) return;
        ulong rel = gfn - slot.BaseGfn;
        if (DirtyRingSize != 0) vcpu.DirtyRing!.Push(((uint)slot.AsId << 16) | (ushort)slot.Id, rel);
        else Interlocked.Or(ref slot.DirtyBitmap[rel / 64], 1UL << (int)(rel & 63));
    }

    /// <summary>mark_page_dirty.</summary>
    public void MarkPageDirty(ulong gfn) => MarkPageDirtyInSlot(GfnToMemslot(gfn), gfn);

    /// <summary>KVM_CAP_DIRTY_LOG_RING: rings of <paramref name="size"/> bytes instead of bitmaps; once, before the first vCPU.</summary>
    [KernelFunction("kvm_vm_ioctl_enable_dirty_log_ring", File = "virt/kvm/kvm_main.c")]
    internal KvmResult EnableDirtyLogRing(uint size)
    {
        if (size == 0 || !BitOperations.IsPow2(size)) return Errno.EINVAL;
        if (size < (uint)KvmDirtyRing.ReservedEntries(Arch) * (uint)sizeof(kvm_dirty_gfn) || size < PageSize) return Errno.EINVAL;
        if (size > (uint)(KVM_DIRTY_RING_MAX_ENTRIES * sizeof(kvm_dirty_gfn))) return Errno.E2BIG;
        if (DirtyRingSize != 0) return Errno.EINVAL;
        using var _ = Lock.Enter();
        if (CreatedVcpus != 0) return Errno.EINVAL;
        DirtyRingSize = size;
        return 0;
    }

    /// <summary>KVM_RESET_DIRTY_RINGS: takes harvested entries back; how many.</summary>
    [KernelFunction("kvm_vm_ioctl_reset_dirty_pages", File = "virt/kvm/kvm_main.c")]
    internal KvmResult ResetDirtyPages()
    {
        if (DirtyRingSize == 0) return Errno.EINVAL;
        int cleared = 0;
        using (SlotsLock.Enter())
            foreach (KvmVcpu vcpu in Vcpus) cleared += vcpu.DirtyRing!.Reset();
        if (cleared != 0) FlushRemoteTlbs();
        return cleared;
    }
}
