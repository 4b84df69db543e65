using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>The guest's own page tables: guest-virtual to guest-physical, as the processor would translate.</remarks>
public unsafe partial class X86Vcpu
{
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

        using var _ = FunctionTrace.Enter(mmu.GuestLevel == PT32_ROOT_LEVEL ? "paging32_gva_to_gpa" : "paging64_gva_to_gpa");
        if (WalkAddr(out GuestWalker walker, mmu, gva, access))
            return (walker.Gfn << 12) | (gva & 0xfff);
        exception = walker.Fault;
        return INVALID_GPA;
    }

    /// <summary>Walks the guest's tables as its processor would, and sets accessed and dirty bits in them. False: the page fault that the guest gets is in the result.</summary>
    [KernelFunction("paging64_walk_addr_generic", File = "arch/x86/kvm/mmu/paging_tmpl.h")]
    private bool WalkAddr(out GuestWalker walker, KvmMmu mmu, ulong addr, ulong access)
    {
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_mmu_pagetable_walk", $"addr {addr:x} pferr {access:x} {MmuTrace.Flags((uint)access)}");
        for (; ; )
        {
            int r = WalkAddrOnce(out walker, mmu, addr, access);
            if (r <= 0)
                return r == 0;
        }
    }

    /// <summary>0: translated; 1: an entry changed meanwhile, walk again; -1: fault.</summary>
    private int WalkAddrOnce(out GuestWalker walker, KvmMmu mmu, ulong addr, ulong access)
    {
        walker = default;
        int level = mmu.GuestLevel;
        bool wide = level > PT32_ROOT_LEVEL;
        ulong walkNx = wide ? SpteMasks.PT64_NX_MASK : 0;
        ulong addressMask = wide ? PtAddress : 0xfffff000;
        ulong pte = ReadCr3();
        if (level == PT32E_ROOT_LEVEL)
        {
            pte = PdptrRead((int)(addr >> 30) & 3);
            TraceElement(pte, level);
            if ((pte & SpteMasks.PT_PRESENT_MASK) == 0)
                return WalkFault(ref walker, mmu, addr, access, 0);
            level--;
        }

        walker.MaxLevel = level;
        int bits = wide ? 9 : 10;
        int size = wide ? 8 : 4;
        ulong pteAccess = ~0ul;
        for (; ; level--)
        {
            walker.Level = level;
            ulong ptAccess = pteAccess;
            ulong offset = ((addr >> (12 + (bits * (level - 1)))) & ((1ul << bits) - 1)) * (ulong)size;
            ulong table = pte & addressMask;
            walker.TableGfn[level - 1] = table >> 12;
            walker.PteGpa[level - 1] = table + offset;
            ulong hva = GfnToHvaProt(table >> 12, out walker.PteWritable[level - 1]);
            if (KvmLimits.IsErrorHva(hva) || !Vm.Mm.ReadAtomic(hva + offset, size, out pte))
                return WalkFault(ref walker, mmu, addr, access, 0);
            walker.PteHva[level - 1] = hva + offset;
            TraceElement(pte, level);

            // Not-executable is turned round, so that rights can be combined by AND.
            pteAccess = ptAccess & (pte ^ walkNx);
            if ((pte & SpteMasks.PT_PRESENT_MASK) == 0)
                return WalkFault(ref walker, mmu, addr, access, 0);
            if (mmu.IsRsvdBitsSet(pte, level))
                return WalkFault(ref walker, mmu, addr, access, PFERR_RSVD_MASK | PFERR_PRESENT_MASK);
            walker.Ptes[level - 1] = pte;
            walker.PtAccess[level - 1] = GpteAccess(ptAccess ^ walkNx);
            if (IsLastGpte(mmu, level, pte, wide))
                break;
        }

        bool write = (access & PFERR_WRITE_MASK) != 0;
        walker.PteAccess = GpteAccess(pteAccess ^ walkNx);
        uint error = mmu.PermissionFault(walker.PteAccess, wide ? (uint)(pte >> 59) & 0xf : 0, access);
        if (error != 0)
            return WalkFault(ref walker, mmu, addr, access, error);

        int shift = 12 + (bits * (level - 1));
        walker.Gfn = ((pte & addressMask & ~((1ul << shift) - 1)) | (addr & ((1ul << shift) - 1))) >> 12;
        if (!wide && level > PG_LEVEL_4K)
            walker.Gfn += (pte & 0x1e000) << 7; // address bits 35:32

        bool upToDate = (pteAccess & SpteMasks.PT_ACCESSED_MASK) != 0;
        if (!write)
            walker.PteAccess = ProtectCleanGpte(walker.PteAccess, pte);
        else
            upToDate &= (pte & SpteMasks.PT_DIRTY_MASK) != 0;
        if (upToDate)
            return 0;
        int r = UpdateAccessedDirtyBits(ref walker, write, wide);
        return r < 0 ? WalkFault(ref walker, mmu, addr, access, 0) : r;
    }

    private static void TraceElement(ulong pte, int level)
    {
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_mmu_paging_element", $"pte {pte:x} level {level}");
    }

    private int WalkFault(ref GuestWalker walker, KvmMmu mmu, ulong addr, ulong access, uint error)
    {
        error |= (uint)access & (PFERR_WRITE_MASK | PFERR_USER_MASK);
        if ((access & PFERR_FETCH_MASK) != 0 && (mmu.EferNx || mmu.Cr4Smep))
            error |= PFERR_FETCH_MASK;
        walker.Fault = new X86Exception { Vector = PF_VECTOR, ErrorCodeValid = true, ErrorCode = (ushort)error, Address = addr };
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_mmu_walker_error", $"pferr {error:x} {MmuTrace.Flags(error)}");
        return -1;
    }

    /// <summary>gpte_access: ACC_* of an entry.</summary>
    internal static uint GpteAccess(ulong gpte) => (uint)(gpte & (SpteMasks.PT_PRESENT_MASK | SpteMasks.PT_WRITABLE_MASK | SpteMasks.PT_USER_MASK)) ^ (uint)(gpte >> 63);

    /// <summary>protect_clean_gpte: no write access through an entry that is not dirty yet, so that the first write is seen.</summary>
    internal static uint ProtectCleanGpte(uint access, ulong gpte) => (gpte & SpteMasks.PT_DIRTY_MASK) != 0 ? access : access & ~ACC_WRITE_MASK;

    /// <summary>is_last_gpte: bit 7 ends the walk, but for 4-byte entries without PSE, where it means nothing.</summary>
    private static bool IsLastGpte(KvmMmu mmu, int level, ulong gpte, bool wide) =>
        level == PG_LEVEL_4K || ((gpte & SpteMasks.PT_PAGE_SIZE_MASK) != 0 && (wide || mmu.Cr4Pse));

    /// <summary>update_accessed_dirty_bits: with a compare-and-exchange, other processors walk the same tables. 0; 1: walk again; -1: the memory is gone.</summary>
    private int UpdateAccessedDirtyBits(ref GuestWalker walker, bool write, bool wide)
    {
        for (int level = walker.MaxLevel; level >= walker.Level; level--)
        {
            ulong old = walker.Ptes[level - 1];
            ulong pte = old;
            if ((pte & SpteMasks.PT_ACCESSED_MASK) == 0)
            {
                TraceSetBit("kvm_mmu_set_accessed_bit", walker.PteGpa[level - 1]);
                pte |= SpteMasks.PT_ACCESSED_MASK;
            }

            if (level == walker.Level && write && (pte & SpteMasks.PT_DIRTY_MASK) == 0)
            {
                TraceSetBit("kvm_mmu_set_dirty_bit", walker.PteGpa[level - 1]);
                pte |= SpteMasks.PT_DIRTY_MASK;
            }

            // In a read-only slot the bits stay as they are.
            if (pte == old || !walker.PteWritable[level - 1])
                continue;
            ulong hva = walker.PteHva[level - 1];
            if (Vm.Mm.GetUserPage(hva, true) == 0)
                return -1;
            bool same = wide
                ? Interlocked.CompareExchange(ref *(ulong*)hva, pte, old) == old
                : Interlocked.CompareExchange(ref *(uint*)hva, (uint)pte, (uint)old) == (uint)old;
            if (!same)
                return 1;
            MarkPageDirty(walker.TableGfn[level - 1]);
            walker.Ptes[level - 1] = pte;
        }

        return 0;
    }

    private static void TraceSetBit(string name, ulong gpa)
    {
        if (Tracepoints.Enabled)
            Tracepoints.Emit(name, $"gpa {gpa:x}");
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
    public int WriteGuestVirtSystem(ulong addr, ReadOnlySpan<byte> from, out X86Exception exception) =>
        WriteGuestVirtHelper(addr, from, PFERR_WRITE_MASK, out exception);

    /// <summary>emulator_write_std: as the guest's code writes; IoNeeded where there is no memory.</summary>
    public int WriteGuestVirt(ulong addr, ReadOnlySpan<byte> from, out X86Exception exception) =>
        WriteGuestVirtHelper(addr, from, PFERR_WRITE_MASK | (Ops.GetCpl(this) == 3 ? PFERR_USER_MASK : 0), out exception);

    /// <summary>kvm_write_guest_virt_helper.</summary>
    private int WriteGuestVirtHelper(ulong addr, ReadOnlySpan<byte> from, ulong access, out X86Exception exception)
    {
        exception = default;
        while (from.Length > 0)
        {
            ulong gpa = GvaToGpa(addr, access, out exception);
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
