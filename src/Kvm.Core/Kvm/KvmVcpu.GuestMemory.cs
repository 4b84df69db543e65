using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Core.KvmLimits;

namespace Kvm.Core;

/// <remarks>Guest memory as this vCPU sees it (SMM has its own address space).</remarks>
public abstract unsafe partial class KvmVcpu
{
    /// <summary>kvm_vcpu_memslots.</summary>
    public KvmMemslots Memslots => Vm.Memslots(Arch.VcpuMemslotsId(this));

    /// <summary>kvm_vcpu_gfn_to_memslot: with a cache of its own; null without a slot.</summary>
    [KernelFunction("kvm_vcpu_gfn_to_memslot", File = "virt/kvm/kvm_main.c")]
    public KvmMemorySlot? GfnToMemslot(ulong gfn)
    {
        FunctionTrace.Leaf("kvm_vcpu_gfn_to_memslot");
        KvmMemslots slots = Memslots;
        ulong generation = Volatile.Read(ref slots.Generation);
        // Also guards against a slot of the other address space: generations differ.
        if (generation != LastUsedSlotGen)
        {
            LastUsedSlot = null;
            LastUsedSlotGen = generation;
        }

        if (LastUsedSlot is { } last && last.Contains(gfn)) return last;
        KvmMemorySlot? slot = slots.Search(gfn);
        if (slot is not null) LastUsedSlot = slot;
        return slot;
    }

    /// <summary>kvm_vcpu_is_visible_gfn.</summary>
    public bool IsVisibleGfn(ulong gfn) => KvmVm.IsVisibleMemslot(GfnToMemslot(gfn));

    /// <summary>kvm_vcpu_gfn_to_hva: for writing.</summary>
    public ulong GfnToHva(ulong gfn) => KvmVm.GfnToHvaMany(GfnToMemslot(gfn), gfn, out _, write: true);

    /// <summary>kvm_vcpu_gfn_to_hva_prot: for reading.</summary>
    public ulong GfnToHvaProt(ulong gfn, out bool writable) => KvmVm.GfnToHvaProt(GfnToMemslot(gfn), gfn, out writable);

    /// <summary>kvm_vcpu_mark_page_dirty.</summary>
    public void MarkPageDirty(ulong gfn) => Vm.MarkPageDirtyInSlot(GfnToMemslot(gfn), gfn);

    /// <summary>kvm_vcpu_read_guest_page.</summary>
    [KernelFunction("kvm_vcpu_read_guest_page", File = "virt/kvm/kvm_main.c")]
    public KvmResult ReadGuestPage(ulong gfn, void* data, int offset, int length)
    {
        using var _ = FunctionTrace.Enter("kvm_vcpu_read_guest_page");
        return Vm.ReadGuestPage(GfnToMemslot(gfn), gfn, data, offset, length);
    }

    /// <summary>kvm_vcpu_write_guest_page.</summary>
    public KvmResult WriteGuestPage(ulong gfn, void* data, int offset, int length) => Vm.WriteGuestPage(GfnToMemslot(gfn), gfn, data, offset, length);

    /// <summary>kvm_vcpu_read_guest: -EFAULT without memory.</summary>
    [KernelFunction("kvm_vcpu_read_guest", File = "virt/kvm/kvm_main.c")]
    public KvmResult ReadGuest(ulong gpa, void* data, ulong length)
    {
        using var _ = FunctionTrace.Enter("kvm_vcpu_read_guest");
        byte* to = (byte*)data;
        for (int seg; length > 0; gpa += (ulong)seg, to += seg, length -= (ulong)seg)
        {
            seg = KvmVm.Segment(gpa, length);
            KvmResult r = Vm.ReadGuestPage(GfnToMemslot(gpa >> PageShift), gpa >> PageShift, to, (int)(gpa & (PageSize - 1)), seg);
            if (r.IsError) return r;
        }

        return 0;
    }

    /// <summary>kvm_vcpu_write_guest.</summary>
    [KernelFunction("kvm_vcpu_write_guest", File = "virt/kvm/kvm_main.c")]
    public KvmResult WriteGuest(ulong gpa, void* data, ulong length)
    {
        using var _ = FunctionTrace.Enter("kvm_vcpu_write_guest");
        byte* from = (byte*)data;
        for (int seg; length > 0; gpa += (ulong)seg, from += seg, length -= (ulong)seg)
        {
            seg = KvmVm.Segment(gpa, length);
            KvmResult r = WriteGuestPage(gpa >> PageShift, from, (int)(gpa & (PageSize - 1)), seg);
            if (r.IsError) return r;
        }

        return 0;
    }

    /// <summary>kvm_vcpu_read_guest_atomic: within one page.</summary>
    public KvmResult ReadGuestAtomic(ulong gpa, void* data, ulong length) =>
        (gpa & (PageSize - 1)) + length > PageSize ? Errno.EFAULT : ReadGuestPage(gpa >> PageShift, data, (int)(gpa & (PageSize - 1)), (int)length);
}
