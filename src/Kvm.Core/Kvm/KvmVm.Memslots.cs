using System.Runtime.CompilerServices;
using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Core.KvmLimits;

namespace Kvm.Core;

/// <remarks>Slots: validation, the two sets of each address space, their swap.</remarks>
public abstract unsafe partial class KvmVm
{
    private readonly KvmMemslots[,] _memslotSets;
    private readonly KvmMemslots[] _memslots;
    private readonly RawSpinLock _mnInvalidateLock = new();
    private readonly RcuWait _mnMemslotsUpdateWait = new();

    /// <summary>mn_active_invalidate_count: changes of process memory in progress.</summary>
    public int MnActiveInvalidateCount { get; internal set; }

    /// <summary>__kvm_memslots: the active set of an address space. Read inside an SRCU section or with <see cref="SlotsLock"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public KvmMemslots Memslots(int addressSpace = 0) => Volatile.Read(ref _memslots[addressSpace]);

    internal void InitMemslots()
    {
        for (int i = 0; i < KVM_ADDRESS_SPACE_NUM; i++)
        {
            // Generations must differ between address spaces.
            for (int j = 0; j < 2; j++) _memslotSets[i, j] = new KvmMemslots(j, (ulong)i);
            _memslots[i] = _memslotSets[i, 0];
        }
    }

    internal void FreeMemslots()
    {
        // The same slots live in both sets: free those of the second.
        for (int i = 0; i < KVM_ADDRESS_SPACE_NUM; i++)
        {
            FunctionTrace.Leaf("kvm_free_memslots");
            foreach (KvmMemorySlot slot in _memslotSets[i, 1].ByGfn) FreeMemslot(slot);
        }
    }

    private KvmMemslots Inactive(int addressSpace) => _memslotSets[addressSpace, Memslots(addressSpace).NodeIndex ^ 1];

    /// <summary>kvm_vm_ioctl_set_memory_region: internal slots are out of user space's reach.</summary>
    [KernelFunction("kvm_vm_ioctl_set_memory_region", File = "virt/kvm/kvm_main.c")]
    internal KvmResult IoctlSetMemoryRegion(in kvm_userspace_memory_region mem) =>
        (ushort)mem.slot >= KVM_USER_MEM_SLOTS ? Errno.EINVAL : SetMemoryRegion(in mem);

    /// <summary>kvm_set_memory_region: takes <see cref="SlotsLock"/>.</summary>
    [KernelFunction("kvm_set_memory_region", File = "virt/kvm/kvm_main.c")]
    public KvmResult SetMemoryRegion(in kvm_userspace_memory_region mem)
    {
        using var _ = SlotsLock.Enter();
        return SetMemoryRegionLocked(in mem);
    }

    /// <summary>
    /// Creates, deletes (size 0), moves or re-flags a slot. -EINVAL for malformed or impossible requests, -EEXIST when frames are taken, -ENOMEM. The caller
    /// holds <see cref="SlotsLock"/>.
    /// </summary>
    [KernelFunction("__kvm_set_memory_region", File = "virt/kvm/kvm_main.c")]
    public KvmResult SetMemoryRegionLocked(in kvm_userspace_memory_region mem)
    {
        using var _ = FunctionTrace.Enter("__kvm_set_memory_region");
        if ((mem.flags & ~(uint)(Uapi.KVM_MEM_LOG_DIRTY_PAGES | Uapi.KVM_MEM_READONLY)) != 0) return Errno.EINVAL;
        int asId = (int)(mem.slot >> 16);
        int id = (ushort)mem.slot;
        if ((mem.memory_size & (PageSize - 1)) != 0) return Errno.EINVAL;
        if ((mem.guest_phys_addr & (PageSize - 1)) != 0) return Errno.EINVAL;
        if ((mem.userspace_addr & (PageSize - 1)) != 0 || !UserMemory.AccessOk(mem.userspace_addr, mem.memory_size)) return Errno.EINVAL;
        if (asId >= KVM_ADDRESS_SPACE_NUM || id >= KVM_MEM_SLOTS_NUM) return Errno.EINVAL;
        if (unchecked(mem.guest_phys_addr + mem.memory_size) < mem.guest_phys_addr) return Errno.EINVAL;
        if (mem.memory_size >> PageShift > KVM_MEM_MAX_NR_PAGES) return Errno.EINVAL;

        KvmMemslots slots = Memslots(asId);
        KvmMemorySlot? old = slots.ById(id);
        if (mem.memory_size == 0)
        {
            if (old is null || old.Npages == 0) return Errno.EINVAL;
            if (Host.Log.WarnOnce(NrMemslotPages < old.Npages, "nr_memslot_pages", "kvm: nr_memslot_pages underflow")) return Errno.EIO;
            return SetMemslot(old, null, KvmMrChange.Delete);
        }

        ulong baseGfn = mem.guest_phys_addr >> PageShift;
        ulong npages = mem.memory_size >> PageShift;
        KvmMrChange change;
        if (old is null || old.Npages == 0)
        {
            change = KvmMrChange.Create;
            if (unchecked(NrMemslotPages + npages) < NrMemslotPages) return Errno.EINVAL;
        }
        else
        {
            if (mem.userspace_addr != old.UserspaceAddr || npages != old.Npages || ((mem.flags ^ old.Flags) & Uapi.KVM_MEM_READONLY) != 0)
                return Errno.EINVAL;
            if (baseGfn != old.BaseGfn) change = KvmMrChange.Move;
            else if (mem.flags != old.Flags) change = KvmMrChange.FlagsOnly;
            else return 0;
        }

        if (change is KvmMrChange.Create or KvmMrChange.Move && Overlaps(slots, id, baseGfn, baseGfn + npages)) return Errno.EEXIST;
        if (Host.Faults.ShouldFail("kzalloc", "kvm_memory_slot")) return Errno.ENOMEM;
        var @new = new KvmMemorySlot
        {
            AsId = (ushort)asId,
            Id = (short)id,
            BaseGfn = baseGfn,
            Npages = npages,
            Flags = mem.flags,
            UserspaceAddr = mem.userspace_addr,
        };
        return SetMemslot(old, @new, change);
    }

    [KernelFunction("kvm_check_memslot_overlap", File = "virt/kvm/kvm_main.c")]
    private static bool Overlaps(KvmMemslots slots, int id, ulong start, ulong end)
    {
        foreach (KvmMemorySlot slot in slots.GfnRange(start, end))
            if (slot.Id != id) return true;
        return false;
    }

    [KernelFunction("kvm_set_memslot", File = "virt/kvm/kvm_main.c")]
    private KvmResult SetMemslot(KvmMemorySlot? old, KvmMemorySlot? @new, KvmMrChange change)
    {
        using var _ = FunctionTrace.Enter("kvm_set_memslot");
        // Held from before the active set is copied until the changed set is installed; SwapActiveMemslots lets it go.
        SlotsArchLock.Lock();
        KvmMemorySlot? invalid = null;
        if (change is KvmMrChange.Delete or KvmMrChange.Move)
        {
            // vCPUs keep running: first no one can map the slot any more, then it goes.
            if (Host.Faults.ShouldFail("kzalloc", "invalid_slot"))
            {
                SlotsArchLock.Unlock();
                return Errno.ENOMEM;
            }

            invalid = new KvmMemorySlot();
            InvalidateMemslot(old!, invalid);
        }

        KvmResult r = PrepareMemoryRegion(old, @new, change);
        if (r.IsError)
        {
            // The original is still in the inactive set: activating it again undoes the invalidation.
            if (invalid is not null) ActivateMemslot(invalid, old);
            else SlotsArchLock.Unlock();
            return r;
        }

        switch (change)
        {
            case KvmMrChange.Create:
                ReplaceMemslot(null, @new);
                SwapAndReplace(null, @new);
                break;
            case KvmMrChange.Delete:
                ReplaceMemslot(old, null);
                ActivateMemslot(invalid, null);
                break;
            case KvmMrChange.Move:
                ReplaceMemslot(old, @new);
                ActivateMemslot(invalid, @new);
                break;
            default:
                ReplaceMemslot(old, @new);
                ActivateMemslot(old, @new);
                break;
        }

        CommitMemoryRegion(old, @new, change);
        return 0;
    }

    /// <summary>Replaces a slot in the inactive set.</summary>
    [KernelFunction("kvm_replace_memslot", File = "virt/kvm/kvm_main.c")]
    private void ReplaceMemslot(KvmMemorySlot? old, KvmMemorySlot? @new)
    {
        FunctionTrace.Leaf("kvm_replace_memslot");
        Inactive((old ?? @new)!.AsId).Replace(old, @new);
    }

    [KernelFunction("kvm_invalidate_memslot", File = "virt/kvm/kvm_main.c")]
    private void InvalidateMemslot(KvmMemorySlot old, KvmMemorySlot invalid)
    {
        invalid.BaseGfn = old.BaseGfn;
        invalid.Npages = old.Npages;
        invalid.DirtyBitmap = old.DirtyBitmap;
        invalid.Arch = old.Arch;
        invalid.UserspaceAddr = old.UserspaceAddr;
        invalid.Flags = old.Flags | KVM_MEMSLOT_INVALID;
        invalid.Id = old.Id;
        invalid.AsId = old.AsId;
        ReplaceMemslot(old, invalid);
        SwapActiveMemslots(old.AsId);
        // The set that is inactive now still has the original, for a failure later on.
        Arch.FlushShadowMemslot(this, old);
        Arch.GuestMemoryReclaimed(this);
        SlotsArchLock.Lock();
        // The architecture's part may have changed between the swap and here.
        old.Arch = invalid.Arch;
    }

    [KernelFunction("kvm_activate_memslot", File = "virt/kvm/kvm_main.c")]
    private void ActivateMemslot(KvmMemorySlot? old, KvmMemorySlot? @new)
    {
        using var _ = FunctionTrace.Enter("kvm_activate_memslot");
        SwapAndReplace(old, @new);
    }

    /// <summary>What the compiler makes of kvm_activate_memslot for a new slot: its body, without a call.</summary>
    private void SwapAndReplace(KvmMemorySlot? old, KvmMemorySlot? @new)
    {
        SwapActiveMemslots((old ?? @new)!.AsId);
        ReplaceMemslot(old, @new);
    }

    [KernelFunction("kvm_swap_active_memslots", File = "virt/kvm/kvm_main.c", Formerly = "install_new_memslots")]
    private void SwapActiveMemslots(int asId)
    {
        using var _ = FunctionTrace.Enter("kvm_swap_active_memslots");
        KvmMemslots slots = Inactive(asId);
        ulong generation = Memslots(asId).Generation;
        Volatile.Write(ref slots.Generation, generation | KVM_MEMSLOT_GEN_UPDATE_IN_PROGRESS);

        // No new set while a change of process memory is between its start and its end: both must see the same slots.
        _mnInvalidateLock.Lock();
        _mnMemslotsUpdateWait.Prepare();
        while (MnActiveInvalidateCount != 0)
        {
            HostTask.Current.SetState(TaskState.Uninterruptible);
            _mnInvalidateLock.Unlock();
            HostTask.Current.Schedule();
            _mnInvalidateLock.Lock();
        }

        _mnMemslotsUpdateWait.Finish();
        Volatile.Write(ref _memslots[asId], slots);
        _mnInvalidateLock.Unlock();

        // Before the wait: a reader may take this lock inside its section.
        SlotsArchLock.Unlock();
        using (FunctionTrace.Enter("synchronize_srcu_expedited")) Srcu.Synchronize();

        generation = (slots.Generation & ~KVM_MEMSLOT_GEN_UPDATE_IN_PROGRESS) + KVM_ADDRESS_SPACE_NUM;
        Arch.MemslotsUpdated(this, generation);
        Volatile.Write(ref slots.Generation, generation);
    }

    [KernelFunction("kvm_prepare_memory_region", File = "virt/kvm/kvm_main.c")]
    private KvmResult PrepareMemoryRegion(KvmMemorySlot? old, KvmMemorySlot? @new, KvmMrChange change)
    {
        if (change != KvmMrChange.Delete)
        {
            if (!@new!.DirtyTrackEnabled) @new.DirtyBitmap = null;
            else if (old is not null && old.DirtyBitmap != null) @new.DirtyBitmap = old.DirtyBitmap;
            else if (DirtyRingSize == 0)
            {
                // Twice the size: the second half is where KVM_GET_DIRTY_LOG takes its snapshot.
                @new.DirtyBitmap = (ulong*)Host.Pages.Vmalloc("dirty_bitmap", @new.DirtyBitmapBytes * 2);
                if (@new.DirtyBitmap == null) return Errno.ENOMEM;
                if (DirtyLogManualProtectAndInitSet) SetBits(@new.DirtyBitmap, @new.Npages);
            }
        }

        KvmResult r = Arch.PrepareMemoryRegion(this, old, @new, change);
        if (r.IsError && @new is not null && @new.DirtyBitmap != null && (old is null || old.DirtyBitmap == null)) DestroyDirtyBitmap(@new);
        return r;
    }

    [KernelFunction("kvm_commit_memory_region", File = "virt/kvm/kvm_main.c")]
    private void CommitMemoryRegion(KvmMemorySlot? old, KvmMemorySlot? @new, KvmMrChange change)
    {
        if (change == KvmMrChange.Delete) NrMemslotPages -= old!.Npages;
        else if (change == KvmMrChange.Create) NrMemslotPages += @new!.Npages;
        Arch.CommitMemoryRegion(this, old, @new, change);
        switch (change)
        {
            case KvmMrChange.Delete:
                FreeMemslot(old!);
                break;
            case KvmMrChange.Move or KvmMrChange.FlagsOnly:
                // The old object goes, its metadata may live on in the new one.
                if (old!.DirtyBitmap != null && @new!.DirtyBitmap == null) DestroyDirtyBitmap(old);
                break;
        }
    }

    private void FreeMemslot(KvmMemorySlot slot)
    {
        DestroyDirtyBitmap(slot);
        Arch.FreeMemslot(this, slot);
    }

    private void DestroyDirtyBitmap(KvmMemorySlot slot)
    {
        Host.Pages.Vfree((ulong)slot.DirtyBitmap);
        slot.DirtyBitmap = null;
    }

    private static void SetBits(ulong* bitmap, ulong count)
    {
        for (ulong i = 0; i < count / 64; i++) bitmap[i] = ulong.MaxValue;
        if (count % 64 != 0) bitmap[count / 64] = (1UL << (int)(count % 64)) - 1;
    }
}
