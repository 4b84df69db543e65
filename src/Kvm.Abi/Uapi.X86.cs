// Constants of asm/kvm.h. Linux 6.1, x86-64.

namespace Kvm.Abi;

public static partial class Uapi
{
    public const int KVM_PIO_PAGE_OFFSET = 1;
    public const int KVM_COALESCED_MMIO_PAGE_OFFSET = 2;

    public const int KVM_DIRTY_LOG_PAGE_OFFSET = 64;

    public const int DE_VECTOR = 0;
    public const int DB_VECTOR = 1;
    public const int BP_VECTOR = 3;
    public const int OF_VECTOR = 4;
    public const int BR_VECTOR = 5;
    public const int UD_VECTOR = 6;
    public const int NM_VECTOR = 7;
    public const int DF_VECTOR = 8;
    public const int TS_VECTOR = 10;
    public const int NP_VECTOR = 11;
    public const int SS_VECTOR = 12;
    public const int GP_VECTOR = 13;
    public const int PF_VECTOR = 14;
    public const int MF_VECTOR = 16;
    public const int AC_VECTOR = 17;
    public const int MC_VECTOR = 18;
    public const int XM_VECTOR = 19;
    public const int VE_VECTOR = 20;

    public const int KVM_NR_INTERRUPTS = 256;

    public const int KVM_IOAPIC_NUM_PINS = 24;

    public const int KVM_IRQCHIP_PIC_MASTER = 0;
    public const int KVM_IRQCHIP_PIC_SLAVE = 1;
    public const int KVM_IRQCHIP_IOAPIC = 2;

    public const int KVM_NR_IRQCHIPS = 3;

    public const int KVM_RUN_X86_SMM = 1 << 0;
    public const int KVM_RUN_X86_BUS_LOCK = 1 << 1;

    public const int KVM_APIC_REG_SIZE = 0x400;
    public const int KVM_SREGS2_FLAGS_PDPTRS_VALID = 1;

    public const int KVM_MSR_FILTER_MAX_BITMAP_SIZE = 0x600;
    public const int KVM_MSR_FILTER_READ = 1 << 0;
    public const int KVM_MSR_FILTER_WRITE = 1 << 1;
    public const int KVM_MSR_FILTER_MAX_RANGES = 16;
    public const int KVM_MSR_FILTER_DEFAULT_ALLOW = 0 << 0;
    public const int KVM_MSR_FILTER_DEFAULT_DENY = 1 << 0;

    public const int KVM_CPUID_FLAG_SIGNIFCANT_INDEX = 1 << 0;
    public const int KVM_CPUID_FLAG_STATEFUL_FUNC = 1 << 1;
    public const int KVM_CPUID_FLAG_STATE_READ_NEXT = 1 << 2;

    public const int KVM_GUESTDBG_USE_SW_BP = 0x00010000;
    public const int KVM_GUESTDBG_USE_HW_BP = 0x00020000;
    public const int KVM_GUESTDBG_INJECT_DB = 0x00040000;
    public const int KVM_GUESTDBG_INJECT_BP = 0x00080000;
    public const int KVM_GUESTDBG_BLOCKIRQ = 0x00100000;

    public const int KVM_PIT_FLAGS_HPET_LEGACY = 0x00000001;
    public const int KVM_PIT_FLAGS_SPEAKER_DATA_ON = 0x00000002;

    public const int KVM_VCPUEVENT_VALID_NMI_PENDING = 0x00000001;
    public const int KVM_VCPUEVENT_VALID_SIPI_VECTOR = 0x00000002;
    public const int KVM_VCPUEVENT_VALID_SHADOW = 0x00000004;
    public const int KVM_VCPUEVENT_VALID_SMM = 0x00000008;
    public const int KVM_VCPUEVENT_VALID_PAYLOAD = 0x00000010;
    public const int KVM_VCPUEVENT_VALID_TRIPLE_FAULT = 0x00000020;

    public const int KVM_X86_SHADOW_INT_MOV_SS = 0x01;
    public const int KVM_X86_SHADOW_INT_STI = 0x02;

    public const int KVM_MAX_XCRS = 16;

    public const int KVM_SYNC_X86_REGS = 1 << 0;
    public const int KVM_SYNC_X86_SREGS = 1 << 1;
    public const int KVM_SYNC_X86_EVENTS = 1 << 2;
    public const int KVM_SYNC_X86_VALID_FIELDS = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;

    public const int KVM_X86_QUIRK_LINT0_REENABLED = 1 << 0;
    public const int KVM_X86_QUIRK_CD_NW_CLEARED = 1 << 1;
    public const int KVM_X86_QUIRK_LAPIC_MMIO_HOLE = 1 << 2;
    public const int KVM_X86_QUIRK_OUT_7E_INC_RIP = 1 << 3;
    public const int KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT = 1 << 4;
    public const int KVM_X86_QUIRK_FIX_HYPERCALL_INSN = 1 << 5;
    public const int KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS = 1 << 6;

    public const int KVM_STATE_NESTED_FORMAT_VMX = 0;
    public const int KVM_STATE_NESTED_FORMAT_SVM = 1;
    public const int KVM_STATE_NESTED_GUEST_MODE = 0x00000001;
    public const int KVM_STATE_NESTED_RUN_PENDING = 0x00000002;
    public const int KVM_STATE_NESTED_EVMCS = 0x00000004;
    public const int KVM_STATE_NESTED_MTF_PENDING = 0x00000008;
    public const int KVM_STATE_NESTED_GIF_SET = 0x00000100;
    public const int KVM_STATE_NESTED_SMM_GUEST_MODE = 0x00000001;
    public const int KVM_STATE_NESTED_SMM_VMXON = 0x00000002;
    public const int KVM_STATE_NESTED_VMX_VMCS_SIZE = 0x1000;
    public const int KVM_STATE_NESTED_SVM_VMCB_SIZE = 0x1000;

    public const int KVM_STATE_VMX_PREEMPTION_TIMER_DEADLINE = 0x00000001;

    public const int KVM_X86_XCOMP_GUEST_SUPP = 0;

    public const int KVM_PMU_EVENT_ALLOW = 0;
    public const int KVM_PMU_EVENT_DENY = 1;

    public const int KVM_VCPU_TSC_CTRL = 0;
    public const int KVM_VCPU_TSC_OFFSET = 0;

    public const bool __KVM_HAVE_PIT = true;
    public const bool __KVM_HAVE_IOAPIC = true;
    public const bool __KVM_HAVE_IRQ_LINE = true;
    public const bool __KVM_HAVE_MSI = true;
    public const bool __KVM_HAVE_USER_NMI = true;
    public const bool __KVM_HAVE_GUEST_DEBUG = true;
    public const bool __KVM_HAVE_MSIX = true;
    public const bool __KVM_HAVE_MCE = true;
    public const bool __KVM_HAVE_PIT_STATE2 = true;
    public const bool __KVM_HAVE_XEN_HVM = true;
    public const bool __KVM_HAVE_VCPU_EVENTS = true;
    public const bool __KVM_HAVE_DEBUGREGS = true;
    public const bool __KVM_HAVE_XSAVE = true;
    public const bool __KVM_HAVE_XCRS = true;
    public const bool __KVM_HAVE_READONLY_MEM = true;
}
