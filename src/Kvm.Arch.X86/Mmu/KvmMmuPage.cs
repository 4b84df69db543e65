namespace Kvm.Arch.X86;

/// <summary>What KVM knows about one table page.</summary>
/// <remarks>struct kvm_mmu_page, mmu/mmu_internal.h, as the TDP MMU uses it.</remarks>
internal sealed unsafe class KvmMmuPage
{
    /// <summary>The table: 512 entries. Its address is its physical address (D1).</summary>
    public ulong* Spt;

    /// <summary>First guest frame that the table maps.</summary>
    public ulong Gfn;
    public int Level;

    /// <summary>The entry that points here; null for a root.</summary>
    public ulong* Ptep;
    public KvmMmuPage? Parent;

    /// <summary>The root of system management mode's address space.</summary>
    public bool Smm;

    /// <summary>A root that no vCPU may load any more.</summary>
    public bool Invalid;

    /// <summary>vCPUs that use this root.</summary>
    public int RootCount;

    /// <summary>Executable frames were split for nx_huge_pages.</summary>
    public bool NxHugePageDisallowed;

    public ulong Address => (ulong)Spt;
}
