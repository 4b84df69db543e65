// VMX exit reasons (asm/vmx.h). Linux 6.1, x86-64.

namespace Kvm.Abi;

public static partial class Uapi
{
    public const uint VMX_EXIT_REASONS_FAILED_VMENTRY = 0x80000000;
    public const int VMX_EXIT_REASONS_SGX_ENCLAVE_MODE = 0x08000000;

    public const int EXIT_REASON_EXCEPTION_NMI = 0;
    public const int EXIT_REASON_EXTERNAL_INTERRUPT = 1;
    public const int EXIT_REASON_TRIPLE_FAULT = 2;
    public const int EXIT_REASON_INIT_SIGNAL = 3;
    public const int EXIT_REASON_SIPI_SIGNAL = 4;
    public const int EXIT_REASON_INTERRUPT_WINDOW = 7;
    public const int EXIT_REASON_NMI_WINDOW = 8;
    public const int EXIT_REASON_TASK_SWITCH = 9;
    public const int EXIT_REASON_CPUID = 10;
    public const int EXIT_REASON_HLT = 12;
    public const int EXIT_REASON_INVD = 13;
    public const int EXIT_REASON_INVLPG = 14;
    public const int EXIT_REASON_RDPMC = 15;
    public const int EXIT_REASON_RDTSC = 16;
    public const int EXIT_REASON_VMCALL = 18;
    public const int EXIT_REASON_VMCLEAR = 19;
    public const int EXIT_REASON_VMLAUNCH = 20;
    public const int EXIT_REASON_VMPTRLD = 21;
    public const int EXIT_REASON_VMPTRST = 22;
    public const int EXIT_REASON_VMREAD = 23;
    public const int EXIT_REASON_VMRESUME = 24;
    public const int EXIT_REASON_VMWRITE = 25;
    public const int EXIT_REASON_VMOFF = 26;
    public const int EXIT_REASON_VMON = 27;
    public const int EXIT_REASON_CR_ACCESS = 28;
    public const int EXIT_REASON_DR_ACCESS = 29;
    public const int EXIT_REASON_IO_INSTRUCTION = 30;
    public const int EXIT_REASON_MSR_READ = 31;
    public const int EXIT_REASON_MSR_WRITE = 32;
    public const int EXIT_REASON_INVALID_STATE = 33;
    public const int EXIT_REASON_MSR_LOAD_FAIL = 34;
    public const int EXIT_REASON_MWAIT_INSTRUCTION = 36;
    public const int EXIT_REASON_MONITOR_TRAP_FLAG = 37;
    public const int EXIT_REASON_MONITOR_INSTRUCTION = 39;
    public const int EXIT_REASON_PAUSE_INSTRUCTION = 40;
    public const int EXIT_REASON_MCE_DURING_VMENTRY = 41;
    public const int EXIT_REASON_TPR_BELOW_THRESHOLD = 43;
    public const int EXIT_REASON_APIC_ACCESS = 44;
    public const int EXIT_REASON_EOI_INDUCED = 45;
    public const int EXIT_REASON_GDTR_IDTR = 46;
    public const int EXIT_REASON_LDTR_TR = 47;
    public const int EXIT_REASON_EPT_VIOLATION = 48;
    public const int EXIT_REASON_EPT_MISCONFIG = 49;
    public const int EXIT_REASON_INVEPT = 50;
    public const int EXIT_REASON_RDTSCP = 51;
    public const int EXIT_REASON_PREEMPTION_TIMER = 52;
    public const int EXIT_REASON_INVVPID = 53;
    public const int EXIT_REASON_WBINVD = 54;
    public const int EXIT_REASON_XSETBV = 55;
    public const int EXIT_REASON_APIC_WRITE = 56;
    public const int EXIT_REASON_RDRAND = 57;
    public const int EXIT_REASON_INVPCID = 58;
    public const int EXIT_REASON_VMFUNC = 59;
    public const int EXIT_REASON_ENCLS = 60;
    public const int EXIT_REASON_RDSEED = 61;
    public const int EXIT_REASON_PML_FULL = 62;
    public const int EXIT_REASON_XSAVES = 63;
    public const int EXIT_REASON_XRSTORS = 64;
    public const int EXIT_REASON_UMWAIT = 67;
    public const int EXIT_REASON_TPAUSE = 68;
    public const int EXIT_REASON_BUS_LOCK = 74;
    public const int EXIT_REASON_NOTIFY = 75;

    public const int VMX_ABORT_SAVE_GUEST_MSR_FAIL = 1;
    public const int VMX_ABORT_LOAD_HOST_PDPTE_FAIL = 2;
    public const int VMX_ABORT_LOAD_HOST_MSR_FAIL = 4;

    /// <summary>The names that the <c>kvm_exit</c> tracepoint prints, in the header's order.</summary>
    public static readonly IReadOnlyList<KeyValuePair<uint, string>> VMX_EXIT_REASONS =
    [
        new(EXIT_REASON_EXCEPTION_NMI, "EXCEPTION_NMI"),
        new(EXIT_REASON_EXTERNAL_INTERRUPT, "EXTERNAL_INTERRUPT"),
        new(EXIT_REASON_TRIPLE_FAULT, "TRIPLE_FAULT"),
        new(EXIT_REASON_INIT_SIGNAL, "INIT_SIGNAL"),
        new(EXIT_REASON_SIPI_SIGNAL, "SIPI_SIGNAL"),
        new(EXIT_REASON_INTERRUPT_WINDOW, "INTERRUPT_WINDOW"),
        new(EXIT_REASON_NMI_WINDOW, "NMI_WINDOW"),
        new(EXIT_REASON_TASK_SWITCH, "TASK_SWITCH"),
        new(EXIT_REASON_CPUID, "CPUID"),
        new(EXIT_REASON_HLT, "HLT"),
        new(EXIT_REASON_INVD, "INVD"),
        new(EXIT_REASON_INVLPG, "INVLPG"),
        new(EXIT_REASON_RDPMC, "RDPMC"),
        new(EXIT_REASON_RDTSC, "RDTSC"),
        new(EXIT_REASON_VMCALL, "VMCALL"),
        new(EXIT_REASON_VMCLEAR, "VMCLEAR"),
        new(EXIT_REASON_VMLAUNCH, "VMLAUNCH"),
        new(EXIT_REASON_VMPTRLD, "VMPTRLD"),
        new(EXIT_REASON_VMPTRST, "VMPTRST"),
        new(EXIT_REASON_VMREAD, "VMREAD"),
        new(EXIT_REASON_VMRESUME, "VMRESUME"),
        new(EXIT_REASON_VMWRITE, "VMWRITE"),
        new(EXIT_REASON_VMOFF, "VMOFF"),
        new(EXIT_REASON_VMON, "VMON"),
        new(EXIT_REASON_CR_ACCESS, "CR_ACCESS"),
        new(EXIT_REASON_DR_ACCESS, "DR_ACCESS"),
        new(EXIT_REASON_IO_INSTRUCTION, "IO_INSTRUCTION"),
        new(EXIT_REASON_MSR_READ, "MSR_READ"),
        new(EXIT_REASON_MSR_WRITE, "MSR_WRITE"),
        new(EXIT_REASON_INVALID_STATE, "INVALID_STATE"),
        new(EXIT_REASON_MSR_LOAD_FAIL, "MSR_LOAD_FAIL"),
        new(EXIT_REASON_MWAIT_INSTRUCTION, "MWAIT_INSTRUCTION"),
        new(EXIT_REASON_MONITOR_TRAP_FLAG, "MONITOR_TRAP_FLAG"),
        new(EXIT_REASON_MONITOR_INSTRUCTION, "MONITOR_INSTRUCTION"),
        new(EXIT_REASON_PAUSE_INSTRUCTION, "PAUSE_INSTRUCTION"),
        new(EXIT_REASON_MCE_DURING_VMENTRY, "MCE_DURING_VMENTRY"),
        new(EXIT_REASON_TPR_BELOW_THRESHOLD, "TPR_BELOW_THRESHOLD"),
        new(EXIT_REASON_APIC_ACCESS, "APIC_ACCESS"),
        new(EXIT_REASON_EOI_INDUCED, "EOI_INDUCED"),
        new(EXIT_REASON_GDTR_IDTR, "GDTR_IDTR"),
        new(EXIT_REASON_LDTR_TR, "LDTR_TR"),
        new(EXIT_REASON_EPT_VIOLATION, "EPT_VIOLATION"),
        new(EXIT_REASON_EPT_MISCONFIG, "EPT_MISCONFIG"),
        new(EXIT_REASON_INVEPT, "INVEPT"),
        new(EXIT_REASON_RDTSCP, "RDTSCP"),
        new(EXIT_REASON_PREEMPTION_TIMER, "PREEMPTION_TIMER"),
        new(EXIT_REASON_INVVPID, "INVVPID"),
        new(EXIT_REASON_WBINVD, "WBINVD"),
        new(EXIT_REASON_XSETBV, "XSETBV"),
        new(EXIT_REASON_APIC_WRITE, "APIC_WRITE"),
        new(EXIT_REASON_RDRAND, "RDRAND"),
        new(EXIT_REASON_INVPCID, "INVPCID"),
        new(EXIT_REASON_VMFUNC, "VMFUNC"),
        new(EXIT_REASON_ENCLS, "ENCLS"),
        new(EXIT_REASON_RDSEED, "RDSEED"),
        new(EXIT_REASON_PML_FULL, "PML_FULL"),
        new(EXIT_REASON_XSAVES, "XSAVES"),
        new(EXIT_REASON_XRSTORS, "XRSTORS"),
        new(EXIT_REASON_UMWAIT, "UMWAIT"),
        new(EXIT_REASON_TPAUSE, "TPAUSE"),
        new(EXIT_REASON_BUS_LOCK, "BUS_LOCK"),
        new(EXIT_REASON_NOTIFY, "NOTIFY"),
    ];

    /// <summary>The names that the <c>kvm_exit</c> tracepoint prints, in the header's order.</summary>
    public static readonly IReadOnlyList<KeyValuePair<uint, string>> VMX_EXIT_REASON_FLAGS =
    [
        new(VMX_EXIT_REASONS_FAILED_VMENTRY, "FAILED_VMENTRY"),
    ];
}
