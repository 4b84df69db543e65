namespace Kvm.Emulator.Tests;

/// <summary>How linear addresses become physical ones, as the test machine is set up.</summary>
public enum PagingMode { Legacy32, Pae, FourLevel, FiveLevel }

/// <summary>What is done to memory.</summary>
public enum MemoryAccess { Read, Write, Fetch }

/// <summary>By whom: user mode, supervisor mode, or the processor itself (descriptor tables).</summary>
public enum MemoryAccessor { User, Supervisor, Implicit }

/// <summary>Everything that the outcome of an access depends on, besides the paging-structure entries.</summary>
public sealed record PagingSetup(PagingMode Mode)
{
    public bool Wp { get; init; }
    public bool Nxe { get; init; }
    public bool Smep { get; init; }
    public bool Smap { get; init; }
    public bool Ac { get; init; }
    public bool Pse { get; init; } = true;
    public bool Pse36 { get; init; } = true;
    public bool Gigabyte { get; init; } = true;
    public bool Pke { get; init; }
    public uint Pkru { get; init; }
    public bool Amd { get; init; }
    public int PhysicalBits { get; init; } = 40;
}

/// <summary>
/// Says what the manual says of an access: allowed, or the error code of its page fault. Written from the tables of SDM vol 3A, chapter "Paging", apart from the emulator's walk.
/// </summary>
public static class PagingOracle
{
    public const uint Present = 1, WriteBit = 2, UserBit = 4, Reserved = 8, FetchBit = 16, Key = 32;

    /// <summary>Entries from the root down; the walk ends at the first that maps a page. Null: allowed.</summary>
    public static uint? Fault(PagingSetup s, IReadOnlyList<ulong> entries, MemoryAccess access, MemoryAccessor accessor)
    {
        uint code = (access == MemoryAccess.Write ? WriteBit : 0) | (accessor == MemoryAccessor.User ? UserBit : 0);
        if (access == MemoryAccess.Fetch && ((s.Nxe && s.Mode != PagingMode.Legacy32) || s.Smep))
            code |= FetchBit;
        bool writable = true, userPage = true, executable = true;
        int level = Levels(s.Mode);
        ulong leaf = 0;
        foreach (ulong entry in entries)
        {
            if (!Bit(entry, 0))
                return code;
            bool maps = Maps(s, level, entry);
            if ((entry & ReservedBits(s, level, maps)) != 0)
                return code | Present | Reserved;
            writable &= Bit(entry, 1);
            userPage &= Bit(entry, 2);
            executable &= !(s.Nxe && s.Mode != PagingMode.Legacy32 && Bit(entry, 63));
            leaf = entry;
            level--;
            if (maps)
                break;
        }
        bool allowed = access == MemoryAccess.Fetch ? MayFetch(s, accessor, userPage, executable) : MayAccess(s, accessor, access, userPage, writable);
        bool keyDenies = access != MemoryAccess.Fetch && KeyDenies(s, leaf, accessor, access, userPage);
        if (allowed && !keyDenies)
            return null;
        return code | Present | (keyDenies ? Key : 0);
    }

    /// <summary>Levels of tables that a walk reads (PAE's pointers are registers).</summary>
    public static int Levels(PagingMode mode) => mode switch { PagingMode.FiveLevel => 5, PagingMode.FourLevel => 4, _ => 2 };

    private static bool Bit(ulong value, int bit) => (value >> bit & 1) != 0;

    /// <summary>The entry maps a page: level 1, or the page-size bit where it counts.</summary>
    public static bool Maps(PagingSetup s, int level, ulong entry) => level switch
    {
        1 => true,
        2 => Bit(entry, 7) && (s.Mode != PagingMode.Legacy32 || s.Pse),
        3 => Bit(entry, 7) && s.Gigabyte,
        _ => false,
    };

    /// <summary>Tables "Format of …" of the chapter: bits that must be 0.</summary>
    private static ulong ReservedBits(PagingSetup s, int level, bool maps)
    {
        if (s.Mode == PagingMode.Legacy32)
        {
            if (level != 2 || !maps)
                return 0;
            return s.Pse36 ? Range(21, 21) | Range(Math.Min(s.PhysicalBits, 40) - 19, 20) : Range(13, 21);
        }
        ulong reserved = Range(s.PhysicalBits, 51);
        if (!s.Nxe)
            reserved |= Range(63, 63);
        if (s.Mode == PagingMode.Pae)
            reserved |= Range(52, 62);
        if (level == 2 && maps)
            reserved |= Range(13, 20);
        if (level == 3)
            reserved |= maps ? Range(13, 29) : s.Gigabyte ? 0 : Range(7, 7);
        if (level >= 4)
            reserved |= Range(7, 7) | (s.Amd ? Range(8, 8) : 0);
        return reserved;
    }

    private static ulong Range(int low, int high) => low > high ? 0 : (ulong.MaxValue >> (63 - high)) & (ulong.MaxValue << low);

    // "Determination of Access Rights".
    private static bool MayAccess(PagingSetup s, MemoryAccessor accessor, MemoryAccess access, bool userPage, bool writable)
    {
        bool write = access == MemoryAccess.Write;
        if (accessor == MemoryAccessor.User)
            return userPage && (!write || writable);
        if (userPage && s.Smap && !(s.Ac && accessor == MemoryAccessor.Supervisor))
            return false;
        return !write || writable || !s.Wp;
    }

    private static bool MayFetch(PagingSetup s, MemoryAccessor accessor, bool userPage, bool executable)
        => executable && (accessor == MemoryAccessor.User ? userPage : !userPage || !s.Smep);

    // "Protection Keys".
    private static bool KeyDenies(PagingSetup s, ulong leaf, MemoryAccessor accessor, MemoryAccess access, bool userPage)
    {
        if (!s.Pke || !userPage || s.Mode < PagingMode.FourLevel)
            return false;
        uint rights = s.Pkru >> ((int)(leaf >> 59 & 15) * 2);
        bool accessDisable = (rights & 1) != 0, writeDisable = (rights & 2) != 0;
        return accessDisable || (writeDisable && access == MemoryAccess.Write && (accessor == MemoryAccessor.User || s.Wp));
    }
}
