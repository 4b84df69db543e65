using System.Runtime.CompilerServices;
using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Core.KvmLimits;

namespace Kvm.Core;

/// <remarks>Guest memory: frame to slot, to process address, to page; reads and writes. Call inside an SRCU section or with <see cref="SlotsLock"/>.</remarks>
public abstract unsafe partial class KvmVm
{
    /// <summary>gfn_to_memslot (address space 0), or null.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public KvmMemorySlot? GfnToMemslot(ulong gfn) => Memslots().Find(gfn);

    /// <summary>kvm_is_visible_memslot: a user slot that is not going away.</summary>
    public static bool IsVisibleMemslot(KvmMemorySlot? slot) => slot is not null && slot.Id < KVM_USER_MEM_SLOTS && !slot.IsInvalid;

    /// <summary>kvm_is_visible_gfn.</summary>
    public bool IsVisibleGfn(ulong gfn) => IsVisibleMemslot(GfnToMemslot(gfn));

    /// <summary>__gfn_to_hva_many: KVM_HVA_ERR_BAD without a usable slot, KVM_HVA_ERR_RO_BAD for a write to a read-only one.</summary>
    public static ulong GfnToHvaMany(KvmMemorySlot? slot, ulong gfn, out ulong pages, bool write)
    {
        pages = 0;
        if (slot is null || slot.IsInvalid) return KVM_HVA_ERR_BAD;
        if (slot.IsReadonly && write) return KVM_HVA_ERR_RO_BAD;
        pages = slot.Npages - (gfn - slot.BaseGfn);
        return slot.GfnToHva(gfn);
    }

    /// <summary>gfn_to_hva: for writing.</summary>
    public ulong GfnToHva(ulong gfn) => GfnToHvaMany(GfnToMemslot(gfn), gfn, out _, write: true);

    /// <summary>gfn_to_hva_memslot_prot: for reading; says whether the slot may be written.</summary>
    public static ulong GfnToHvaProt(KvmMemorySlot? slot, ulong gfn, out bool writable)
    {
        ulong hva = GfnToHvaMany(slot, gfn, out _, write: false);
        writable = !IsErrorHva(hva) && !slot!.IsReadonly;
        return hva;
    }

    /// <summary>
    /// __gfn_to_pfn_memslot: the page frame behind a guest frame, or an error value of <see cref="KvmPfn"/>. <paramref name="writable"/> says whether a writable
    /// mapping may be made.
    /// </summary>
    [KernelFunction("__gfn_to_pfn_memslot", File = "virt/kvm/kvm_main.c")]
    public ulong GfnToPfn(KvmMemorySlot? slot, ulong gfn, bool writeFault, out bool writable, out ulong hva)
    {
        using var _ = FunctionTrace.Enter("__gfn_to_pfn_memslot");
        writable = false;
        hva = GfnToHvaMany(slot, gfn, out ulong _, writeFault);
        if (hva == KVM_HVA_ERR_RO_BAD) return KvmPfn.ErrRoFault;
        if (IsErrorHva(hva)) return KvmPfn.Noslot;
        return HvaToPfn(hva, writeFault, mayWrite: !slot!.IsReadonly, out writable);
    }

    /// <summary>hva_to_pfn.</summary>
    [KernelFunction("hva_to_pfn", File = "virt/kvm/kvm_main.c")]
    private ulong HvaToPfn(ulong hva, bool writeFault, bool mayWrite, out bool writable)
    {
        using var _ = FunctionTrace.Enter("hva_to_pfn");
        ulong pa;
        writable = false;
        // A read fault maps the page writable when that is possible.
        if (writeFault || mayWrite)
        {
            FunctionTrace.Leaf("get_user_pages_fast_only");
            pa = Mm.GetUserPage(hva, write: true);
            if (pa != 0)
            {
                writable = mayWrite;
                return pa >> PageShift;
            }

            if (writeFault) return KvmPfn.ErrFault;
        }

        pa = Mm.GetUserPage(hva, write: false);
        return pa != 0 ? pa >> PageShift : KvmPfn.ErrFault;
    }

    /// <summary>kvm_read_guest_page: -EFAULT without memory behind the frame.</summary>
    public KvmResult ReadGuestPage(ulong gfn, void* data, int offset, int length) => ReadGuestPage(GfnToMemslot(gfn), gfn, data, offset, length);

    internal KvmResult ReadGuestPage(KvmMemorySlot? slot, ulong gfn, void* data, int offset, int length)
    {
        ulong hva = GfnToHvaProt(slot, gfn, out _);
        if (IsErrorHva(hva)) return Errno.EFAULT;
        return Mm.CopyFrom(data, hva + (ulong)offset, (ulong)length) ? 0 : Errno.EFAULT;
    }

    /// <summary>kvm_write_guest_page.</summary>
    public KvmResult WriteGuestPage(ulong gfn, void* data, int offset, int length) => WriteGuestPage(GfnToMemslot(gfn), gfn, data, offset, length);

    [KernelFunction("__kvm_write_guest_page", File = "virt/kvm/kvm_main.c")]
    internal KvmResult WriteGuestPage(KvmMemorySlot? slot, ulong gfn, void* data, int offset, int length)
    {
        using var _ = FunctionTrace.Enter("__kvm_write_guest_page");
        ulong hva = GfnToHvaMany(slot, gfn, out ulong _, write: true);
        if (IsErrorHva(hva)) return Errno.EFAULT;
        if (!Mm.CopyTo(hva + (ulong)offset, data, (ulong)length)) return Errno.EFAULT;
        MarkPageDirtyInSlot(slot, gfn);
        return 0;
    }

    /// <summary>kvm_read_guest: any length, across slots.</summary>
    [KernelFunction("kvm_read_guest", File = "virt/kvm/kvm_main.c")]
    public KvmResult ReadGuest(ulong gpa, void* data, ulong length)
    {
        byte* to = (byte*)data;
        for (int seg; length > 0; gpa += (ulong)seg, to += seg, length -= (ulong)seg)
        {
            seg = Segment(gpa, length);
            KvmResult r = ReadGuestPage(gpa >> PageShift, to, (int)(gpa & (PageSize - 1)), seg);
            if (r.IsError) return r;
        }

        return 0;
    }

    /// <summary>kvm_write_guest: any length, across slots; pages become dirty.</summary>
    [KernelFunction("kvm_write_guest", File = "virt/kvm/kvm_main.c")]
    public KvmResult WriteGuest(ulong gpa, void* data, ulong length)
    {
        byte* from = (byte*)data;
        for (int seg; length > 0; gpa += (ulong)seg, from += seg, length -= (ulong)seg)
        {
            seg = Segment(gpa, length);
            KvmResult r = WriteGuestPage(gpa >> PageShift, from, (int)(gpa & (PageSize - 1)), seg);
            if (r.IsError) return r;
        }

        return 0;
    }

    /// <summary>kvm_clear_guest.</summary>
    public KvmResult ClearGuest(ulong gpa, ulong length)
    {
        byte* zero = stackalloc byte[512];
        new Span<byte>(zero, 512).Clear();
        for (int seg; length > 0; gpa += (ulong)seg, length -= (ulong)seg)
        {
            seg = Math.Min(Segment(gpa, length), 512);
            KvmResult r = WriteGuestPage(gpa >> PageShift, zero, (int)(gpa & (PageSize - 1)), seg);
            if (r.IsError) return r;
        }

        return 0;
    }

    /// <summary>kvm_gfn_to_hva_cache_init: remembers the process address of a guest range.</summary>
    [KernelFunction("kvm_gfn_to_hva_cache_init", File = "virt/kvm/kvm_main.c")]
    public KvmResult GfnToHvaCacheInit(GfnToHvaCache cache, ulong gpa, ulong length) => CacheInit(Memslots(), cache, gpa, length);

    /// <summary>kvm_write_guest_offset_cached.</summary>
    public KvmResult WriteGuestCached(GfnToHvaCache cache, void* data, uint offset, ulong length)
    {
        KvmResult r = CacheCheck(cache, offset, length);
        if (r.IsError) return r;
        ulong gpa = cache.Gpa + offset;
        if (cache.Memslot is null) return WriteGuest(gpa, data, length);
        if (!Mm.CopyTo(cache.Hva + offset, data, length)) return Errno.EFAULT;
        MarkPageDirtyInSlot(cache.Memslot, gpa >> PageShift);
        return 0;
    }

    /// <summary>kvm_read_guest_offset_cached.</summary>
    public KvmResult ReadGuestCached(GfnToHvaCache cache, void* data, uint offset, ulong length)
    {
        KvmResult r = CacheCheck(cache, offset, length);
        if (r.IsError) return r;
        if (cache.Memslot is null) return ReadGuest(cache.Gpa + offset, data, length);
        return Mm.CopyFrom(data, cache.Hva + offset, length) ? 0 : Errno.EFAULT;
    }

    internal static int Segment(ulong gpa, ulong length) => (int)Math.Min(length, PageSize - (gpa & (PageSize - 1)));

    private KvmResult CacheCheck(GfnToHvaCache cache, uint offset, ulong length)
    {
        if (Host.Log.WarnOnce(length + offset > cache.Len, "gfn_to_hva_cache", "kvm: access beyond a gfn_to_hva_cache")) return Errno.EINVAL;
        KvmMemslots slots = Memslots();
        if (slots.Generation != cache.Generation && CacheInit(slots, cache, cache.Gpa, cache.Len).IsError) return Errno.EFAULT;
        return IsErrorHva(cache.Hva) ? Errno.EFAULT : 0;
    }

    private static KvmResult CacheInit(KvmMemslots slots, GfnToHvaCache cache, ulong gpa, ulong length)
    {
        ulong start = gpa >> PageShift, end = unchecked(gpa + length - 1) >> PageShift;
        ulong needed = end - start + 1;
        // The generation before any check: a failed range stays failed until the slots change.
        cache.Generation = slots.Generation;
        if (start > end)
        {
            cache.Hva = KVM_HVA_ERR_BAD;
            return Errno.EINVAL;
        }

        // Every frame must be there, also when the range crosses slots.
        for (ulong gfn = start, available; gfn <= end; gfn += available)
        {
            cache.Memslot = slots.Find(gfn);
            cache.Hva = GfnToHvaMany(cache.Memslot, gfn, out available, write: true);
            if (IsErrorHva(cache.Hva)) return Errno.EFAULT;
        }

        // Ranges over more than one page take the slow path.
        if (needed == 1) cache.Hva += gpa & (PageSize - 1);
        else cache.Memslot = null;
        cache.Gpa = gpa;
        cache.Len = length;
        return 0;
    }
}
