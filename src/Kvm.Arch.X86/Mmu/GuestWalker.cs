namespace Kvm.Arch.X86;

/// <summary>The result of one walk through the guest's page tables: the entries that were read, where they lie, and what they allow.</summary>
/// <remarks>struct guest_walker, mmu/paging_tmpl.h. Arrays are by level - 1.</remarks>
internal unsafe struct GuestWalker
{
    /// <summary>PTE_PREFETCH_NUM.</summary>
    public const int PrefetchNum = 8;

    /// <summary>Where the walk ended: 1, or the level of a large page.</summary>
    public int Level;

    /// <summary>Where it began, without the directory pointers of PAE.</summary>
    public int MaxLevel;
    public fixed ulong TableGfn[5];
    public fixed ulong Ptes[5];
    public fixed ulong PrefetchPtes[PrefetchNum];
    public fixed ulong PteGpa[5];

    /// <summary>Process address of each entry.</summary>
    public fixed ulong PteHva[5];
    public fixed bool PteWritable[5];

    /// <summary>ACC_* that the tables above the level allow.</summary>
    public fixed uint PtAccess[5];

    /// <summary>ACC_* of the whole translation; without write access while the entry is clean.</summary>
    public uint PteAccess;

    /// <summary>The frame that the address lies in.</summary>
    public ulong Gfn;
    public X86Exception Fault;
}
