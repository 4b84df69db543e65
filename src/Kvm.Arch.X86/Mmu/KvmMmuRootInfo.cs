namespace Kvm.Arch.X86;

/// <summary>A root that the processor can walk, and the guest's own root that it stands for.</summary>
/// <remarks>struct kvm_mmu_root_info, asm/kvm_host.h.</remarks>
internal struct KvmMmuRootInfo
{
    public ulong Pgd;

    /// <summary>INVALID_PAGE when there is none.</summary>
    public ulong Hpa;

    /// <summary>to_shadow_page: null for a root that is not a shadow page, like the four entries of PAE paging.</summary>
    public ShadowPage? Page;

    public static KvmMmuRootInfo Invalid => new() { Hpa = X86Const.INVALID_PAGE, Pgd = X86Const.INVALID_PAGE };

    public readonly bool IsValid => Hpa != X86Const.INVALID_PAGE;

    /// <summary>is_root_usable.</summary>
    public readonly bool Serves(ulong pgd, KvmMmuPageRole role) => (role.Direct || pgd == Pgd) && IsValid && Page is not null && role == Page.Role;
}
