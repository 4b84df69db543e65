using System.Runtime.CompilerServices;

namespace Kvm.Emulator;

/// <summary>
/// Memory management of one processor: segmentation, paging, the software TLB. This is the slow path; the engine's fast path compares tags of State->Tlb itself.
/// A false or null result means that a fault is in Processor.PendingFault, or that an EPT/NPT exit is pending (Processor.PendingMemoryExit).
/// </summary>
public sealed unsafe partial class Mmu : IDisposable
{
    private readonly Processor cpu;
    private readonly CpuState* state;
    private readonly PhysicalMemory memory;

    internal Mmu(Processor cpu)
    {
        this.cpu = cpu;
        state = cpu.State;
        memory = cpu.Machine.Memory;
        int physicalBits = cpu.Model.PhysicalAddressBits;
        physicalMask = (1UL << physicalBits) - 1;
        reservedPhysical = 0x000f_ffff_ffff_ffffUL & ~physicalMask;
        gigabytePages = cpu.Model.FeatureExtEdx(26);
        pse36 = cpu.Model.Feature1Edx(17);
        reservedUpper = cpu.Model.Vendor == CpuVendor.Amd ? PS | G : PS;
        for (int i = 0; i < contexts.Length; i++)
            contexts[i] = new TlbContext();
        current = contexts[0];
        current.Valid = true;
        CurrentTable = current.Table(Privilege.Supervisor);
        state->Tlb = CurrentTable.Entries;
    }

    /// <summary>Whose rights apply to an ordinary access now.</summary>
    private Privilege CurrentPrivilege
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => PrivilegeOf(state->Cpl);
    }

    /// <summary>Whose rights apply to an explicit access at a privilege level: RFLAGS.AC overrides SMAP.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private Privilege PrivilegeOf(int cpl) => cpl == 3 ? Privilege.User
        : (state->Rflags & Flags.AC) != 0 && (state->Cr4 & Cr4.SMAP) != 0 ? Privilege.SupervisorAc : Privilege.Supervisor;

    /// <summary>Reads 1, 2, 4 or 8 bytes through segmentation and paging.</summary>
    public bool Read(Seg segment, ulong offset, int size, out ulong value)
    {
        if (!CheckedLinear(segment, offset, size, AccessKind.Read, out ulong linear))
        {
            value = 0;
            return false;
        }
        return Load(linear, size, CurrentPrivilege, watch: true, out value);
    }

    /// <summary>Writes 1, 2, 4 or 8 bytes through segmentation and paging. A write that crosses a page is all or nothing.</summary>
    public bool Write(Seg segment, ulong offset, int size, ulong value)
        => CheckedLinear(segment, offset, size, AccessKind.Write, out ulong linear) && Store(linear, size, value, CurrentPrivilege, watch: true);

    /// <summary>Reads at a linear address; <paramref name="supervisor"/>: an implicit supervisor access (descriptor table, TSS), else with the rights of CPL.</summary>
    public bool ReadLinear(ulong linear, int size, out ulong value, bool supervisor)
        => Load(linear, size, supervisor ? Privilege.Supervisor : CurrentPrivilege, watch: false, out value);

    /// <summary>Writes at a linear address; see <see cref="ReadLinear"/>.</summary>
    public bool WriteLinear(ulong linear, int size, ulong value, bool supervisor)
        => Store(linear, size, value, supervisor ? Privilege.Supervisor : CurrentPrivilege, watch: false);

    /// <summary>Writes with the rights of another privilege level: the new stack of an inter-level transfer.</summary>
    internal bool WriteAs(ulong linear, int size, ulong value, int cpl) => Store(linear, size, value, PrivilegeOf(cpl), watch: true);

    /// <summary>
    /// Host pointer that may be read and written, for a read-modify-write of <paramref name="size"/> bytes inside one page of plain RAM.
    /// Null: <paramref name="failure"/> says whether a fault is pending or the caller must use Read and Write (MMIO, special or code page, page crossing, watched page).
    /// </summary>
    public byte* TranslateForRmw(Seg segment, ulong offset, int size, out RmwFailure failure)
    {
        failure = RmwFailure.Fault;
        if (!CheckedLinear(segment, offset, size, AccessKind.ReadWrite, out ulong linear))
            return null;
        if ((linear & 0xfff) + (ulong)size > 0x1000)
        {
            failure = RmwFailure.Slow;
            return ProbeWrite(linear, size) ? null : Fail(out failure);
        }
        Privilege privilege = CurrentPrivilege;
        TlbEntry* entry = &current.Table(privilege).Entries[TlbTable.Index(linear)];
        if (entry->WriteTag == (linear & ~0xfffUL))
        {
            failure = RmwFailure.None;
            return (byte*)(linear + entry->Addend);
        }
        if (!Resolve(linear, AccessKind.ReadWrite, privilege, out Target target))
            return null;
        if (target.Host == null || target.Special || cpu.Code.IsCodePage(target.Physical) || Watched(linear))
        {
            failure = RmwFailure.Slow;
            return null;
        }
        failure = RmwFailure.None;
        return target.Host;
    }

    /// <summary>Host pointer of a byte that was just read successfully, null for a device. False: a fault or memory exit is pending.</summary>
    internal bool FindHost(Seg segment, ulong offset, out byte* host)
    {
        host = null;
        if (!CheckedLinear(segment, offset, 1, AccessKind.Read, out ulong linear) || !Resolve(Wrap(linear), AccessKind.Read, CurrentPrivilege, out Target target))
            return false;
        host = target.Special ? null : target.Host;
        return true;
    }

    private static byte* Fail(out RmwFailure failure)
    {
        failure = RmwFailure.Fault;
        return null;
    }

    /// <summary>Whether a write of <paramref name="size"/> bytes would succeed; faults as that write would. Used before multi-part stores.</summary>
    internal bool ProbeWrite(ulong linear, int size) => ProbeWrite(linear, size, CurrentPrivilege);

    private bool ProbeWrite(ulong linear, int size, Privilege privilege)
    {
        if (!Resolve(linear, AccessKind.Write, privilege, out _))
            return false;
        ulong last = Wrap(linear + (ulong)size - 1);
        return (last & ~0xfffUL) == (linear & ~0xfffUL) || Resolve(last & ~0xfffUL, AccessKind.Write, privilege, out _);
    }

    /// <summary>Host pointer of the page holding <paramref name="linearIp"/> (page start) for execution, and its host-physical address; null: fault pending.</summary>
    public byte* FetchPage(ulong linearIp, out ulong physicalPage)
    {
        physicalPage = 0;
        if (cpu.Code64 && !Canonical(linearIp))
        {
            cpu.RaiseGp();
            return null;
        }
        linearIp = Wrap(linearIp);
        Privilege privilege = CurrentPrivilege;
        if (!Resolve(linearIp, AccessKind.Execute, privilege, out Target target))
            return null;
        physicalPage = target.Physical & ~0xfffUL;
        if (target.Special)
            return FetchSpecial(linearIp, target, privilege);
        if (target.Host == null)
            return OpenBusPage();
        cpu.Code.VerifyCode(physicalPage);
        return (byte*)((ulong)target.Host & ~0xfffUL);
    }

    /// <summary>No code is fetched from the guest's virtual APIC: the exit is recorded.</summary>
    private byte* FetchSpecial(ulong linear, in Target target, Privilege privilege)
    {
        ulong unused = 0;
        var access = new NestedAccess(false, false, true, privilege == Privilege.User, false, true, linear, false);
        if (cpu.NonRoot!.SpecialPageAccess(target.Physical, access, 1, ref unused))
            return OpenBusPage();
        cpu.PendingMemoryExit = true;
        return null;
    }

    /// <summary>No RAM to fetch from: the open bus reads FF, which decodes to #UD.</summary>
    private byte* OpenBusPage()
    {
        if (openBusPage == null)
        {
            openBusPage = (byte*)global::System.Runtime.InteropServices.NativeMemory.AlignedAlloc(4096, 4096);
            Unsafe.InitBlock(openBusPage, 0xff, 4096);
        }
        return openBusPage;
    }

    private byte* openBusPage;

    private bool Load(ulong linear, int size, Privilege privilege, bool watch, out ulong value)
    {
        linear = Wrap(linear);
        if ((linear & 0xfff) + (ulong)size > 0x1000)
            return LoadSplit(linear, size, privilege, watch, out value);
        TlbEntry* entry = &current.Table(privilege).Entries[TlbTable.Index(linear)];
        if (entry->ReadTag == (linear & ~0xfffUL))
        {
            value = ReadHost((byte*)(linear + entry->Addend), size);
            return true;
        }
        if (!Resolve(linear, AccessKind.Read, privilege, out Target target) || !LoadTarget(linear, target, size, privilege, out value))
        {
            value = 0;
            return false;
        }
        if (watch && watching)
            CheckWatch(linear, size, write: false);
        return true;
    }

    private bool LoadSplit(ulong linear, int size, Privilege privilege, bool watch, out ulong value)
    {
        int first = 0x1000 - (int)(linear & 0xfff);
        value = 0;
        for (int done = 0; done < size;)
        {
            // Pieces of 1 byte keep every size legal for devices and special pages.
            int piece = 1;
            ulong at = Wrap(linear + (ulong)done);
            if (!Resolve(at, AccessKind.Read, privilege, out Target target))
                return false;
            if (target.Host != null && !target.Special)
                piece = done < first ? first - done : size - done;
            if (target.Host != null && !target.Special)
            {
                for (int i = 0; i < piece; i++)
                    value |= (ulong)target.Host[i] << ((done + i) * 8);
            }
            else
            {
                if (!LoadTarget(at, target, 1, privilege, out ulong part))
                    return false;
                value |= part << (done * 8);
            }
            done += piece;
        }
        if (watch && watching)
            CheckWatch(linear, size, write: false);
        return true;
    }

    private bool LoadTarget(ulong linear, in Target target, int size, Privilege privilege, out ulong value)
    {
        if (target.Special)
        {
            value = 0;
            var access = new NestedAccess(true, false, false, privilege == Privilege.User, false, true, linear, false);
            if (cpu.NonRoot!.SpecialPageAccess(target.Physical, access, size, ref value))
                return true;
            cpu.PendingMemoryExit = true;
            return false;
        }
        value = target.Host != null ? ReadHost(target.Host, size) : cpu.Machine.Bus.ReadMmio(target.Physical, size);
        return true;
    }

    private bool Store(ulong linear, int size, ulong value, Privilege privilege, bool watch)
    {
        linear = Wrap(linear);
        if ((linear & 0xfff) + (ulong)size > 0x1000)
            return StoreSplit(linear, size, value, privilege, watch);
        TlbEntry* entry = &current.Table(privilege).Entries[TlbTable.Index(linear)];
        if (entry->WriteTag == (linear & ~0xfffUL))
        {
            WriteHost((byte*)(linear + entry->Addend), size, value);
            return true;
        }
        if (!Resolve(linear, AccessKind.Write, privilege, out Target target) || !StoreTarget(linear, target, size, value, privilege))
            return false;
        if (watch && watching)
            CheckWatch(linear, size, write: true);
        return true;
    }

    private bool StoreSplit(ulong linear, int size, ulong value, Privilege privilege, bool watch)
    {
        // Both pages are translated before either is written.
        int first = 0x1000 - (int)(linear & 0xfff);
        ulong second = Wrap(linear + (ulong)first);
        if (!Resolve(linear, AccessKind.Write, privilege, out Target low) || !Resolve(second, AccessKind.Write, privilege, out Target high))
            return false;
        for (int i = 0; i < size; i++)
        {
            Target target = i < first ? low : high;
            int delta = i < first ? i : i - first;
            target.Physical += (ulong)delta;
            if (target.Host != null)
                target.Host += delta;
            if (!StoreTarget(Wrap(linear + (ulong)i), target, 1, value >> (i * 8) & 0xff, privilege))
                return false;
        }
        if (watch && watching)
            CheckWatch(linear, size, write: true);
        return true;
    }

    private bool StoreTarget(ulong linear, in Target target, int size, ulong value, Privilege privilege)
    {
        if (target.Special)
        {
            var access = new NestedAccess(false, true, false, privilege == Privilege.User, false, true, linear, false);
            if (cpu.NonRoot!.SpecialPageAccess(target.Physical, access, size, ref value))
                return true;
            cpu.PendingMemoryExit = true;
            return false;
        }
        if (target.Host == null)
        {
            cpu.Machine.Bus.WriteMmio(target.Physical, size, value);
            return true;
        }
        WriteHost(target.Host, size, value);
        if (cpu.Code.IsCodePage(target.Physical))
            cpu.Code.CodeWritten(target.Physical, size);
        return true;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong ReadHost(byte* p, int size) => size switch
    {
        1 => *p,
        2 => Unsafe.ReadUnaligned<ushort>(p),
        4 => Unsafe.ReadUnaligned<uint>(p),
        _ => Unsafe.ReadUnaligned<ulong>(p),
    };

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void WriteHost(byte* p, int size, ulong value)
    {
        switch (size)
        {
            case 1: *p = (byte)value; break;
            case 2: Unsafe.WriteUnaligned(p, (ushort)value); break;
            case 4: Unsafe.WriteUnaligned(p, (uint)value); break;
            default: Unsafe.WriteUnaligned(p, value); break;
        }
    }

    public void Dispose()
    {
        foreach (TlbContext context in contexts)
            context.Dispose();
        global::System.Runtime.InteropServices.NativeMemory.AlignedFree(openBusPage);
        openBusPage = null;
    }
}
