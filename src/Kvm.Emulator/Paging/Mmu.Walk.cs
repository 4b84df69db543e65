using System.Runtime.CompilerServices;

namespace Kvm.Emulator;

public sealed unsafe partial class Mmu
{
    private const ulong P = 1, RW = 2, US = 4, A = 0x20, D = 0x40, PS = 0x80, G = 0x100, NX = 1UL << 63;

    /// <summary>#PF error-code bits.</summary>
    internal const uint ErrorPresent = 1, ErrorWrite = 2, ErrorUser = 4, ErrorReserved = 8, ErrorFetch = 0x10, ErrorProtectionKey = 0x20;

    private readonly ulong physicalMask;
    private readonly ulong reservedPhysical;
    /// <summary>Reserved bits of PML4 and PML5 entries: page size, and on AMD the bit that is G elsewhere.</summary>
    private readonly ulong reservedUpper;
    private readonly bool gigabytePages, pse36;

    /// <summary>Where an access ends: host pointer of the byte, or null for a device; Special pages belong to the guest's virtual APIC.</summary>
    private struct Target
    {
        public byte* Host;
        public ulong Physical;
        public bool Special;
    }

    /// <summary>Result of a page walk: guest-physical address, combined rights of all levels, state of the leaf.</summary>
    private struct Walked
    {
        public ulong Gpa;
        public bool Writable, User, NoExecute, Dirty, Global;
        public int SizeShift;
        /// <summary>PKRU bits of the page's protection key: access disable, write disable. 0 where keys do not apply.</summary>
        public uint KeyRights;
    }

    /// <summary>One paging-structure entry on the way, to set its accessed and dirty bits.</summary>
    private struct Entry
    {
        public ulong Gpa;
        public ulong Value;
        public byte* Host;
    }

    /// <summary>Translates a linear address for one access, checks rights, sets A and D, goes through EPT/NPT, fills the TLB where that is allowed.</summary>
    private bool Resolve(ulong linear, AccessKind kind, Privilege privilege, out Target target)
    {
        target = default;
        bool write = kind is AccessKind.Write or AccessKind.ReadWrite;
        bool execute = kind == AccessKind.Execute;
        Walked walk;
        if ((state->Cr0 & Cr0.PG) == 0)
            walk = new Walked { Gpa = linear, Writable = true, User = true, Dirty = true, SizeShift = 12 };
        else if (!Walk(linear, write, execute, privilege, out walk))
            return false;

        NonRootMode? guest = cpu.NonRoot;
        ulong physical = walk.Gpa;
        bool nestedRead = true, nestedWrite = true;
        if (guest is not null)
        {
            if (guest.NestedPaging)
            {
                byte rights = (byte)((walk.User ? 1 : 0) | (walk.Writable ? 2 : 0) | (walk.NoExecute ? 4 : 0));
                var access = new NestedAccess(kind is AccessKind.Read or AccessKind.ReadWrite, write, execute, privilege == Privilege.User, false, true, linear, false, rights);
                if (!guest.TranslateGpa(walk.Gpa, access, out NestedTranslation nested))
                {
                    cpu.PendingMemoryExit = true;
                    return false;
                }
                physical = nested.Hpa;
                nestedRead = nested.Read;
                nestedWrite = nested.Write && nested.Dirty;
            }
            if (guest.IsSpecialPage(physical & ~0xfffUL))
            {
                target.Physical = physical;
                target.Special = true;
                return true;
            }
        }
        target.Physical = physical;
        target.Host = memory.Pointer(physical);
        if (target.Host != null)
        {
            bool watched = Watched(linear);
            FillTlb(linear, walk, privilege, target, execute, nestedRead && !watched, nestedWrite && !watched);
        }
        return true;
    }

    private void FillTlb(ulong linear, in Walked walk, Privilege privilege, in Target target, bool execute, bool nestedRead, bool nestedWrite)
    {
        bool paging = (state->Cr0 & Cr0.PG) != 0;
        bool read = nestedRead && (!paging || MayRead(walk, privilege));
        bool write = nestedWrite && walk.Dirty && (!paging || MayWrite(walk, privilege)) && !cpu.Code.IsCodePage(target.Physical);
        ulong page = linear & ~0xfffUL;
        current.Table(privilege).Fill(page, (ulong)target.Host - linear, read, write, execute, walk.Global, walk.SizeShift);
    }

    private bool MayRead(in Walked walk, Privilege privilege) => privilege switch
    {
        Privilege.User => walk.User,
        Privilege.Supervisor => !walk.User || (state->Cr4 & Cr4.SMAP) == 0,
        _ => true,
    } && (walk.KeyRights & KeyAccessDisable) == 0;

    private bool MayWrite(in Walked walk, Privilege privilege)
        => MayRead(walk, privilege) && ((walk.Writable && (walk.KeyRights & KeyWriteDisable) == 0) || WritesEverywhere(privilege));

    /// <summary>Supervisor writes with CR0.WP = 0 ignore read-only pages and the write-disable bits of protection keys.</summary>
    private bool WritesEverywhere(Privilege privilege) => privilege != Privilege.User && (state->Cr0 & Cr0.WP) == 0;

    private bool MayExecute(in Walked walk, Privilege privilege)
        => !walk.NoExecute && (privilege == Privilege.User ? walk.User : !walk.User || (state->Cr4 & Cr4.SMEP) == 0);

    /// <remarks>SDM vol 3A, chapter "Paging": "4-Level Paging and 5-Level Paging", "PAE Paging", "32-Bit Paging", "Access Rights", "Page-Fault Exceptions".</remarks>
    private bool Walk(ulong linear, bool write, bool execute, Privilege privilege, out Walked walk)
    {
        Entry* entries = stackalloc Entry[5];
        while (true)
        {
            int count;
            uint error = ErrorBits(write, execute, privilege);
            int result = (state->Cr4 & Cr4.PAE) == 0
                ? Walk32(linear, error, entries, out count, out walk)
                : Walk64(linear, error, entries, out count, out walk);
            if (result == 0)
                return false;
            bool allowed = execute ? MayExecute(walk, privilege) : write ? MayWrite(walk, privilege) : MayRead(walk, privilege);
            if (!allowed)
                return PageFault(error | ErrorPresent | (execute ? 0 : KeyError(walk, write, privilege)), linear);
            // The walk starts over when another processor changed an entry between reading it and setting its bits.
            int updated = UpdateAccessedDirty(linear, write, privilege, entries, count, (state->Cr4 & Cr4.PAE) == 0);
            if (updated < 0)
                return false;
            if (updated == 0)
                continue;
            walk.Dirty |= write;
            return true;
        }
    }

    private uint ErrorBits(bool write, bool execute, Privilege privilege)
    {
        uint error = (write ? ErrorWrite : 0) | (privilege == Privilege.User ? ErrorUser : 0);
        bool reportFetch = (state->Cr4 & Cr4.SMEP) != 0 || ((state->Efer & Efer.NXE) != 0 && (state->Cr4 & Cr4.PAE) != 0);
        return execute && reportFetch ? error | ErrorFetch : error;
    }

    private bool PageFault(uint error, ulong linear)
    {
        cpu.Raise(Fault.Page(error, linear));
        return false;
    }

    private int Walk64(ulong linear, uint error, Entry* entries, out int count, out Walked walk)
    {
        walk = new Walked { Writable = true, User = true };
        count = 0;
        bool longMode = (state->Efer & Efer.LMA) != 0;
        ulong reserved = reservedPhysical | ((state->Efer & Efer.NXE) != 0 ? 0 : NX);
        ulong table;
        int level;
        if (longMode)
        {
            level = (state->Cr4 & Cr4.LA57) != 0 ? 5 : 4;
            table = state->Cr3 & physicalMask & ~0xfffUL;
        }
        else
        {
            reserved |= 0x7ff0_0000_0000_0000UL;
            ulong pdpte = state->Pdpte[(linear >> 30) & 3];
            if (PdpteFromMemory && !ReadPdpte((int)(linear >> 30) & 3, linear, out pdpte))
                return 0;
            if ((pdpte & P) == 0)
                return Fails(error, linear);
            if (PdpteFromMemory && (pdpte & PdpteReserved) != 0)
                return Fails(error | ErrorPresent | ErrorReserved, linear);
            table = pdpte & physicalMask & ~0xfffUL;
            level = 2;
        }
        for (; ; level--)
        {
            int shift = 3 + (level * 9);
            ref Entry entry = ref entries[count++];
            entry.Gpa = table + ((linear >> shift & 0x1ff) << 3);
            if (!ReadEntry(ref entry, 8, linear, error))
                return 0;
            ulong value = entry.Value;
            if ((value & P) == 0)
                return Fails(error, linear);
            bool leaf = level == 1 || (level <= 3 && (value & PS) != 0);
            ulong mustBeZero = reserved;
            if (level >= 4)
                mustBeZero |= reservedUpper;
            else if (level == 3 && !gigabytePages)
                mustBeZero |= PS;
            else if (leaf && level > 1)
                mustBeZero |= (1UL << shift) - 1 & ~0x1fffUL;
            if ((value & mustBeZero) != 0)
                return Fails(error | ErrorPresent | ErrorReserved, linear);
            walk.Writable &= (value & RW) != 0;
            walk.User &= (value & US) != 0;
            walk.NoExecute |= (value & NX) != 0;
            if (leaf)
            {
                ulong pageMask = (1UL << shift) - 1;
                walk.Gpa = (value & physicalMask & ~pageMask & ~0xfffUL) | (linear & pageMask);
                walk.Dirty = (value & D) != 0;
                walk.Global = (value & G) != 0 && (state->Cr4 & Cr4.PGE) != 0;
                walk.SizeShift = shift;
                walk.KeyRights = KeyRights(value, walk.User);
                return 1;
            }
            table = value & physicalMask & ~0xfffUL;
        }
    }

    private int Walk32(ulong linear, uint error, Entry* entries, out int count, out Walked walk)
    {
        walk = new Walked { Writable = true, User = true };
        count = 1;
        entries[0].Gpa = (state->Cr3 & 0xffff_f000) + ((linear >> 22) << 2);
        if (!ReadEntry(ref entries[0], 4, linear, error))
            return 0;
        ulong pde = entries[0].Value;
        if ((pde & P) == 0)
            return Fails(error, linear);
        walk.Writable = (pde & RW) != 0;
        walk.User = (pde & US) != 0;
        ulong leaf = pde;
        if ((pde & PS) != 0 && (state->Cr4 & Cr4.PSE) != 0)
        {
            // Bits 20:13 are address bits 39:32 with PSE-36, as far as the processor has them; bit 21 is reserved, without PSE-36 all of them are.
            ulong high = (pde >> 13 & 0xff) << 32;
            if ((pde & 1UL << 21) != 0 || (high & ~physicalMask) != 0 || (high != 0 && !pse36))
                return Fails(error | ErrorPresent | ErrorReserved, linear);
            walk.Gpa = high | (pde & 0xffc0_0000) | (linear & 0x3f_ffff);
            walk.SizeShift = 22;
        }
        else
        {
            count = 2;
            entries[1].Gpa = (pde & 0xffff_f000) + ((linear >> 12 & 0x3ff) << 2);
            if (!ReadEntry(ref entries[1], 4, linear, error))
                return 0;
            leaf = entries[1].Value;
            if ((leaf & P) == 0)
                return Fails(error, linear);
            walk.Writable &= (leaf & RW) != 0;
            walk.User &= (leaf & US) != 0;
            walk.Gpa = (leaf & 0xffff_f000) | (linear & 0xfff);
            walk.SizeShift = 12;
        }
        walk.Dirty = (leaf & D) != 0;
        walk.Global = (leaf & G) != 0 && (state->Cr4 & Cr4.PGE) != 0;
        return 1;
    }

    private int Fails(uint error, ulong linear)
    {
        PageFault(error, linear);
        return 0;
    }

    /// <summary>Reads a paging-structure entry at a (guest-)physical address.</summary>
    private bool ReadEntry(ref Entry entry, int size, ulong linear, uint error)
    {
        if (!TableAddress(entry.Gpa, write: false, linear, (error & ErrorUser) != 0, out ulong physical))
            return false;
        entry.Host = memory.Pointer(physical);
        if (entry.Host == null)
            entry.Value = cpu.Machine.Bus.ReadMmio(physical, size);
        else
            entry.Value = size == 8 ? Volatile.Read(ref Unsafe.AsRef<ulong>(entry.Host)) : Volatile.Read(ref Unsafe.AsRef<uint>(entry.Host));
        return true;
    }

    private bool TableAddress(ulong gpa, bool write, ulong linear, bool user, out ulong physical, bool linearValid = true)
    {
        physical = gpa;
        if (cpu.NonRoot is not { } guest)
            return true;
        var access = new NestedAccess(true, write, false, user, true, linearValid, linear, write);
        if (guest.NestedPaging)
        {
            if (!guest.TranslateGpa(gpa, access, out NestedTranslation nested))
            {
                cpu.PendingMemoryExit = true;
                return false;
            }
            physical = nested.Hpa;
        }
        ulong unused = 0;
        if (!guest.IsSpecialPage(physical & ~0xfffUL) || guest.SpecialPageAccess(physical, access, 4, ref unused))
            return true;
        cpu.PendingMemoryExit = true;
        return false;
    }

    // ---- protection keys ----

    private const uint KeyAccessDisable = 1, KeyWriteDisable = 2;

    /// <summary>The two PKRU bits of a leaf's key. Keys govern data accesses to user pages in IA-32e mode with CR4.PKE.</summary>
    /// <remarks>SDM vol 3A, "Protection Keys".</remarks>
    private uint KeyRights(ulong leaf, bool userPage)
        => (state->Cr4 & Cr4.PKE) != 0 && userPage && (state->Efer & Efer.LMA) != 0 ? state->Pkru >> ((int)(leaf >> 59 & 0xf) * 2) & 3 : 0;

    private uint KeyError(in Walked walk, bool write, Privilege privilege)
        => (walk.KeyRights & KeyAccessDisable) != 0 || (write && (walk.KeyRights & KeyWriteDisable) != 0 && !WritesEverywhere(privilege)) ? ErrorProtectionKey : 0;

    /// <summary>Sets accessed bits on the way and the leaf's dirty bit. 1: done, 0: an entry changed meanwhile, -1: exit pending.</summary>
    private int UpdateAccessedDirty(ulong linear, bool write, Privilege privilege, Entry* entries, int count, bool narrow)
    {
        for (int i = 0; i < count; i++)
        {
            ref Entry entry = ref entries[i];
            ulong wanted = entry.Value | A | (write && i == count - 1 ? D : 0);
            if (wanted == entry.Value || entry.Host == null)
                continue;
            if (!TableAddress(entry.Gpa, write: true, linear, privilege == Privilege.User, out ulong physical))
                return -1;
            byte* host = memory.Pointer(physical);
            if (host == null)
                continue;
            bool unchanged = narrow
                ? Interlocked.CompareExchange(ref Unsafe.AsRef<uint>(host), (uint)wanted, (uint)entry.Value) == (uint)entry.Value
                : Interlocked.CompareExchange(ref Unsafe.AsRef<ulong>(host), wanted, entry.Value) == entry.Value;
            if (!unchanged)
                return 0;
            if (cpu.Code.IsCodePage(physical))
                cpu.Code.CodeWritten(physical, narrow ? 4 : 8);
        }
        return 1;
    }

    // ---- PDPTE registers ----

    private ulong PdpteReserved => reservedPhysical | 0xfff0_0000_0000_01e6UL;

    /// <summary>AMD guests with nested paging have no PDPTE registers: each walk reads the entry, reserved bits fault.</summary>
    private bool PdpteFromMemory => cpu.Model.Vendor == CpuVendor.Amd && cpu.NonRoot is { NestedPaging: true };

    private bool ReadPdpte(int index, ulong linear, out ulong value)
    {
        var entry = new Entry { Gpa = (state->Cr3 & 0xffff_ffe0) + (ulong)(index * 8) };
        bool ok = ReadEntry(ref entry, 8, linear, 0);
        value = entry.Value;
        return ok;
    }

    /// <summary>
    /// Loads the PDPTE registers from the table at <paramref name="cr3"/>. False: a present entry has reserved bits (the caller raises #GP(0)), or,
    /// with Processor.PendingMemoryExit set, EPT/NPT denied the read.
    /// </summary>
    public bool LoadPdptes(ulong cr3)
    {
        cpu.PendingMemoryExit = false;
        if (PdpteFromMemory)
            return true;
        ulong* loaded = stackalloc ulong[4];
        for (int i = 0; i < 4; i++)
        {
            if (!TableAddress((cr3 & 0xffff_ffe0) + (ulong)(i * 8), write: false, 0, user: false, out ulong physical, linearValid: false))
                return false;
            byte* host = memory.Pointer(physical);
            loaded[i] = host == null ? cpu.Machine.Bus.ReadMmio(physical, 8) : Unsafe.ReadUnaligned<ulong>(host);
            if ((loaded[i] & P) != 0 && (loaded[i] & PdpteReserved) != 0)
                return false;
        }
        for (int i = 0; i < 4; i++)
            state->Pdpte[i] = loaded[i];
        return true;
    }
}
