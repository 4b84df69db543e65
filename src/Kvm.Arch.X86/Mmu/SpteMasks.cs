using Kvm.Core.Tracing;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <summary>The bits of the entries that KVM writes into the tables the processor walks for guests: EPT or NPT format, KVM's own software bits, MMIO entries.</summary>
/// <remarks>mmu/spte.c, mmu/spte.h.</remarks>
public sealed class SpteMasks
{
    public const ulong PT_PRESENT_MASK = 1ul << 0;
    public const ulong PT_WRITABLE_MASK = 1ul << 1;
    public const ulong PT_USER_MASK = 1ul << 2;
    public const ulong PT_ACCESSED_MASK = 1ul << 5;
    public const ulong PT_DIRTY_MASK = 1ul << 6;
    public const ulong PT_PAGE_SIZE_MASK = 1ul << 7;
    public const ulong PT64_NX_MASK = 1ul << 63;

    /// <summary>Set in every present entry: present to KVM, whatever the hardware's present bit says.</summary>
    public const ulong SPTE_MMU_PRESENT_MASK = 1ul << 11;
    public const ulong SPTE_TDP_AD_MASK = 3ul << 52;
    public const ulong SPTE_TDP_AD_DISABLED_MASK = 1ul << 52;
    public const ulong SPTE_TDP_AD_WRPROT_ONLY_MASK = 2ul << 52;
    public const ulong SPTE_BASE_ADDR_MASK = 0x000ffffffffff000;

    public const ulong DEFAULT_SPTE_HOST_WRITABLE = 1ul << 9;
    public const ulong DEFAULT_SPTE_MMU_WRITABLE = 1ul << 10;
    public const ulong EPT_SPTE_HOST_WRITABLE = 1ul << 57;
    public const ulong EPT_SPTE_MMU_WRITABLE = 1ul << 58;

    public const ulong VMX_EPT_READABLE_MASK = 1;
    public const ulong VMX_EPT_WRITABLE_MASK = 2;
    public const ulong VMX_EPT_EXECUTABLE_MASK = 4;
    public const ulong VMX_EPT_RWX_MASK = 7;
    public const ulong VMX_EPT_ACCESS_BIT = 1ul << 8;
    public const ulong VMX_EPT_DIRTY_BIT = 1ul << 9;
    public const ulong VMX_EPT_IPAT_BIT = 1ul << 6;
    public const ulong VMX_EPT_MT_MASK = 7ul << 3;

    /// <summary>Writable and executable but not readable: a misconfiguration on every processor.</summary>
    public const ulong VMX_EPT_MISCONFIG_WX_VALUE = VMX_EPT_WRITABLE_MASK | VMX_EPT_EXECUTABLE_MASK;

    private const int GenLowBits = 8;
    private const int GenLowShift = 3;
    private const int GenHighBits = 11;
    private const int GenHighShift = 52;

    /// <summary>Bits of the memslots' generation that an MMIO entry keeps.</summary>
    public const ulong MMIO_SPTE_GEN_MASK = (1ul << (GenLowBits + GenHighBits)) - 1;

    /// <summary>Width of <see cref="NonpresentOrRsvd"/> (SHADOW_NONPRESENT_OR_RSVD_MASK_LEN).</summary>
    private const int NonpresentOrRsvdBits = 5;

    private readonly X86Arch arch;
    private bool mmioCaching;

    internal SpteMasks(X86Arch arch) => this.arch = arch;

    public ulong User { get; private set; }
    public ulong Accessed { get; private set; }
    public ulong Dirty { get; private set; }
    public ulong Nx { get; private set; }
    public ulong X { get; private set; }
    public ulong Present { get; private set; }
    public ulong Memtype { get; private set; }
    public ulong AccTrack { get; private set; }
    public ulong HostWritable { get; private set; }
    public ulong MmuWritable { get; private set; }
    public ulong MeValue { get; private set; }
    public ulong MeMask { get; private set; }
    public ulong MmioValue { get; private set; }
    public ulong MmioMask { get; private set; }
    public uint MmioAccessMask { get; private set; }

    /// <summary>
    /// shadow_nonpresent_or_rsvd_mask: on processors that L1TF concerns, address bits that are set in entries that are not present, so that they point to no
    /// memory that a cache could hold; what the frame has there is moved up.
    /// </summary>
    public ulong NonpresentOrRsvd { get; private set; }

    private ulong lowerGfn = SPTE_BASE_ADDR_MASK;

    /// <summary>enable_mmio_caching.</summary>
    public bool MmioCaching => mmioCaching;

    /// <summary>kvm_ad_enabled: the hardware keeps accessed and dirty bits in these tables.</summary>
    public bool AdEnabled => Accessed != 0;

    [KernelFunction("kvm_mmu_spte_module_init", File = "arch/x86/kvm/mmu/spte.c")]
    internal void ModuleInit()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_spte_module_init");
        mmioCaching = arch.Params.MmioCaching;
    }

    /// <summary>Ordinary page-table format: what NPT uses.</summary>
    [KernelFunction("kvm_mmu_reset_all_pte_masks", File = "arch/x86/kvm/mmu/spte.c")]
    internal void ResetAllPteMasks()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_reset_all_pte_masks");
        mmioCaching = arch.Params.MmioCaching;
        CpuInfoX86 cpu = arch.HostX86.BootCpuData;
        int lowBits = cpu.PhysBits;
        NonpresentOrRsvd = 0;
        if (cpu.HasBug(X86Bug.L1TF) && cpu.CacheBits < 52 - NonpresentOrRsvdBits)
        {
            lowBits = cpu.CacheBits - NonpresentOrRsvdBits;
            NonpresentOrRsvd = ((1ul << NonpresentOrRsvdBits) - 1) << lowBits;
        }

        lowerGfn = (1ul << lowBits) - 0x1000;
        User = PT_USER_MASK;
        Accessed = PT_ACCESSED_MASK;
        Dirty = PT_DIRTY_MASK;
        Nx = PT64_NX_MASK;
        X = 0;
        Present = PT_PRESENT_MASK;
        Memtype = 0;
        AccTrack = 0;
        MeValue = MeMask = 0;
        HostWritable = DEFAULT_SPTE_HOST_WRITABLE;
        MmuWritable = DEFAULT_SPTE_MMU_WRITABLE;

        // A reserved physical-address bit makes the processor report MMIO; with 52 bits of address there is none.
        ulong mask = arch.HostX86.BootCpuData.PhysBits < 52 ? (1ul << 51) | PT_PRESENT_MASK : 0;
        SetMmioSpteMask(mask, mask, ACC_WRITE_MASK | ACC_USER_MASK);
    }

    /// <summary>EPT format.</summary>
    [KernelFunction("kvm_mmu_set_ept_masks", File = "arch/x86/kvm/mmu/spte.c")]
    public void SetEptMasks(bool hasAdBits, bool hasExecOnly)
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_set_ept_masks");
        User = VMX_EPT_READABLE_MASK;
        Accessed = hasAdBits ? VMX_EPT_ACCESS_BIT : 0;
        Dirty = hasAdBits ? VMX_EPT_DIRTY_BIT : 0;
        Nx = 0;
        X = VMX_EPT_EXECUTABLE_MASK;
        Present = hasExecOnly ? 0 : VMX_EPT_READABLE_MASK;
        Memtype = VMX_EPT_MT_MASK | VMX_EPT_IPAT_BIT;
        AccTrack = VMX_EPT_RWX_MASK;
        HostWritable = EPT_SPTE_HOST_WRITABLE;
        MmuWritable = EPT_SPTE_MMU_WRITABLE;
        SetMmioSpteMask(VMX_EPT_MISCONFIG_WX_VALUE, VMX_EPT_RWX_MASK, 0);
    }

    [KernelFunction("kvm_mmu_set_mmio_spte_mask", File = "arch/x86/kvm/mmu/spte.c")]
    public void SetMmioSpteMask(ulong mmioValue, ulong mmioMask, uint accessMask)
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_set_mmio_spte_mask");
        mmioCaching = arch.Params.MmioCaching;
        // The value must leave room for the part of the frame that is moved up.
        if (!mmioCaching || (mmioValue & (NonpresentOrRsvd << NonpresentOrRsvdBits)) != 0)
            mmioValue = 0;
        if (mmioValue == 0)
            mmioCaching = false;
        MmioValue = mmioValue;
        MmioMask = mmioMask;
        MmioAccessMask = accessMask;
    }

    /// <summary>Memory-encryption bits; none in this machine.</summary>
    [KernelFunction("kvm_mmu_set_me_spte_mask", File = "arch/x86/kvm/mmu/spte.c")]
    public void SetMeSpteMask(ulong meValue, ulong meMask)
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_set_me_spte_mask");
        MeValue = meValue;
        MeMask = meMask;
    }

    public static bool IsShadowPresent(ulong spte) => (spte & SPTE_MMU_PRESENT_MASK) != 0;

    public static bool IsLarge(ulong spte) => (spte & PT_PAGE_SIZE_MASK) != 0;

    public static bool IsLast(ulong spte, int level) => level == PG_LEVEL_4K || IsLarge(spte);

    public static bool IsWritable(ulong spte) => (spte & PT_WRITABLE_MASK) != 0;

    public bool IsMmio(ulong spte) => mmioCaching && (spte & MmioMask) == MmioValue;

    public static ulong PfnOf(ulong spte) => (spte & SPTE_BASE_ADDR_MASK) >> 12;

    private static bool UsesAdBits(ulong spte) => (spte & SPTE_TDP_AD_MASK) != SPTE_TDP_AD_DISABLED_MASK;

    public ulong AccessedOf(ulong spte) => UsesAdBits(spte) ? Accessed : 0;

    public ulong DirtyOf(ulong spte) => UsesAdBits(spte) ? Dirty : 0;

    /// <summary>An entry that points to a lower table.</summary>
    [KernelFunction("make_nonleaf_spte", File = "arch/x86/kvm/mmu/spte.c")]
    internal ulong MakeNonleaf(ulong childTable, bool adDisabled)
    {
        FunctionTrace.Leaf("make_nonleaf_spte");
        ulong spte = SPTE_MMU_PRESENT_MASK | childTable | Present | PT_WRITABLE_MASK | User | X | MeValue;
        return spte | (adDisabled ? SPTE_TDP_AD_DISABLED_MASK : Accessed);
    }

    /// <summary>An entry that faults on every access and carries the frame and the memslots' generation.</summary>
    [KernelFunction("make_mmio_spte", File = "arch/x86/kvm/mmu/spte.c")]
    internal ulong MakeMmio(ulong generation, ulong gfn, uint access)
    {
        FunctionTrace.Leaf("make_mmio_spte");
        ulong gen = generation & MMIO_SPTE_GEN_MASK;
        ulong spte = (gen & ((1 << GenLowBits) - 1)) << GenLowShift;
        spte |= (gen >> GenLowBits) << GenHighShift;
        ulong gpa = gfn << 12;
        return spte | MmioValue | (access & MmioAccessMask) | gpa | NonpresentOrRsvd | ((gpa & NonpresentOrRsvd) << NonpresentOrRsvdBits);
    }

    internal static ulong MmioGeneration(ulong spte) =>
        ((spte >> GenLowShift) & ((1 << GenLowBits) - 1)) | (((spte >> GenHighShift) & ((1 << GenHighBits) - 1)) << GenLowBits);

    /// <summary>get_mmio_spte_gfn.</summary>
    internal ulong MmioGfn(ulong spte) => ((spte & lowerGfn) | ((spte >> NonpresentOrRsvdBits) & NonpresentOrRsvd)) >> 12;

    internal uint MmioAccess(ulong spte) => (uint)(spte & MmioAccessMask);
}
