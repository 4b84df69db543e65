namespace Kvm.Arch.X86.Vmx;

/// <summary>Bits of the VMX control fields and capability MSRs, and the sets kvm_intel requires or wants (arch/x86/include/asm/vmx.h, vmxfeatures.h, kvm/vmx/vmx.h).</summary>
internal static class VmxControls
{
    // Pin-based VM-execution controls.
    public const uint PIN_BASED_EXT_INTR_MASK = 1u << 0;
    public const uint PIN_BASED_NMI_EXITING = 1u << 3;
    public const uint PIN_BASED_VIRTUAL_NMIS = 1u << 5;
    public const uint PIN_BASED_VMX_PREEMPTION_TIMER = 1u << 6;
    public const uint PIN_BASED_POSTED_INTR = 1u << 7;
    public const uint PIN_BASED_ALWAYSON_WITHOUT_TRUE_MSR = 0x16;

    // Primary processor-based VM-execution controls.
    public const uint CPU_BASED_INTR_WINDOW_EXITING = 1u << 2;
    public const uint CPU_BASED_USE_TSC_OFFSETTING = 1u << 3;
    public const uint CPU_BASED_HLT_EXITING = 1u << 7;
    public const uint CPU_BASED_INVLPG_EXITING = 1u << 9;
    public const uint CPU_BASED_MWAIT_EXITING = 1u << 10;
    public const uint CPU_BASED_RDPMC_EXITING = 1u << 11;
    public const uint CPU_BASED_RDTSC_EXITING = 1u << 12;
    public const uint CPU_BASED_CR3_LOAD_EXITING = 1u << 15;
    public const uint CPU_BASED_CR3_STORE_EXITING = 1u << 16;
    public const uint CPU_BASED_ACTIVATE_TERTIARY_CONTROLS = 1u << 17;
    public const uint CPU_BASED_CR8_LOAD_EXITING = 1u << 19;
    public const uint CPU_BASED_CR8_STORE_EXITING = 1u << 20;
    public const uint CPU_BASED_TPR_SHADOW = 1u << 21;
    public const uint CPU_BASED_NMI_WINDOW_EXITING = 1u << 22;
    public const uint CPU_BASED_MOV_DR_EXITING = 1u << 23;
    public const uint CPU_BASED_UNCOND_IO_EXITING = 1u << 24;
    public const uint CPU_BASED_USE_IO_BITMAPS = 1u << 25;
    public const uint CPU_BASED_MONITOR_TRAP_FLAG = 1u << 27;
    public const uint CPU_BASED_USE_MSR_BITMAPS = 1u << 28;
    public const uint CPU_BASED_MONITOR_EXITING = 1u << 29;
    public const uint CPU_BASED_PAUSE_EXITING = 1u << 30;
    public const uint CPU_BASED_ACTIVATE_SECONDARY_CONTROLS = 1u << 31;
    public const uint CPU_BASED_ALWAYSON_WITHOUT_TRUE_MSR = 0x0401e172;
    public const uint CR3_EXITING_BITS = CPU_BASED_CR3_LOAD_EXITING | CPU_BASED_CR3_STORE_EXITING;

    // Secondary processor-based VM-execution controls.
    public const uint SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES = 1u << 0;
    public const uint SECONDARY_EXEC_ENABLE_EPT = 1u << 1;
    public const uint SECONDARY_EXEC_DESC = 1u << 2;
    public const uint SECONDARY_EXEC_ENABLE_RDTSCP = 1u << 3;
    public const uint SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE = 1u << 4;
    public const uint SECONDARY_EXEC_ENABLE_VPID = 1u << 5;
    public const uint SECONDARY_EXEC_WBINVD_EXITING = 1u << 6;
    public const uint SECONDARY_EXEC_UNRESTRICTED_GUEST = 1u << 7;
    public const uint SECONDARY_EXEC_APIC_REGISTER_VIRT = 1u << 8;
    public const uint SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY = 1u << 9;
    public const uint SECONDARY_EXEC_PAUSE_LOOP_EXITING = 1u << 10;
    public const uint SECONDARY_EXEC_RDRAND_EXITING = 1u << 11;
    public const uint SECONDARY_EXEC_ENABLE_INVPCID = 1u << 12;
    public const uint SECONDARY_EXEC_ENABLE_VMFUNC = 1u << 13;
    public const uint SECONDARY_EXEC_SHADOW_VMCS = 1u << 14;
    public const uint SECONDARY_EXEC_ENCLS_EXITING = 1u << 15;
    public const uint SECONDARY_EXEC_RDSEED_EXITING = 1u << 16;
    public const uint SECONDARY_EXEC_ENABLE_PML = 1u << 17;
    public const uint SECONDARY_EXEC_PT_CONCEAL_VMX = 1u << 19;
    public const uint SECONDARY_EXEC_XSAVES = 1u << 20;
    public const uint SECONDARY_EXEC_PT_USE_GPA = 1u << 24;
    public const uint SECONDARY_EXEC_TSC_SCALING = 1u << 25;
    public const uint SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE = 1u << 26;
    public const uint SECONDARY_EXEC_BUS_LOCK_DETECTION = 1u << 30;
    public const uint SECONDARY_EXEC_NOTIFY_VM_EXITING = 1u << 31;

    // Tertiary processor-based VM-execution controls.
    public const ulong TERTIARY_EXEC_IPI_VIRT = 1ul << 4;

    // VM-exit controls.
    public const uint VM_EXIT_SAVE_DEBUG_CONTROLS = 1u << 2;
    public const uint VM_EXIT_HOST_ADDR_SPACE_SIZE = 1u << 9;
    public const uint VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL = 1u << 12;
    public const uint VM_EXIT_ACK_INTR_ON_EXIT = 1u << 15;
    public const uint VM_EXIT_SAVE_IA32_PAT = 1u << 18;
    public const uint VM_EXIT_LOAD_IA32_PAT = 1u << 19;
    public const uint VM_EXIT_SAVE_IA32_EFER = 1u << 20;
    public const uint VM_EXIT_LOAD_IA32_EFER = 1u << 21;
    public const uint VM_EXIT_SAVE_VMX_PREEMPTION_TIMER = 1u << 22;
    public const uint VM_EXIT_CLEAR_BNDCFGS = 1u << 23;
    public const uint VM_EXIT_PT_CONCEAL_PIP = 1u << 24;
    public const uint VM_EXIT_CLEAR_IA32_RTIT_CTL = 1u << 25;
    public const uint VM_EXIT_ALWAYSON_WITHOUT_TRUE_MSR = 0x00036dff;

    // VM-entry controls.
    public const uint VM_ENTRY_LOAD_DEBUG_CONTROLS = 1u << 2;
    public const uint VM_ENTRY_IA32E_MODE = 1u << 9;
    public const uint VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL = 1u << 13;
    public const uint VM_ENTRY_LOAD_IA32_PAT = 1u << 14;
    public const uint VM_ENTRY_LOAD_IA32_EFER = 1u << 15;
    public const uint VM_ENTRY_LOAD_BNDCFGS = 1u << 16;
    public const uint VM_ENTRY_PT_CONCEAL_PIP = 1u << 17;
    public const uint VM_ENTRY_LOAD_IA32_RTIT_CTL = 1u << 18;
    public const uint VM_ENTRY_ALWAYSON_WITHOUT_TRUE_MSR = 0x000011ff;

    // What kvm_intel needs and what it takes when offered.
    public const uint KVM_REQUIRED_VMX_VM_ENTRY_CONTROLS = VM_ENTRY_LOAD_DEBUG_CONTROLS | VM_ENTRY_IA32E_MODE;
    public const uint KVM_OPTIONAL_VMX_VM_ENTRY_CONTROLS =
        VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL | VM_ENTRY_LOAD_IA32_PAT | VM_ENTRY_LOAD_IA32_EFER | VM_ENTRY_LOAD_BNDCFGS | VM_ENTRY_PT_CONCEAL_PIP | VM_ENTRY_LOAD_IA32_RTIT_CTL;
    public const uint KVM_REQUIRED_VMX_VM_EXIT_CONTROLS = VM_EXIT_SAVE_DEBUG_CONTROLS | VM_EXIT_ACK_INTR_ON_EXIT | VM_EXIT_HOST_ADDR_SPACE_SIZE;
    public const uint KVM_OPTIONAL_VMX_VM_EXIT_CONTROLS =
        VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL | VM_EXIT_SAVE_IA32_PAT | VM_EXIT_LOAD_IA32_PAT | VM_EXIT_SAVE_IA32_EFER | VM_EXIT_SAVE_VMX_PREEMPTION_TIMER |
        VM_EXIT_LOAD_IA32_EFER | VM_EXIT_CLEAR_BNDCFGS | VM_EXIT_PT_CONCEAL_PIP | VM_EXIT_CLEAR_IA32_RTIT_CTL;
    public const uint KVM_REQUIRED_VMX_PIN_BASED_VM_EXEC_CONTROL = PIN_BASED_EXT_INTR_MASK | PIN_BASED_NMI_EXITING;
    public const uint KVM_OPTIONAL_VMX_PIN_BASED_VM_EXEC_CONTROL = PIN_BASED_VIRTUAL_NMIS | PIN_BASED_POSTED_INTR | PIN_BASED_VMX_PREEMPTION_TIMER;
    public const uint KVM_REQUIRED_VMX_CPU_BASED_VM_EXEC_CONTROL =
        CPU_BASED_HLT_EXITING | CPU_BASED_CR3_LOAD_EXITING | CPU_BASED_CR3_STORE_EXITING | CPU_BASED_UNCOND_IO_EXITING | CPU_BASED_MOV_DR_EXITING |
        CPU_BASED_USE_TSC_OFFSETTING | CPU_BASED_MWAIT_EXITING | CPU_BASED_MONITOR_EXITING | CPU_BASED_INVLPG_EXITING | CPU_BASED_RDPMC_EXITING |
        CPU_BASED_INTR_WINDOW_EXITING | CPU_BASED_CR8_LOAD_EXITING | CPU_BASED_CR8_STORE_EXITING;
    public const uint KVM_OPTIONAL_VMX_CPU_BASED_VM_EXEC_CONTROL =
        CPU_BASED_RDTSC_EXITING | CPU_BASED_TPR_SHADOW | CPU_BASED_USE_IO_BITMAPS | CPU_BASED_MONITOR_TRAP_FLAG | CPU_BASED_USE_MSR_BITMAPS |
        CPU_BASED_NMI_WINDOW_EXITING | CPU_BASED_PAUSE_EXITING | CPU_BASED_ACTIVATE_SECONDARY_CONTROLS | CPU_BASED_ACTIVATE_TERTIARY_CONTROLS;
    public const uint KVM_REQUIRED_VMX_SECONDARY_VM_EXEC_CONTROL = 0;
    public const uint KVM_OPTIONAL_VMX_SECONDARY_VM_EXEC_CONTROL =
        SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES | SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE | SECONDARY_EXEC_WBINVD_EXITING | SECONDARY_EXEC_ENABLE_VPID |
        SECONDARY_EXEC_ENABLE_EPT | SECONDARY_EXEC_UNRESTRICTED_GUEST | SECONDARY_EXEC_PAUSE_LOOP_EXITING | SECONDARY_EXEC_DESC | SECONDARY_EXEC_ENABLE_RDTSCP |
        SECONDARY_EXEC_ENABLE_INVPCID | SECONDARY_EXEC_APIC_REGISTER_VIRT | SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY | SECONDARY_EXEC_SHADOW_VMCS |
        SECONDARY_EXEC_XSAVES | SECONDARY_EXEC_RDSEED_EXITING | SECONDARY_EXEC_RDRAND_EXITING | SECONDARY_EXEC_ENABLE_PML | SECONDARY_EXEC_TSC_SCALING |
        SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE | SECONDARY_EXEC_PT_USE_GPA | SECONDARY_EXEC_PT_CONCEAL_VMX | SECONDARY_EXEC_ENABLE_VMFUNC |
        SECONDARY_EXEC_BUS_LOCK_DETECTION | SECONDARY_EXEC_NOTIFY_VM_EXITING | SECONDARY_EXEC_ENCLS_EXITING;
    public const ulong KVM_OPTIONAL_VMX_TERTIARY_VM_EXEC_CONTROL = TERTIARY_EXEC_IPI_VIRT;

    // IA32_VMX_EPT_VPID_CAP: low half (EPT), high half (VPID).
    public const uint VMX_EPT_EXECUTE_ONLY_BIT = 1u << 0;
    public const uint VMX_EPT_PAGE_WALK_4_BIT = 1u << 6;
    public const uint VMX_EPT_PAGE_WALK_5_BIT = 1u << 7;
    public const uint VMX_EPTP_UC_BIT = 1u << 8;
    public const uint VMX_EPTP_WB_BIT = 1u << 14;
    public const uint VMX_EPT_2MB_PAGE_BIT = 1u << 16;
    public const uint VMX_EPT_1GB_PAGE_BIT = 1u << 17;
    public const uint VMX_EPT_INVEPT_BIT = 1u << 20;
    public const uint VMX_EPT_AD_BIT = 1u << 21;
    public const uint VMX_EPT_EXTENT_CONTEXT_BIT = 1u << 25;
    public const uint VMX_EPT_EXTENT_GLOBAL_BIT = 1u << 26;
    public const uint VMX_VPID_INVVPID_BIT = 1u << 0;
    public const uint VMX_VPID_EXTENT_INDIVIDUAL_ADDR_BIT = 1u << 8;
    public const uint VMX_VPID_EXTENT_SINGLE_CONTEXT_BIT = 1u << 9;
    public const uint VMX_VPID_EXTENT_GLOBAL_CONTEXT_BIT = 1u << 10;

    // INVEPT and INVVPID types.
    public const ulong VMX_EPT_EXTENT_CONTEXT = 1;
    public const ulong VMX_EPT_EXTENT_GLOBAL = 2;
    public const ulong VMX_VPID_EXTENT_INDIVIDUAL_ADDR = 0;
    public const ulong VMX_VPID_EXTENT_SINGLE_CONTEXT = 1;
    public const ulong VMX_VPID_EXTENT_ALL_CONTEXT = 2;

    // EPT pointer and entries.
    public const ulong VMX_EPTP_MT_WB = 6;
    public const ulong VMX_EPTP_PWL_4 = 3 << 3;
    public const ulong VMX_EPTP_PWL_5 = 4 << 3;
    public const ulong VMX_EPTP_AD_ENABLE_BIT = 1 << 6;
    public const int VMX_EPT_MT_EPTE_SHIFT = 3;
    public const byte VMX_EPT_IPAT_BIT = 1 << 6;
    public const ulong VMX_EPT_IDENTITY_PAGETABLE_ADDR = 0xfffbc000;

    // EPT-violation exit qualification.
    public const ulong EPT_VIOLATION_ACC_READ = 1 << 0;
    public const ulong EPT_VIOLATION_ACC_WRITE = 1 << 1;
    public const ulong EPT_VIOLATION_ACC_INSTR = 1 << 2;
    public const ulong EPT_VIOLATION_RWX_MASK = 7 << 3;
    public const ulong EPT_VIOLATION_GVA_TRANSLATED = 1 << 8;

    // Interruption information (VM entry, VM exit, IDT vectoring).
    public const uint INTR_INFO_VECTOR_MASK = 0xff;
    public const uint INTR_INFO_INTR_TYPE_MASK = 0x700;
    public const uint INTR_INFO_DELIVER_CODE_MASK = 0x800;
    public const uint INTR_INFO_UNBLOCK_NMI = 0x1000;
    public const uint INTR_INFO_VALID_MASK = 0x80000000;
    public const uint INTR_TYPE_EXT_INTR = 0 << 8;
    public const uint INTR_TYPE_NMI_INTR = 2 << 8;
    public const uint INTR_TYPE_HARD_EXCEPTION = 3 << 8;
    public const uint INTR_TYPE_SOFT_INTR = 4 << 8;
    public const uint INTR_TYPE_PRIV_SW_EXCEPTION = 5 << 8;
    public const uint INTR_TYPE_SOFT_EXCEPTION = 6 << 8;
    public const uint VECTORING_INFO_VALID_MASK = INTR_INFO_VALID_MASK;
    public const uint VECTORING_INFO_VECTOR_MASK = INTR_INFO_VECTOR_MASK;
    public const uint VECTORING_INFO_TYPE_MASK = INTR_INFO_INTR_TYPE_MASK;
    public const uint VECTORING_INFO_DELIVER_CODE_MASK = INTR_INFO_DELIVER_CODE_MASK;

    // Guest interruptibility and activity.
    public const uint GUEST_INTR_STATE_STI = 1;
    public const uint GUEST_INTR_STATE_MOV_SS = 2;
    public const uint GUEST_INTR_STATE_SMI = 4;
    public const uint GUEST_INTR_STATE_NMI = 8;
    public const uint GUEST_ACTIVITY_ACTIVE = 0;
    public const uint GUEST_ACTIVITY_HLT = 1;

    // Exit qualifications.
    public const ulong APIC_ACCESS_OFFSET = 0xfff;
    public const ulong APIC_ACCESS_TYPE = 0xf000;
    public const ulong TYPE_LINEAR_APIC_INST_WRITE = 1 << 12;
    public const ulong DEBUG_REG_ACCESS_NUM = 7;
    public const ulong TYPE_MOV_FROM_DR = 1 << 4;
    public const int LMSW_SOURCE_DATA_SHIFT = 16;
    public const ulong NOTIFY_VM_CONTEXT_INVALID = 1;
    public const uint ENTRY_FAIL_DEFAULT = 0;

    // Access rights.
    public const uint VMX_AR_TYPE_ACCESSES_MASK = 1;
    public const uint VMX_AR_TYPE_READABLE_MASK = 1 << 1;
    public const uint VMX_AR_TYPE_WRITEABLE_MASK = 1 << 2;
    public const uint VMX_AR_TYPE_CODE_MASK = 1 << 3;
    public const uint VMX_AR_TYPE_MASK = 0x0f;
    public const uint VMX_AR_TYPE_BUSY_64_TSS = 11;

    // VMCS and capability limits.
    public const int VMX_NR_VPIDS = 1 << 16;
    public const int MAX_NR_LOADSTORE_MSRS = 8;
    public const int PML_ENTITY_NUM = 512;
    public const ulong VMX_MISC_PREEMPTION_TIMER_RATE_MASK = 0x1f;
    public const ulong MSR_IA32_VMX_MISC_VMWRITE_SHADOW_RO_FIELDS = 1ul << 29;
    public const ulong MSR_IA32_VMX_MISC_INTEL_PT = 1ul << 14;
    public const ulong KVM_VMX_TSC_MULTIPLIER_MAX = 0xffffffffffffffff;

    // IA32_FEATURE_CONTROL.
    public const ulong FEAT_CTL_SGX_LC_ENABLED = 1 << 17;
    public const ulong FEAT_CTL_SGX_ENABLED = 1 << 18;
    public const ulong FEAT_CTL_LMCE_ENABLED = 1 << 20;

    // Posted interrupts.
    public const byte POSTED_INTR_VECTOR = 0xf2;
    public const byte POSTED_INTR_WAKEUP_VECTOR = 0xf1;
    public const byte POSTED_INTR_NESTED_VECTOR = 0xf0;

    // Real mode on a processor without unrestricted guest.
    public const uint RMODE_TSS_SIZE = TSS_BASE_SIZE + TSS_REDIRECTION_SIZE + TSS_IOPB_SIZE + 1;
    public const uint TSS_IOPB_BASE_OFFSET = 0x66;
    public const uint TSS_BASE_SIZE = 0x68;
    public const uint TSS_IOPB_SIZE = 65536 / 8;
    public const uint TSS_REDIRECTION_SIZE = 256 / 8;
    public const int NMI_VECTOR = 2;
    public const int TASK_SWITCH_GATE = 3;
    public const uint MSR_CORE_C1_RES = 0x660;
    public const uint MSR_CORE_C3_RESIDENCY = 0x3fc;
    public const uint MSR_CORE_C6_RESIDENCY = 0x3fd;
    public const uint MSR_CORE_C7_RESIDENCY = 0x3fe;
    public const ulong PMU_CAP_LBR_FMT = 0x3f;
    public const ulong PMU_CAP_FW_WRITES = 1 << 13;
    public const ulong PERF_CAP_PEBS_FORMAT = 0xf00;
    public const ulong PERF_CAP_PEBS_MASK = 1 << 6 | 1 << 7 | 0xf00 | 1 << 14;
    public const int TSS_PRIVATE_MEMSLOT = 32764 + 0;
    public const int APIC_ACCESS_PAGE_PRIVATE_MEMSLOT = 32764 + 1;
    public const int IDENTITY_PAGETABLE_PRIVATE_MEMSLOT = 32764 + 2;
}
