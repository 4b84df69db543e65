namespace Kvm.Arch.X86;

/// <summary>One table of shadow paging: what it shadows, who points to it, and what is out of date below it. All under the VM's mmu_lock.</summary>
/// <remarks>struct kvm_mmu_page, mmu/mmu_internal.h.</remarks>
internal sealed unsafe class ShadowPage
{
    /// <summary>512 entries; the address is the physical address (D1).</summary>
    public ulong* Spt;

    /// <summary>Frame and ACC_* rights of the guest's translation behind each entry; null for direct pages.</summary>
    public ulong* ShadowedTranslation;

    /// <summary>The guest's table, or the first frame that a direct page maps.</summary>
    public ulong Gfn;
    public KvmMmuPageRole Role;

    /// <summary>The guest can write its table behind the page's back; level 1 only.</summary>
    public bool Unsync;
    public byte MmuValidGen;

    /// <summary>Executable frames were split for nx_huge_pages.</summary>
    public bool NxHugePageDisallowed;

    /// <summary>vCPUs that have the page as (or among) their roots.</summary>
    public int RootCount;

    /// <summary>Bits set in <see cref="UnsyncChildBitmap"/>.</summary>
    public int UnsyncChildren;

    /// <summary>Entries below which something is out of sync.</summary>
    public readonly ulong[] UnsyncChildBitmap = new ulong[8];

    /// <summary>Head of the list of entries that point here.</summary>
    public ulong ParentPtes;

    /// <summary>Emulated writes since the page was last walked.</summary>
    public int WriteFloodingCount;

    public ShadowPage? HashNext;

    // ---- active_mmu_pages: newest first ----
    public ShadowPage? Newer;
    public ShadowPage? Older;
    public bool OnActiveList;

    /// <summary>The next page to be freed.</summary>
    public ShadowPage? NextInvalid;

    public ulong Address => (ulong)Spt;

    /// <summary>sp_has_gptes: a guest table is behind it.</summary>
    public bool HasGptes => !Role.Direct && !Role.Passthrough;

    /// <summary>kvm_mmu_page_get_gfn.</summary>
    public ulong GfnOf(int index)
    {
        if (Role.Passthrough)
            return Gfn;
        return Role.Direct ? Gfn + ((ulong)index << ((Role.Level - 1) * 9)) : ShadowedTranslation[index] >> 12;
    }

    /// <summary>kvm_mmu_page_get_access: the rights of the guest's own translation.</summary>
    public uint AccessOf(int index) => HasGptes ? (uint)ShadowedTranslation[index] & X86Const.ACC_ALL : Role.Access;

    /// <summary>kvm_mmu_page_set_translation.</summary>
    public void SetTranslation(int index, ulong gfn, uint access)
    {
        if (HasGptes)
            ShadowedTranslation[index] = (gfn << 12) | access;
    }

    /// <summary>Ready for another use.</summary>
    public void Clear()
    {
        Spt = null;
        ShadowedTranslation = null;
        Role = default;
        Unsync = false;
        NxHugePageDisallowed = false;
        RootCount = 0;
        UnsyncChildren = 0;
        Array.Clear(UnsyncChildBitmap);
        ParentPtes = 0;
        WriteFloodingCount = 0;
        HashNext = null;
        NextInvalid = null;
    }

    /// <summary>KVM_MMU_PAGE_PRINTK.</summary>
    public override string ToString() => $"sp gen {MmuValidGen} gfn {Gfn:x} {Role.Describe()} root {RootCount} {(Unsync ? "unsync" : "sync")}";
}
