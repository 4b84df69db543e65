using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>The guest's own page tables: guest-virtual to guest-physical, as the processor would translate.</remarks>
public unsafe partial class X86Vcpu
{
    private const ulong PtPresent = 1;
    private const ulong PtWritable = 2;
    private const ulong PtUser = 4;
    private const ulong PtAccessed = 0x20;
    private const ulong PtDirty = 0x40;
    private const ulong PtPageSize = 0x80;
    private const ulong PtNx = 1ul << 63;
    private const ulong PtAddress = 0x000ffffffffff000;

    /// <summary>
    /// mmu->gva_to_gpa: INVALID_GPA and the fault when the access is not allowed. <paramref name="access"/>: PFERR_WRITE, USER, FETCH and
    /// PFERR_IMPLICIT_ACCESS.
    /// </summary>
    public ulong GvaToGpa(ulong gva, ulong access, out X86Exception exception)
    {
        exception = default;
        KvmMmu mmu = WalkMmu;
        if (mmu.GuestLevel == 0)
        {
            FunctionTrace.Leaf("nonpaging_gva_to_gpa");
            return gva;
        }

        using var _ = FunctionTrace.Enter(mmu.GuestLevel == 2 ? "paging32_gva_to_gpa" : "paging64_gva_to_gpa");
        return WalkAddr(mmu, gva, access, out exception);
    }

    private ulong Fault(out X86Exception exception, ulong gva, ulong access, bool present, bool reserved)
    {
        uint code = (uint)access & (PFERR_WRITE_MASK | PFERR_USER_MASK);
        if ((access & PFERR_FETCH_MASK) != 0 && (WalkMmu.EferNx && WalkMmu.GuestLevel > 2 || WalkMmu.Cr4Smep))
            code |= PFERR_FETCH_MASK;
        if (present)
            code |= PFERR_PRESENT_MASK;
        if (reserved)
            code |= PFERR_RSVD_MASK;
        exception = new X86Exception { Vector = PF_VECTOR, ErrorCodeValid = true, ErrorCode = (ushort)code, Address = gva };
        return INVALID_GPA;
    }

    [KernelFunction("paging64_walk_addr_generic", File = "arch/x86/kvm/mmu/paging_tmpl.h")]
    private ulong WalkAddr(KvmMmu mmu, ulong gva, ulong access, out X86Exception exception)
    {
        exception = default;
        int level = mmu.GuestLevel;
        bool wide = level > 2;
        int bits = wide ? 9 : 10;
        ulong table = ReadCr3();
        if (level == 3)
        {
            ulong pdptr = PdptrRead((int)(gva >> 30) & 3);
            if ((pdptr & PtPresent) == 0)
                return Fault(out exception, gva, access, false, false);
            table = pdptr;
            level = 2;
        }

        table &= wide ? PtAddress : 0xfffff000;
        ulong rights = PtWritable | PtUser;
        ulong noExecute = 0;
        for (; ; level--)
        {
            int index = (int)(gva >> (12 + (bits * (level - 1)))) & ((1 << bits) - 1);
            ulong entryGpa = table + (ulong)(index * (wide ? 8 : 4));
            ulong entry = 0;
            if (ReadGuestPage(entryGpa >> 12, &entry, (int)(entryGpa & 0xfff), wide ? 8 : 4).IsError)
                return Fault(out exception, gva, access, false, false);
            if ((entry & PtPresent) == 0)
                return Fault(out exception, gva, access, false, false);
            bool last = level == 1 || ((entry & PtPageSize) != 0 && (level == 2 ? wide || mmu.Cr4Pse : level == 3));
            if (HasReservedBits(mmu, entry, level, last, wide))
                return Fault(out exception, gva, access, true, true);

            rights &= entry;
            noExecute |= wide ? entry & PtNx : 0;
            if (!last)
            {
                SetAccessedDirty(entryGpa, entry, PtAccessed, wide);
                table = entry & (wide ? PtAddress : 0xfffff000);
                continue;
            }

            if (PermissionFault(mmu, rights, noExecute != 0, access))
                return Fault(out exception, gva, access, true, false);
            bool write = (access & PFERR_WRITE_MASK) != 0;
            SetAccessedDirty(entryGpa, entry, write ? PtAccessed | PtDirty : PtAccessed, wide);
            return LeafAddress(entry, level, wide, gva);
        }
    }

    private static ulong LeafAddress(ulong entry, int level, bool wide, ulong gva)
    {
        int shift = wide ? 12 + (9 * (level - 1)) : 12 + (10 * (level - 1));
        ulong offset = gva & ((1ul << shift) - 1);
        if (wide)
            return (entry & PtAddress & ~((1ul << shift) - 1)) | offset;

        // PSE-36: bits 20:13 of a 4 MiB entry are address bits 39:32.
        ulong high = level == 2 ? ((entry >> 13) & 0xff) << 32 : 0;
        return (entry & 0xfffff000 & ~((1ul << shift) - 1)) | high | offset;
    }

    private bool HasReservedBits(KvmMmu mmu, ulong entry, int level, bool last, bool wide)
    {
        if (!wide)
            return level == 2 && last && (entry & (1ul << 21)) != 0;
        ulong reserved = ReservedGpaBits & 0x000fffffffffffff;
        if (!mmu.EferNx)
            reserved |= PtNx;
        if (mmu.GuestLevel == 3)
            reserved |= X86Bits.RsvdBits(Maxphyaddr, 62);
        if (last && level > 1)
            reserved |= X86Bits.RsvdBits(13, 11 + (9 * (level - 1)));
        if (!last && level >= 4)
            reserved |= PtPageSize;
        if (last && level == 3 && !GuestCpuidHas(X86Feature.GBPAGES))
            reserved |= PtPageSize;
        return (entry & reserved) != 0;
    }

    /// <summary>permission_fault: user/supervisor, write protection, execute disable, SMEP and SMAP.</summary>
    private bool PermissionFault(KvmMmu mmu, ulong rights, bool noExecute, ulong access)
    {
        bool user = (access & PFERR_USER_MASK) != 0;
        bool userPage = (rights & PtUser) != 0;
        if (user && !userPage)
            return true;
        if ((access & PFERR_WRITE_MASK) != 0 && (rights & PtWritable) == 0 && (user || mmu.Cr0Wp))
            return true;
        if ((access & PFERR_FETCH_MASK) != 0)
            return (mmu.EferNx && noExecute) || (!user && userPage && mmu.Cr4Smep);
        if (user || !userPage || !mmu.Cr4Smap)
            return false;

        // Supervisor data access to a user page: allowed for explicit accesses while RFLAGS.AC is set.
        bool explicitAccess = (access & PFERR_IMPLICIT_ACCESS) == 0;
        return !(explicitAccess && (Ops.GetRflags(this) & X86_EFLAGS_AC) != 0);
    }

    /// <summary>update_accessed_dirty_bits: with a locked compare-and-exchange, other processors walk the same tables.</summary>
    private void SetAccessedDirty(ulong entryGpa, ulong entry, ulong bits, bool wide)
    {
        if ((entry & bits) == bits)
            return;
        ulong hva = GfnToHvaProt(entryGpa >> 12, out bool writable);
        if (!writable || KvmLimits.IsErrorHva(hva))
            return;
        hva += entryGpa & 0xfff;
        if (Vm.Mm.GetUserPage(hva, true) == 0)
            return;
        if (wide)
            Interlocked.CompareExchange(ref *(ulong*)hva, entry | bits, entry);
        else
            Interlocked.CompareExchange(ref *(uint*)hva, (uint)(entry | bits), (uint)entry);
        MarkPageDirty(entryGpa >> 12);
    }

    /// <summary>kvm_mmu_gva_to_gpa_system: no permission is asked for.</summary>
    public ulong GvaToGpaSystem(ulong gva, out X86Exception exception) => GvaToGpa(gva, 0, out exception);

    /// <summary>kvm_mmu_gva_to_gpa_read: at the guest's privilege.</summary>
    public ulong GvaToGpaRead(ulong gva, out X86Exception exception) =>
        GvaToGpa(gva, Ops.GetCpl(this) == 3 ? PFERR_USER_MASK : 0, out exception);

    /// <summary>kvm_mmu_gva_to_gpa_write.</summary>
    public ulong GvaToGpaWrite(ulong gva, out X86Exception exception) =>
        GvaToGpa(gva, PFERR_WRITE_MASK | (Ops.GetCpl(this) == 3 ? PFERR_USER_MASK : 0), out exception);

    // ---- guest-virtual memory ----

    /// <summary>kvm_read_guest_virt_helper: 0; PropagateFault with the fault filled in; IoNeeded where there is no memory.</summary>
    private int ReadGuestVirtHelper(ulong addr, Span<byte> to, ulong access, out X86Exception exception)
    {
        exception = default;
        while (to.Length > 0)
        {
            ulong gpa = GvaToGpa(addr, access, out exception);
            int n = (int)Math.Min((ulong)to.Length, 0x1000 - (addr & 0xfff));
            if (gpa == INVALID_GPA)
                return X86EmulateContext.PropagateFault;
            if (ReadGuestPage(gpa >> 12, to[..n], (int)(gpa & 0xfff)) < 0)
                return X86EmulateContext.IoNeeded;
            addr += (ulong)n;
            to = to[n..];
        }

        return 0;
    }

    /// <summary>kvm_read_guest_virt: 0; PropagateFault with a fault; IoNeeded where there is no memory.</summary>
    public int ReadGuestVirt(ulong addr, Span<byte> to, out X86Exception exception) =>
        ReadGuestVirtHelper(addr, to, Ops.GetCpl(this) == 3 ? PFERR_USER_MASK : 0, out exception);

    /// <summary>kvm_fetch_guest_virt: instruction bytes, within one page.</summary>
    [KernelFunction("kvm_fetch_guest_virt", File = "arch/x86/kvm/x86.c")]
    public int FetchGuestVirt(ulong addr, Span<byte> to, out X86Exception exception)
    {
        using var _ = FunctionTrace.Enter("kvm_fetch_guest_virt");
        ulong access = Ops.GetCpl(this) == 3 ? PFERR_USER_MASK : 0;
        return ReadGuestVirtHelper(addr, to, access | PFERR_FETCH_MASK, out exception);
    }

    /// <summary>emulator_read_std for the processor's own structures: descriptor tables, TSS.</summary>
    public int ReadGuestVirtSystem(ulong addr, Span<byte> to, out X86Exception exception) =>
        ReadGuestVirtHelper(addr, to, PFERR_IMPLICIT_ACCESS, out exception);

    /// <summary>kvm_write_guest_virt_system: as the processor writes its own structures.</summary>
    public int WriteGuestVirtSystem(ulong addr, ReadOnlySpan<byte> from, out X86Exception exception)
    {
        exception = default;
        while (from.Length > 0)
        {
            ulong gpa = GvaToGpa(addr, PFERR_WRITE_MASK, out exception);
            int n = (int)Math.Min((ulong)from.Length, 0x1000 - (addr & 0xfff));
            if (gpa == INVALID_GPA)
                return X86EmulateContext.PropagateFault;
            if (WriteGuest(gpa, from[..n]) != 0)
                return X86EmulateContext.IoNeeded;
            addr += (ulong)n;
            from = from[n..];
        }

        return 0;
    }

    /// <summary>kvm_vcpu_read_guest_page into a span: 0 or -EFAULT.</summary>
    public int ReadGuestPage(ulong gfn, Span<byte> to, int offset)
    {
        fixed (byte* p = to)
            return (int)ReadGuestPage(gfn, p, offset, to.Length).Raw;
    }

    /// <summary>kvm_vcpu_read_guest into a span: 0 or -EFAULT.</summary>
    public int ReadGuest(ulong gpa, Span<byte> to)
    {
        fixed (byte* p = to)
            return (int)ReadGuest(gpa, p, (ulong)to.Length).Raw;
    }

    /// <summary>kvm_vcpu_write_guest from a span: 0 or -EFAULT.</summary>
    public int WriteGuest(ulong gpa, ReadOnlySpan<byte> from)
    {
        fixed (byte* p = from)
            return (int)WriteGuest(gpa, p, (ulong)from.Length).Raw;
    }
}
