namespace Kvm.Arch.X86.Svm;

/// <summary>Numbers of kvm_amd that are neither user ABI nor known to the processor model under another name.</summary>
/// <remarks>asm/svm.h, svm/svm.h, svm/svm.c.</remarks>
internal static class SvmConst
{
    public const uint SVM_CPUID_FUNC = 0x8000000a;
    public const int SVM_VM_CR_SVM_DISABLE = 4;
    public const ulong SVM_VM_CR_VALID_MASK = 0x001f, SVM_VM_CR_SVM_LOCK_MASK = 0x0008, SVM_VM_CR_SVM_DIS_MASK = 0x0010;

    public const ulong SVM_TSC_RATIO_RSVD = 0xffffff0000000000, SVM_TSC_RATIO_MIN = 1, SVM_TSC_RATIO_MAX = 0x000000ffffffffff, SVM_TSC_RATIO_DEFAULT = 0x0100000000;

    public const int IOPM_ORDER = 2; // 12 KiB
    public const int MSRPM_ORDER = 1; // 8 KiB
    public const int MSRPM_SIZE = 8192;
    public const uint MSR_INVALID = 0xffffffff;
    public const int MSRPM_OFFSETS = 32;

    // Clean bits, as bit numbers.
    public const int VMCB_INTERCEPTS = 0, VMCB_PERM_MAP = 1, VMCB_ASID = 2, VMCB_INTR = 3, VMCB_NPT = 4, VMCB_CR = 5, VMCB_DR = 6, VMCB_DT = 7,
        VMCB_SEG = 8, VMCB_CR2 = 9, VMCB_LBR = 10, VMCB_AVIC = 11, VMCB_SW = 31;
    public const uint VMCB_ALL_CLEAN_MASK = 0xfff | (1u << VMCB_SW);
    public const uint VMCB_ALWAYS_DIRTY_MASK = (1u << VMCB_INTR) | (1u << VMCB_CR2);

    public const uint V_TPR_MASK = 0x0f;
    public const uint V_IRQ_MASK = 1u << 8;
    public const uint V_GIF_MASK = 1u << 9;
    public const int V_INTR_PRIO_SHIFT = 16;
    public const uint V_INTR_PRIO_MASK = 0x0fu << V_INTR_PRIO_SHIFT;
    public const uint V_IGN_TPR_MASK = 1u << 20;
    public const uint V_INTR_MASKING_MASK = 1u << 24;
    public const uint V_GIF_ENABLE_MASK = 1u << 25;
    public const uint V_IRQ_INJECTION_BITS_MASK = V_IRQ_MASK | V_INTR_PRIO_MASK | V_IGN_TPR_MASK;

    public const uint SVM_EVTINJ_VEC_MASK = 0xff;
    public const uint SVM_EVTINJ_TYPE_MASK = 7u << 8;
    public const uint SVM_EVTINJ_TYPE_INTR = 0u << 8, SVM_EVTINJ_TYPE_NMI = 2u << 8, SVM_EVTINJ_TYPE_EXEPT = 3u << 8, SVM_EVTINJ_TYPE_SOFT = 4u << 8;
    public const uint SVM_EVTINJ_VALID = 1u << 31;
    public const uint SVM_EVTINJ_VALID_ERR = 1u << 11;

    public const int SVM_EXITINFOSHIFT_TS_REASON_IRET = 36, SVM_EXITINFOSHIFT_TS_REASON_JMP = 38, SVM_EXITINFOSHIFT_TS_HAS_ERROR_CODE = 44;
    public const ulong SVM_EXITINFO_REG_MASK = 0x0f;
    public const ulong CR_VALID = 1ul << 63;

    public const uint SVM_IOIO_TYPE_MASK = 1, SVM_IOIO_STR_MASK = 4, SVM_IOIO_SIZE_MASK = 0x70;
    public const int SVM_IOIO_SIZE_SHIFT = 4;

    public const ulong LBR_CTL_ENABLE_MASK = 1, VIRTUAL_VMLOAD_VMSAVE_ENABLE_MASK = 2;
    public const ulong SVM_NESTED_CTL_NP_ENABLE = 1;
    public const byte TLB_CONTROL_DO_NOTHING = 0, TLB_CONTROL_FLUSH_ALL_ASID = 1, TLB_CONTROL_FLUSH_ASID = 3;

    public const ushort SVM_SELECTOR_WRITE_MASK = 1 << 1, SVM_SELECTOR_READ_MASK = 1 << 1, SVM_SELECTOR_CODE_MASK = 1 << 3,
        SVM_SELECTOR_S_MASK = 1 << 4, SVM_SELECTOR_P_MASK = 1 << 7;
    public const int SEG_TYPE_LDT = 2, SEG_TYPE_BUSY_TSS16 = 3;

    public const ulong SVM_CR0_SELECTIVE_MASK = 0xa; // TS, MP
    public const ulong DEBUGCTLMSR_LBR = 1, DEBUGCTLMSR_BTF = 2;
    public const ulong DEBUGCTL_RESERVED_BITS = ~(DEBUGCTLMSR_BTF | DEBUGCTLMSR_LBR);
}
