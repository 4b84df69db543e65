using System.Runtime.CompilerServices;
using Kvm.Abi;

namespace Kvm.Core;

/// <summary>struct kvm_memory_slot: a range of guest page frames and the process memory behind it.</summary>
public sealed unsafe class KvmMemorySlot
{
    /// <summary>First guest frame number.</summary>
    public ulong BaseGfn;

    /// <summary>Pages.</summary>
    public ulong Npages;

    /// <summary>The dirty bitmap (twice its size: the second half is the snapshot buffer); null while not logging.</summary>
    public ulong* DirtyBitmap;

    /// <summary>kvm_arch_memory_slot.</summary>
    public object? Arch;

    /// <summary>Process address of the first page.</summary>
    public ulong UserspaceAddr;

    /// <summary>KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, KVM_MEMSLOT_INVALID.</summary>
    public uint Flags;

    /// <summary>Slot number within the address space.</summary>
    public short Id;

    /// <summary>Address space: 0, or 1 for SMM.</summary>
    public ushort AsId;

    /// <summary>First frame behind the slot.</summary>
    public ulong EndGfn => BaseGfn + Npages;

    /// <summary>kvm_slot_dirty_track_enabled.</summary>
    public bool DirtyTrackEnabled => (Flags & Uapi.KVM_MEM_LOG_DIRTY_PAGES) != 0;

    /// <summary>memslot_is_readonly.</summary>
    public bool IsReadonly => (Flags & Uapi.KVM_MEM_READONLY) != 0;

    /// <summary>The slot is being deleted or moved.</summary>
    public bool IsInvalid => (Flags & KvmLimits.KVM_MEMSLOT_INVALID) != 0;

    /// <summary>kvm_dirty_bitmap_bytes: one bit per page, in whole longs.</summary>
    public ulong DirtyBitmapBytes => (Npages + 63) / 64 * 8;

    /// <summary>kvm_second_dirty_bitmap.</summary>
    public ulong* SecondDirtyBitmap => DirtyBitmap + DirtyBitmapBytes / 8;

    /// <summary>True when the frame lies in the slot.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool Contains(ulong gfn) => gfn - BaseGfn < Npages;

    /// <summary>__gfn_to_hva_memslot.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public ulong GfnToHva(ulong gfn) => UserspaceAddr + ((gfn - BaseGfn) << KvmLimits.PageShift);

    /// <summary>hva_to_gfn_memslot.</summary>
    public ulong HvaToGfn(ulong hva) => BaseGfn + ((hva - UserspaceAddr) >> KvmLimits.PageShift);

    public override string ToString() => $"slot {AsId}:{Id} gfn {BaseGfn:x}+{Npages:x} -> {UserspaceAddr:x} flags {Flags:x}";
}
