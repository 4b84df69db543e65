namespace Kvm.Arch.X86;

/// <summary>Architectural bits and KVM's own limits, under the kernel's names.</summary>
/// <remarks>uapi/asm/processor-flags.h, asm/kvm_host.h, kvm_cache_regs.h, x86.h. For <c>using static Kvm.Arch.X86.X86Const</c>.</remarks>
public static class X86Const
{
    public const ulong X86_EFLAGS_CF = 1ul << 0;
    public const ulong X86_EFLAGS_FIXED = 1ul << 1;
    public const ulong X86_EFLAGS_PF = 1ul << 2;
    public const ulong X86_EFLAGS_AF = 1ul << 4;
    public const ulong X86_EFLAGS_ZF = 1ul << 6;
    public const ulong X86_EFLAGS_SF = 1ul << 7;
    public const ulong X86_EFLAGS_TF = 1ul << 8;
    public const ulong X86_EFLAGS_IF = 1ul << 9;
    public const ulong X86_EFLAGS_DF = 1ul << 10;
    public const ulong X86_EFLAGS_OF = 1ul << 11;
    public const ulong X86_EFLAGS_IOPL = 3ul << 12;
    public const ulong X86_EFLAGS_NT = 1ul << 14;
    public const ulong X86_EFLAGS_RF = 1ul << 16;
    public const ulong X86_EFLAGS_VM = 1ul << 17;
    public const ulong X86_EFLAGS_AC = 1ul << 18;
    public const ulong X86_EFLAGS_VIF = 1ul << 19;
    public const ulong X86_EFLAGS_VIP = 1ul << 20;
    public const ulong X86_EFLAGS_ID = 1ul << 21;

    public const ulong X86_CR0_PE = 1ul << 0;
    public const ulong X86_CR0_MP = 1ul << 1;
    public const ulong X86_CR0_EM = 1ul << 2;
    public const ulong X86_CR0_TS = 1ul << 3;
    public const ulong X86_CR0_ET = 1ul << 4;
    public const ulong X86_CR0_NE = 1ul << 5;
    public const ulong X86_CR0_WP = 1ul << 16;
    public const ulong X86_CR0_AM = 1ul << 18;
    public const ulong X86_CR0_NW = 1ul << 29;
    public const ulong X86_CR0_CD = 1ul << 30;
    public const ulong X86_CR0_PG = 1ul << 31;

    public const ulong X86_CR3_PCID_MASK = 0xfff;
    public const ulong X86_CR3_PCID_NOFLUSH = 1ul << 63;

    public const ulong X86_CR4_VME = 1ul << 0;
    public const ulong X86_CR4_PVI = 1ul << 1;
    public const ulong X86_CR4_TSD = 1ul << 2;
    public const ulong X86_CR4_DE = 1ul << 3;
    public const ulong X86_CR4_PSE = 1ul << 4;
    public const ulong X86_CR4_PAE = 1ul << 5;
    public const ulong X86_CR4_MCE = 1ul << 6;
    public const ulong X86_CR4_PGE = 1ul << 7;
    public const ulong X86_CR4_PCE = 1ul << 8;
    public const ulong X86_CR4_OSFXSR = 1ul << 9;
    public const ulong X86_CR4_OSXMMEXCPT = 1ul << 10;
    public const ulong X86_CR4_UMIP = 1ul << 11;
    public const ulong X86_CR4_LA57 = 1ul << 12;
    public const ulong X86_CR4_VMXE = 1ul << 13;
    public const ulong X86_CR4_SMXE = 1ul << 14;
    public const ulong X86_CR4_FSGSBASE = 1ul << 16;
    public const ulong X86_CR4_PCIDE = 1ul << 17;
    public const ulong X86_CR4_OSXSAVE = 1ul << 18;
    public const ulong X86_CR4_SMEP = 1ul << 20;
    public const ulong X86_CR4_SMAP = 1ul << 21;
    public const ulong X86_CR4_PKE = 1ul << 22;

    public const ulong EFER_SCE = 1ul << 0;
    public const ulong EFER_LME = 1ul << 8;
    public const ulong EFER_LMA = 1ul << 10;
    public const ulong EFER_NX = 1ul << 11;
    public const ulong EFER_SVME = 1ul << 12;
    public const ulong EFER_LMSLE = 1ul << 13;
    public const ulong EFER_FFXSR = 1ul << 14;
    public const ulong EFER_AUTOIBRS = 1ul << 21;

    public const ulong CR0_RESERVED_BITS = ~(X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM
        | X86_CR0_NW | X86_CR0_CD | X86_CR0_PG);

    public const ulong CR4_RESERVED_BITS = ~(X86_CR4_VME | X86_CR4_PVI | X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE | X86_CR4_MCE
        | X86_CR4_PGE | X86_CR4_PCE | X86_CR4_OSFXSR | X86_CR4_PCIDE | X86_CR4_OSXSAVE | X86_CR4_SMEP | X86_CR4_FSGSBASE
        | X86_CR4_OSXMMEXCPT | X86_CR4_LA57 | X86_CR4_VMXE | X86_CR4_SMAP | X86_CR4_PKE | X86_CR4_UMIP);

    public const ulong CR8_RESERVED_BITS = ~0xful;

    public const ulong KVM_POSSIBLE_CR0_GUEST_BITS = X86_CR0_TS | X86_CR0_WP;
    public const ulong KVM_POSSIBLE_CR4_GUEST_BITS = X86_CR4_PVI | X86_CR4_DE | X86_CR4_PCE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_PGE
        | X86_CR4_TSD | X86_CR4_FSGSBASE;

    public const ulong X86_CR0_PDPTR_BITS = X86_CR0_CD | X86_CR0_NW | X86_CR0_PG;
    public const ulong X86_CR4_TLBFLUSH_BITS = X86_CR4_PGE | X86_CR4_PCIDE | X86_CR4_PAE | X86_CR4_SMEP;
    public const ulong X86_CR4_PDPTR_BITS = X86_CR4_PGE | X86_CR4_PSE | X86_CR4_PAE | X86_CR4_SMEP;
    public const ulong KVM_MMU_CR0_ROLE_BITS = X86_CR0_PG | X86_CR0_WP;
    public const ulong KVM_MMU_CR4_ROLE_BITS = X86_CR4_PSE | X86_CR4_PAE | X86_CR4_LA57 | X86_CR4_SMEP | X86_CR4_SMAP | X86_CR4_PKE;

    public const ulong DR6_BUS_LOCK = 1ul << 11;
    public const ulong DR6_BD = 1ul << 13;
    public const ulong DR6_BS = 1ul << 14;
    public const ulong DR6_BT = 1ul << 15;
    public const ulong DR6_RTM = 1ul << 16;
    public const ulong DR6_ACTIVE_LOW = 0xffff0ff0;
    public const ulong DR6_VOLATILE = 0x0001e80f;
    public const ulong DR6_FIXED_1 = DR6_ACTIVE_LOW & ~DR6_VOLATILE;
    public const ulong DR7_BP_EN_MASK = 0xff;
    public const ulong DR7_GE = 1ul << 9;
    public const ulong DR7_GD = 1ul << 13;
    public const ulong DR7_FIXED_1 = 0x400;
    public const ulong DR7_VOLATILE = 0xffff2bff;
    public const ulong DR_TRAP_BITS = 0xf;

    public const uint KVM_DEBUGREG_BP_ENABLED = 1;
    public const uint KVM_DEBUGREG_WONT_EXIT = 2;

    public const uint HF_GIF_MASK = 1 << 0;
    public const uint HF_NMI_MASK = 1 << 3;
    public const uint HF_IRET_MASK = 1 << 4;
    public const uint HF_GUEST_MASK = 1 << 5;
    public const uint HF_SMM_MASK = 1 << 6;
    public const uint HF_SMM_INSIDE_NMI_MASK = 1 << 7;

    public const uint PFERR_PRESENT_MASK = 1u << 0;
    public const uint PFERR_WRITE_MASK = 1u << 1;
    public const uint PFERR_USER_MASK = 1u << 2;
    public const uint PFERR_RSVD_MASK = 1u << 3;
    public const uint PFERR_FETCH_MASK = 1u << 4;
    public const uint PFERR_PK_MASK = 1u << 5;
    public const uint PFERR_SGX_MASK = 1u << 15;
    public const ulong PFERR_GUEST_FINAL_MASK = 1ul << 32;
    public const ulong PFERR_GUEST_PAGE_MASK = 1ul << 33;
    public const ulong PFERR_IMPLICIT_ACCESS = 1ul << 48;
    public const ulong PFERR_NESTED_GUEST_PAGE = PFERR_GUEST_PAGE_MASK | PFERR_WRITE_MASK | PFERR_PRESENT_MASK;

    public const uint ACC_EXEC_MASK = 1;
    public const uint ACC_WRITE_MASK = 2;
    public const uint ACC_USER_MASK = 4;
    public const uint ACC_ALL = 7;

    public const int PG_LEVEL_4K = 1;
    public const int PG_LEVEL_2M = 2;
    public const int PG_LEVEL_1G = 3;
    public const int KVM_NR_PAGE_SIZES = 3;
    public const int PT32_ROOT_LEVEL = 2;
    public const int PT32E_ROOT_LEVEL = 3;
    public const int PT64_ROOT_4LEVEL = 4;
    public const int PT64_ROOT_5LEVEL = 5;

    public const ulong UNMAPPED_GVA = ~0ul;
    public const ulong INVALID_GPA = ~0ul;
    public const ulong INVALID_PAGE = ~0ul;

    public const int KVM_MAX_CPUID_ENTRIES = 256;
    public const int KVM_MAX_MCE_BANKS = 32;
    public const int KVM_MAX_VCPUS = 1024;
    public const int KVM_MAX_VCPU_IDS = 4096;
    public const int KVM_NR_DB_REGS = 4;
    public const int KVM_MIN_ALLOC_MMU_PAGES = 64;
    public const int MAX_INSN_SIZE = 15;

    public const int KVM_MSR_RET_UNSUPPORTED = 2;
    public const int KVM_MSR_RET_FILTERED = 3;

    public const uint APIC_DEFAULT_PHYS_BASE = 0xfee00000;
    public const ulong MSR_IA32_APICBASE_BSP = 1ul << 8;
    public const ulong MSR_IA32_APICBASE_ENABLE = 1ul << 11;
    public const ulong X2APIC_ENABLE = 1ul << 10;

    public const ulong XFEATURE_MASK_FP = 1;
    public const ulong XFEATURE_MASK_SSE = 2;
    public const ulong XFEATURE_MASK_YMM = 4;
    public const ulong XFEATURE_MASK_BNDREGS = 8;
    public const ulong XFEATURE_MASK_BNDCSR = 0x10;
    public const ulong XFEATURE_MASK_AVX512 = 0xe0;
    public const ulong XFEATURE_MASK_PKRU = 0x200;
    public const ulong XFEATURE_MASK_XTILE = 0x60000;
    public const ulong XFEATURE_MASK_FPSSE = 3;

    public const int KVM_EXIT_REASON_NONE = -1;
    public const long NSEC_PER_SEC = 1_000_000_000;
}
