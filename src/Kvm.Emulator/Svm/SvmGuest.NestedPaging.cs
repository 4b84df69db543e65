namespace Kvm.Emulator.Svm;

/// <summary>
/// Nested paging (APM vol 2, "Nested Paging"): host-format tables under nCR3, walked in the paging mode of the host at VMRUN.
/// Every nested access is a user access; accesses to the guest's own page tables are data writes.
/// </summary>
internal sealed unsafe partial class SvmGuest
{
    private const ulong Present = 1, Writable = 2, User = 4, Accessed = 0x20, Dirty = 0x40, LargePage = 0x80, Global = 0x100, NoExecute = 1UL << 63;
    private const uint ErrorPresent = 1, ErrorWrite = 2, ErrorUser = 4, ErrorReserved = 8, ErrorFetch = 0x10;
    private const ulong FinalTranslation = 1UL << 32, TableWalk = 1UL << 33;
    private const ulong AddressMask = 0x000f_ffff_ffff_f000;

    private bool pendingExit;
    private ulong pendingInfo1, pendingGpa;
    private bool pendingBytes;

    /// <summary>Host paging mode as of VMRUN: levels 5, 4 (long), 3 (PAE), 2 (legacy), 0 (paging off: guest-physical is host-physical).</summary>
    private int nestedLevels;
    private bool nestedNx;
    private ulong nestedReserved;

    internal void LoadNestedMode(ulong hostCr0, ulong hostCr4, ulong hostEfer)
    {
        const ulong pg = 1UL << 31, pae = 1 << 5, la57 = 1 << 12, lma = 1 << 10, nxe = 1 << 11;
        if ((hostCr0 & pg) == 0)
            nestedLevels = 0;
        else if ((hostEfer & lma) != 0)
            nestedLevels = (hostCr4 & la57) != 0 ? 5 : 4;
        else
            nestedLevels = (hostCr4 & pae) != 0 ? 3 : 2;
        nestedNx = (hostEfer & nxe) != 0 && nestedLevels >= 3;
        nestedReserved = AddressMask & ~(unit.PhysicalLimit - 1);
        if (!nestedNx)
            nestedReserved |= NoExecute;
    }

    public override bool TranslateGpa(ulong gpa, in NestedAccess access, out NestedTranslation translation)
    {
        if (nestedLevels >= 3)
            return WalkLong(gpa, access, out translation);
        if (nestedLevels == 2)
            return WalkLegacy(gpa, access, out translation);
        translation = new NestedTranslation(gpa, Write: true, Execute: true, Dirty: true, PageSize: 4096);
        return true;
    }

    private bool WalkLong(ulong gpa, in NestedAccess access, out NestedTranslation translation)
    {
        bool write = access.Write || access.PageWalk;
        ulong table = nestedLevels == 3 ? nestedCr3 & 0xffff_ffe0 : nestedCr3 & AddressMask;
        int shift = 12 + (9 * (nestedLevels - 1));
        bool writable = true, executable = true;
        if (nestedLevels < 5 && gpa >> (shift + 9) != 0 && !(nestedLevels == 3 && gpa >> 32 == 0))
            return Fail(gpa, access, write, 0, out translation);
        for (; ; shift -= 9)
        {
            ulong* slot = (ulong*)unit.Physical(table + ((gpa >> shift & 0x1ff) * 8));
            if (slot == null)
                return Fail(gpa, access, write, ErrorPresent | ErrorReserved, out translation);
            ulong entry = Volatile.Read(ref *slot);
            if ((entry & Present) == 0)
                return Fail(gpa, access, write, 0, out translation);
            bool pdpte = nestedLevels == 3 && shift == 30;
            bool leaf = shift == 12 || (!pdpte && (entry & LargePage) != 0);
            if ((entry & ReservedBits(shift, leaf, pdpte)) != 0)
                return Fail(gpa, access, write, ErrorPresent | ErrorReserved, out translation);
            if (!pdpte)
            {
                writable &= (entry & Writable) != 0;
                executable &= (entry & NoExecute) == 0;
                if ((entry & User) == 0 || (write && !writable) || (access.Execute && !executable))
                    return FailAfterLower(gpa, access, write, out translation, slot, entry, shift, leaf);
            }
            if (!leaf)
            {
                if (!pdpte)
                    Mark(slot, entry, Accessed);
                table = entry & AddressMask;
                continue;
            }
            entry = Mark(slot, entry, write ? Accessed | Dirty : Accessed);
            ulong offset = (1UL << shift) - 1;
            translation = new NestedTranslation((entry & AddressMask & ~offset) | (gpa & offset), writable, executable, (entry & Dirty) != 0, offset + 1);
            return true;
        }
    }

    /// <summary>
    /// A rights violation at some level. Rights are the sum over all levels, and a not-present or reserved-bit fault further down comes first
    /// because it ends the walk: P tells the two apart.
    /// </summary>
    private bool FailAfterLower(ulong gpa, in NestedAccess access, bool write, out NestedTranslation translation, ulong* slot, ulong entry, int shift, bool leaf)
    {
        while (!leaf)
        {
            Mark(slot, entry, Accessed);
            shift -= 9;
            slot = (ulong*)unit.Physical((entry & AddressMask) + ((gpa >> shift & 0x1ff) * 8));
            if (slot == null)
                return Fail(gpa, access, write, ErrorPresent | ErrorReserved, out translation);
            entry = Volatile.Read(ref *slot);
            if ((entry & Present) == 0)
                return Fail(gpa, access, write, 0, out translation);
            leaf = shift == 12 || (entry & LargePage) != 0;
            if ((entry & ReservedBits(shift, leaf, false)) != 0)
                return Fail(gpa, access, write, ErrorPresent | ErrorReserved, out translation);
        }
        return Fail(gpa, access, write, ErrorPresent, out translation);
    }

    /// <summary>Bits that must be zero: address bits above MAXPHYADDR, NX without NXE, the page-size bit of upper levels, the low address bits of large pages.</summary>
    private ulong ReservedBits(int shift, bool leaf, bool pdpte)
    {
        ulong reserved = nestedReserved;
        if (pdpte)
            return reserved | NoExecute | 0x1e6;
        if (leaf && shift > 12)
        {
            // Bit 12 of a large-page entry is its PAT bit.
            reserved |= ((1UL << shift) - 1) & ~0x1fffUL;
        }
        // The page-size and global bits of upper levels.
        return shift >= 39 ? reserved | LargePage | Global : reserved;
    }

    private bool WalkLegacy(ulong gpa, in NestedAccess access, out NestedTranslation translation)
    {
        bool write = access.Write || access.PageWalk;
        uint* slot = (uint*)unit.Physical((nestedCr3 & 0xffff_f000) + ((gpa >> 22 & 0x3ff) * 4));
        if (gpa >> 32 != 0 || slot == null)
            return Fail(gpa, access, write, 0, out translation);
        uint directory = Volatile.Read(ref *slot);
        if ((directory & Present) == 0)
            return Fail(gpa, access, write, 0, out translation);
        bool large = (directory & LargePage) != 0;
        bool writable = (directory & Writable) != 0, user = (directory & User) != 0;
        uint entry = directory;
        if (!large)
        {
            Interlocked.Or(ref *slot, (uint)Accessed);
            slot = (uint*)unit.Physical((directory & 0xffff_f000) + ((gpa >> 12 & 0x3ff) * 4));
            entry = slot == null ? 0 : Volatile.Read(ref *slot);
            if ((entry & Present) == 0)
                return Fail(gpa, access, write, 0, out translation);
            writable &= (entry & Writable) != 0;
            user &= (entry & User) != 0;
        }
        if (!user || (write && !writable))
            return Fail(gpa, access, write, ErrorPresent, out translation);
        Interlocked.Or(ref *slot, (uint)(write ? Accessed | Dirty : Accessed));
        ulong frame = large ? (entry & 0xffc0_0000) | ((ulong)(entry >> 13 & 0xff) << 32) | (gpa & 0x3f_f000) : entry & 0xffff_f000;
        translation = new NestedTranslation(frame | (gpa & 0xfff), writable, true, write || (entry & Dirty) != 0, large ? 0x40_0000UL : 0x1000UL);
        return true;
    }

    private static ulong Mark(ulong* slot, ulong entry, ulong bits)
        => (entry & bits) == bits ? entry : Interlocked.Or(ref *slot, bits) | bits;

    private bool Fail(ulong gpa, in NestedAccess access, bool write, uint error, out NestedTranslation translation)
    {
        translation = default;
        error |= ErrorUser;
        if (write)
            error |= ErrorWrite;
        if (access.Execute && !access.PageWalk && nestedNx)
            error |= ErrorFetch;
        pendingExit = true;
        pendingInfo1 = error | (access.PageWalk ? TableWalk : FinalTranslation);
        pendingGpa = gpa;
        pendingBytes = !access.Execute;
        return false;
    }

    public override void TakePendingMemoryExit()
    {
        if (!pendingExit)
            return;
        pendingExit = false;
        unit.Exit(SvmExitCode.Npf, pendingInfo1, pendingGpa, 0, instructionBytes: pendingBytes);
    }

    public override bool IsSpecialPage(ulong hpa) => false;
    public override bool SpecialPageAccess(ulong hpa, in NestedAccess access, int size, ref ulong value) => true;
}
