namespace Kvm.Arch.X86;

/// <summary>Names of the Hyper-V interface: CPUID leaves and their bits, MSRs, hypercalls, the synthetic interrupt controller.</summary>
/// <remarks>Hypervisor Top Level Functional Specification; names of asm/hyperv-tlfs.h, asm-generic/hyperv-tlfs.h, arch/x86/kvm/hyperv.h.</remarks>
internal static class HypervConst
{
    // ---- CPUID ----

    public const uint HYPERV_CPUID_VENDOR_AND_MAX_FUNCTIONS = 0x40000000;
    public const uint HYPERV_CPUID_INTERFACE = 0x40000001;
    public const uint HYPERV_CPUID_VERSION = 0x40000002;
    public const uint HYPERV_CPUID_FEATURES = 0x40000003;
    public const uint HYPERV_CPUID_ENLIGHTMENT_INFO = 0x40000004;
    public const uint HYPERV_CPUID_IMPLEMENT_LIMITS = 0x40000005;
    public const uint HYPERV_CPUID_NESTED_FEATURES = 0x4000000a;
    public const uint HYPERV_CPUID_SYNDBG_VENDOR_AND_MAX_FUNCTIONS = 0x40000080;
    public const uint HYPERV_CPUID_SYNDBG_INTERFACE = 0x40000081;
    public const uint HYPERV_CPUID_SYNDBG_PLATFORM_CAPABILITIES = 0x40000082;

    /// <summary>"Hv#1".</summary>
    public const uint HYPERV_CPUID_SIGNATURE_EAX = 0x31237648;

    /// <summary>"VS#1".</summary>
    public const uint HYPERV_VS_INTERFACE_EAX_SIGNATURE = 0x31235356;

    // HYPERV_CPUID_FEATURES.EAX
    public const uint HV_MSR_VP_RUNTIME_AVAILABLE = 1 << 0;
    public const uint HV_MSR_TIME_REF_COUNT_AVAILABLE = 1 << 1;
    public const uint HV_MSR_SYNIC_AVAILABLE = 1 << 2;
    public const uint HV_MSR_SYNTIMER_AVAILABLE = 1 << 3;
    public const uint HV_MSR_APIC_ACCESS_AVAILABLE = 1 << 4;
    public const uint HV_MSR_HYPERCALL_AVAILABLE = 1 << 5;
    public const uint HV_MSR_VP_INDEX_AVAILABLE = 1 << 6;
    public const uint HV_MSR_RESET_AVAILABLE = 1 << 7;
    public const uint HV_MSR_REFERENCE_TSC_AVAILABLE = 1 << 9;
    public const uint HV_ACCESS_FREQUENCY_MSRS = 1 << 11;
    public const uint HV_ACCESS_REENLIGHTENMENT = 1 << 13;

    // HYPERV_CPUID_FEATURES.EBX
    public const uint HV_POST_MESSAGES = 1 << 4;
    public const uint HV_SIGNAL_EVENTS = 1 << 5;
    public const uint HV_DEBUGGING = 1 << 11;

    // HYPERV_CPUID_FEATURES.EDX
    public const uint HV_X64_GUEST_DEBUGGING_AVAILABLE = 1 << 1;
    public const uint HV_X64_HYPERCALL_XMM_INPUT_AVAILABLE = 1 << 4;
    public const uint HV_FEATURE_FREQUENCY_MSRS_AVAILABLE = 1 << 8;
    public const uint HV_FEATURE_GUEST_CRASH_MSR_AVAILABLE = 1 << 10;
    public const uint HV_FEATURE_DEBUG_MSRS_AVAILABLE = 1 << 11;
    public const uint HV_STIMER_DIRECT_MODE_AVAILABLE = 1 << 19;

    // HYPERV_CPUID_ENLIGHTMENT_INFO.EAX
    public const uint HV_X64_REMOTE_TLB_FLUSH_RECOMMENDED = 1 << 2;
    public const uint HV_X64_APIC_ACCESS_RECOMMENDED = 1 << 3;
    public const uint HV_X64_RELAXED_TIMING_RECOMMENDED = 1 << 5;
    public const uint HV_DEPRECATING_AEOI_RECOMMENDED = 1 << 9;
    public const uint HV_X64_CLUSTER_IPI_RECOMMENDED = 1 << 10;
    public const uint HV_X64_EX_PROCESSOR_MASKS_RECOMMENDED = 1 << 11;
    public const uint HV_X64_ENLIGHTENED_VMCS_RECOMMENDED = 1 << 14;
    public const uint HV_X64_NO_NONARCH_CORESHARING = 1 << 18;

    // HYPERV_CPUID_NESTED_FEATURES
    public const uint HV_X64_NESTED_MSR_BITMAP = 1 << 19;
    public const uint HV_X64_NESTED_EVMCS1_PERF_GLOBAL_CTRL = 1 << 0;

    // HYPERV_CPUID_SYNDBG_PLATFORM_CAPABILITIES.EAX
    public const uint HV_X64_SYNDBG_CAP_ALLOW_KERNEL_DEBUGGING = 1 << 1;

    // ---- MSRs ----

    public const uint HV_X64_MSR_GUEST_OS_ID = 0x40000000;
    public const uint HV_X64_MSR_HYPERCALL = 0x40000001;
    public const uint HV_X64_MSR_VP_INDEX = 0x40000002;
    public const uint HV_X64_MSR_RESET = 0x40000003;
    public const uint HV_X64_MSR_VP_RUNTIME = 0x40000010;
    public const uint HV_X64_MSR_TIME_REF_COUNT = 0x40000020;
    public const uint HV_X64_MSR_REFERENCE_TSC = 0x40000021;
    public const uint HV_X64_MSR_TSC_FREQUENCY = 0x40000022;
    public const uint HV_X64_MSR_APIC_FREQUENCY = 0x40000023;
    public const uint HV_X64_MSR_EOI = 0x40000070;
    public const uint HV_X64_MSR_ICR = 0x40000071;
    public const uint HV_X64_MSR_TPR = 0x40000072;
    public const uint HV_X64_MSR_VP_ASSIST_PAGE = 0x40000073;
    public const uint HV_X64_MSR_SCONTROL = 0x40000080;
    public const uint HV_X64_MSR_SVERSION = 0x40000081;
    public const uint HV_X64_MSR_SIEFP = 0x40000082;
    public const uint HV_X64_MSR_SIMP = 0x40000083;
    public const uint HV_X64_MSR_EOM = 0x40000084;
    public const uint HV_X64_MSR_SINT0 = 0x40000090;
    public const uint HV_X64_MSR_SINT15 = 0x4000009f;
    public const uint HV_X64_MSR_STIMER0_CONFIG = 0x400000b0;
    public const uint HV_X64_MSR_STIMER3_COUNT = 0x400000b7;
    public const uint HV_X64_MSR_SYNDBG_CONTROL = 0x400000f1;
    public const uint HV_X64_MSR_SYNDBG_STATUS = 0x400000f2;
    public const uint HV_X64_MSR_SYNDBG_SEND_BUFFER = 0x400000f3;
    public const uint HV_X64_MSR_SYNDBG_RECV_BUFFER = 0x400000f4;
    public const uint HV_X64_MSR_SYNDBG_PENDING_BUFFER = 0x400000f5;
    public const uint HV_X64_MSR_SYNDBG_OPTIONS = 0x400000ff;
    public const uint HV_X64_MSR_CRASH_P0 = 0x40000100;
    public const uint HV_X64_MSR_CRASH_P1 = 0x40000101;
    public const uint HV_X64_MSR_CRASH_P2 = 0x40000102;
    public const uint HV_X64_MSR_CRASH_P3 = 0x40000103;
    public const uint HV_X64_MSR_CRASH_P4 = 0x40000104;
    public const uint HV_X64_MSR_CRASH_CTL = 0x40000105;
    public const uint HV_X64_MSR_REENLIGHTENMENT_CONTROL = 0x40000106;
    public const uint HV_X64_MSR_TSC_EMULATION_CONTROL = 0x40000107;
    public const uint HV_X64_MSR_TSC_EMULATION_STATUS = 0x40000108;

    /// <summary>Bit 0 of the MSRs that place a page turns it on; the frame is from bit 12 up.</summary>
    public const ulong HV_X64_MSR_PAGE_ENABLE = 1;
    public const ulong HV_CRASH_CTL_CRASH_NOTIFY = 1ul << 63;
    public const ulong HV_X64_SYNDBG_OPTION_USE_HCALLS = 1 << 2;

    /// <summary>struct hv_vp_assist_page, bytes; its first 32 bits are apic_assist.</summary>
    public const uint HvVpAssistPageSize = 56;

    // ---- synthetic interrupt controller ----

    public const int HV_SYNIC_SINT_COUNT = 16;
    public const int HV_SYNIC_STIMER_COUNT = 4;
    public const ulong HV_SYNIC_VERSION_1 = 1;
    public const int HV_SYNIC_FIRST_VALID_VECTOR = 16;
    public const ulong HV_SYNIC_CONTROL_ENABLE = 1;
    public const ulong HV_SYNIC_SINT_MASKED = 1 << 16;
    public const ulong HV_SYNIC_SINT_AUTO_EOI = 1 << 17;
    public const ulong HV_SYNIC_SINT_VECTOR_MASK = 0xff;
    public const int HV_MESSAGE_SIZE = 256;
    public const uint HVMSG_NONE = 0;
    public const uint HVMSG_TIMER_EXPIRED = 0x80000010;

    // ---- hypercalls ----

    public const ushort HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE = 0x0002;
    public const ushort HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST = 0x0003;
    public const ushort HVCALL_NOTIFY_LONG_SPIN_WAIT = 0x0008;
    public const ushort HVCALL_SEND_IPI = 0x000b;
    public const ushort HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE_EX = 0x0013;
    public const ushort HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST_EX = 0x0014;
    public const ushort HVCALL_SEND_IPI_EX = 0x0015;
    public const ushort HVCALL_POST_MESSAGE = 0x005c;
    public const ushort HVCALL_SIGNAL_EVENT = 0x005d;
    public const ushort HVCALL_POST_DEBUG_DATA = 0x0069;
    public const ushort HVCALL_RETRIEVE_DEBUG_DATA = 0x006a;
    public const ushort HVCALL_RESET_DEBUG_SESSION = 0x006b;

    public const ulong HV_HYPERCALL_FAST_BIT = 1 << 16;

    /// <summary>Bits 31:27, 47:44 and 63:60 of the input value.</summary>
    public const ulong HV_HYPERCALL_RSVD_MASK = 0xf000_f000_f800_0000;
    public const int HV_HYPERCALL_VARHEAD_OFFSET = 17;
    public const int HV_HYPERCALL_REP_COMP_OFFSET = 32;
    public const int HV_HYPERCALL_REP_START_OFFSET = 48;
    public const int HV_HYPERCALL_MAX_XMM_REGISTERS = 6;

    public const ulong HV_STATUS_SUCCESS = 0;
    public const ulong HV_STATUS_INVALID_HYPERCALL_CODE = 2;
    public const ulong HV_STATUS_INVALID_HYPERCALL_INPUT = 3;
    public const ulong HV_STATUS_INVALID_ALIGNMENT = 4;
    public const ulong HV_STATUS_INVALID_PARAMETER = 5;
    public const ulong HV_STATUS_ACCESS_DENIED = 6;
    public const ulong HV_STATUS_OPERATION_DENIED = 8;
    public const ulong HV_STATUS_INVALID_PORT_ID = 17;

    public const ulong HV_FLUSH_ALL_PROCESSORS = 1;
    public const ulong HV_GENERIC_SET_SPARSE_4K = 0;
    public const ulong HV_GENERIC_SET_ALL = 1;
    public const uint HV_IPI_LOW_VECTOR = 0x10;
    public const uint HV_IPI_HIGH_VECTOR = 0xff;
}
