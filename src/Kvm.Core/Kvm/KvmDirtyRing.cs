using System.Numerics;
using Kvm.Abi;
using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <summary>struct kvm_dirty_ring: a vCPU's ring of dirty pages, shared with user space.</summary>
public sealed unsafe class KvmDirtyRing
{
    private const int RsvdEntries = 64;

    private readonly KvmVm _vm;
    private readonly kvm_dirty_gfn* _gfns;
    private readonly uint _size;
    private readonly int _index;
    private uint _dirtyIndex;
    private uint _resetIndex;

    private KvmDirtyRing(KvmVm vm, kvm_dirty_gfn* gfns, int index, uint bytes)
    {
        _vm = vm;
        _gfns = gfns;
        _index = index;
        _size = bytes / (uint)sizeof(kvm_dirty_gfn);
        SoftLimit = _size - (uint)ReservedEntries(vm.Arch);
    }

    /// <summary>Entries from which on the vCPU exits with KVM_EXIT_DIRTY_RING_FULL.</summary>
    public uint SoftLimit { get; }

    /// <summary>kvm_dirty_ring_used.</summary>
    public uint Used => Volatile.Read(ref _dirtyIndex) - Volatile.Read(ref _resetIndex);

    /// <summary>kvm_dirty_ring_soft_full.</summary>
    public bool SoftFull => Used >= SoftLimit;

    /// <summary>kvm_dirty_ring_get_rsvd_entries.</summary>
    public static int ReservedEntries(IKvmArch arch) => RsvdEntries + arch.CpuDirtyLogSize;

    /// <summary>kvm_dirty_ring_alloc: null is -ENOMEM (fault point "vmalloc:dirty_ring").</summary>
    internal static KvmDirtyRing? Alloc(KvmVm vm, int index, uint bytes)
    {
        if (vm.Host.Faults.ShouldFail("vmalloc", "dirty_ring")) return null;
        ulong pages = vm.Host.Pages.AllocPages("dirty_ring", BitOperations.Log2(bytes / PageAllocator.PageSize));
        return pages == 0 ? null : new KvmDirtyRing(vm, (kvm_dirty_gfn*)pages, index, bytes);
    }

    /// <summary>kvm_dirty_ring_free.</summary>
    internal void Free() => _vm.Host.Pages.FreePage((ulong)_gfns);

    /// <summary>kvm_dirty_ring_get_page.</summary>
    internal ulong Page(ulong index) => (ulong)_gfns + index * PageAllocator.PageSize;

    /// <summary>kvm_dirty_ring_push.</summary>
    internal void Push(uint slot, ulong offset)
    {
        _vm.Host.Log.WarnOnce(Used >= _size, "dirty_ring_full", "kvm: dirty ring is full");
        kvm_dirty_gfn* entry = &_gfns[_dirtyIndex & (_size - 1)];
        entry->slot = slot;
        entry->offset = offset;
        // The data before the flag: user space reads the flag first.
        Volatile.Write(ref entry->flags, (uint)Uapi.KVM_DIRTY_GFN_F_DIRTY);
        _dirtyIndex++;
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_dirty_ring_push", $"ring {_index}: dirty 0x{_dirtyIndex:x} reset 0x{_resetIndex:x} slot {slot} offset 0x{offset:x} (used {Used})");
    }

    /// <summary>kvm_dirty_ring_reset: takes back what user space marked harvested; how many entries.</summary>
    [KernelFunction("kvm_dirty_ring_reset", File = "virt/kvm/dirty_ring.c")]
    internal int Reset()
    {
        uint curSlot = 0;
        ulong curOffset = 0, mask = 0;
        int count = 0;
        for (; ; )
        {
            kvm_dirty_gfn* entry = &_gfns[_resetIndex & (_size - 1)];
            if ((Volatile.Read(ref entry->flags) & Uapi.KVM_DIRTY_GFN_F_RESET) == 0) break;
            uint nextSlot = Volatile.Read(ref entry->slot);
            ulong nextOffset = Volatile.Read(ref entry->offset);
            Volatile.Write(ref entry->flags, 0u);
            _resetIndex++;
            count++;
            // Neighbours in one slot are re-armed together.
            if (mask != 0 && nextSlot == curSlot)
            {
                long delta = unchecked((long)(nextOffset - curOffset));
                if (delta is >= 0 and < 64)
                {
                    mask |= 1UL << (int)delta;
                    continue;
                }

                if (delta is > -64 and < 0 && mask << (int)-delta >> (int)-delta == mask)
                {
                    curOffset = nextOffset;
                    mask = (mask << (int)-delta) | 1;
                    continue;
                }
            }

            ResetGfn(curSlot, curOffset, mask);
            curSlot = nextSlot;
            curOffset = nextOffset;
            mask = 1;
        }

        ResetGfn(curSlot, curOffset, mask);
        if (Tracepoints.Enabled) Tracepoints.Emit("kvm_dirty_ring_reset", $"ring {_index}: dirty 0x{_dirtyIndex:x} reset 0x{_resetIndex:x} (used {Used})");
        return count;
    }

    private void ResetGfn(uint number, ulong offset, ulong mask)
    {
        int asId = (int)(number >> 16), id = (ushort)number;
        if (mask == 0 || asId >= KvmLimits.KVM_ADDRESS_SPACE_NUM || id >= KvmLimits.KVM_USER_MEM_SLOTS) return;
        if (_vm.Memslots(asId).ById(id) is not { } slot) return;
        if (offset >= slot.Npages || offset + (ulong)BitOperations.Log2(mask) >= slot.Npages) return;
        _vm.MmuLock.WriteLock();
        _vm.Arch.MmuEnableLogDirtyPtMasked(_vm, slot, offset, mask);
        _vm.MmuLock.WriteUnlock();
    }
}
