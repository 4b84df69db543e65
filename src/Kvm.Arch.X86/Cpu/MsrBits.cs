namespace Kvm.Arch.X86;

/// <summary>Bits inside model-specific registers that the x86 code looks at, under the kernel's names.</summary>
/// <remarks>asm/msr-index.h, asm/mce.h.</remarks>
public static class MsrBits
{
    public const ulong FEAT_CTL_LOCKED = 1ul << 0;
    public const ulong FEAT_CTL_VMX_ENABLED_INSIDE_SMX = 1ul << 1;
    public const ulong FEAT_CTL_VMX_ENABLED_OUTSIDE_SMX = 1ul << 2;

    public const ulong ARCH_CAP_RDCL_NO = 1ul << 0;
    public const ulong ARCH_CAP_IBRS_ALL = 1ul << 1;
    public const ulong ARCH_CAP_RSBA = 1ul << 2;
    public const ulong ARCH_CAP_SKIP_VMENTRY_L1DFLUSH = 1ul << 3;
    public const ulong ARCH_CAP_SSB_NO = 1ul << 4;
    public const ulong ARCH_CAP_MDS_NO = 1ul << 5;
    public const ulong ARCH_CAP_PSCHANGE_MC_NO = 1ul << 6;
    public const ulong ARCH_CAP_TSX_CTRL_MSR = 1ul << 7;
    public const ulong ARCH_CAP_TAA_NO = 1ul << 8;
    public const ulong ARCH_CAP_SBDR_SSDP_NO = 1ul << 13;
    public const ulong ARCH_CAP_FBSDP_NO = 1ul << 14;
    public const ulong ARCH_CAP_PSDP_NO = 1ul << 15;
    public const ulong ARCH_CAP_FB_CLEAR = 1ul << 17;
    public const ulong ARCH_CAP_RRSBA = 1ul << 19;
    public const ulong ARCH_CAP_BHI_NO = 1ul << 20;
    public const ulong ARCH_CAP_PBRSB_NO = 1ul << 24;
    public const ulong ARCH_CAP_GDS_CTRL = 1ul << 25;
    public const ulong ARCH_CAP_GDS_NO = 1ul << 26;
    public const ulong ARCH_CAP_RFDS_NO = 1ul << 27;
    public const ulong ARCH_CAP_RFDS_CLEAR = 1ul << 28;
    public const ulong ARCH_CAP_ITS_NO = 1ul << 62;

    /// <summary>What KVM lets through to guests.</summary>
    public const ulong KVM_SUPPORTED_ARCH_CAP = ARCH_CAP_RDCL_NO | ARCH_CAP_IBRS_ALL | ARCH_CAP_RSBA | ARCH_CAP_SKIP_VMENTRY_L1DFLUSH
        | ARCH_CAP_SSB_NO | ARCH_CAP_MDS_NO | ARCH_CAP_PSCHANGE_MC_NO | ARCH_CAP_TSX_CTRL_MSR | ARCH_CAP_TAA_NO | ARCH_CAP_SBDR_SSDP_NO
        | ARCH_CAP_FBSDP_NO | ARCH_CAP_PSDP_NO | ARCH_CAP_FB_CLEAR | ARCH_CAP_RRSBA | ARCH_CAP_PBRSB_NO | ARCH_CAP_GDS_NO
        | ARCH_CAP_RFDS_NO | ARCH_CAP_RFDS_CLEAR | ARCH_CAP_BHI_NO | ARCH_CAP_ITS_NO;

    public const ulong TSX_CTRL_RTM_DISABLE = 1ul << 0;
    public const ulong TSX_CTRL_CPUID_CLEAR = 1ul << 1;

    public const ulong MSR_IA32_MISC_ENABLE_FAST_STRING = 1ul << 0;
    public const ulong MSR_IA32_MISC_ENABLE_EMON = 1ul << 7;
    public const ulong MSR_IA32_MISC_ENABLE_BTS_UNAVAIL = 1ul << 11;
    public const ulong MSR_IA32_MISC_ENABLE_PEBS_UNAVAIL = 1ul << 12;
    public const ulong MSR_IA32_MISC_ENABLE_MWAIT = 1ul << 18;
    public const ulong MSR_IA32_MISC_ENABLE_PMU_RO_MASK = MSR_IA32_MISC_ENABLE_PEBS_UNAVAIL | MSR_IA32_MISC_ENABLE_BTS_UNAVAIL;

    public const ulong MSR_PLATFORM_INFO_CPUID_FAULT = 1ul << 31;
    public const ulong MSR_MISC_FEATURES_ENABLES_CPUID_FAULT = 1ul << 0;
    public const ulong MSR_IA32_CR_PAT_DEFAULT = 0x0007040600070406;

    public const ulong MCG_CTL_P = 1ul << 8;
    public const ulong MCG_CMCI_P = 1ul << 10;
    public const ulong MCG_SER_P = 1ul << 24;
    public const ulong MCG_LMCE_P = 1ul << 27;
    public const ulong MCI_CTL2_CMCI_EN = 1ul << 30;
    public const ulong MCI_CTL2_CMCI_THRESHOLD_MASK = 0x7fff;
    public const ulong MCI_STATUS_VAL = 1ul << 63;
    public const ulong MCI_STATUS_OVER = 1ul << 62;
    public const ulong MCI_STATUS_UC = 1ul << 61;
    public const ulong MCG_STATUS_MCIP = 1ul << 2;

    public const ulong K7_HWCR_MC_STATUS_WR_EN = 1ul << 18;
}
