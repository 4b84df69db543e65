// SVM exit codes (asm/svm.h). Linux 6.1, x86-64.

namespace Kvm.Abi;

public static partial class Uapi
{
    public const int SVM_EXIT_READ_CR0 = 0x000;
    public const int SVM_EXIT_READ_CR2 = 0x002;
    public const int SVM_EXIT_READ_CR3 = 0x003;
    public const int SVM_EXIT_READ_CR4 = 0x004;
    public const int SVM_EXIT_READ_CR8 = 0x008;
    public const int SVM_EXIT_WRITE_CR0 = 0x010;
    public const int SVM_EXIT_WRITE_CR2 = 0x012;
    public const int SVM_EXIT_WRITE_CR3 = 0x013;
    public const int SVM_EXIT_WRITE_CR4 = 0x014;
    public const int SVM_EXIT_WRITE_CR8 = 0x018;
    public const int SVM_EXIT_READ_DR0 = 0x020;
    public const int SVM_EXIT_READ_DR1 = 0x021;
    public const int SVM_EXIT_READ_DR2 = 0x022;
    public const int SVM_EXIT_READ_DR3 = 0x023;
    public const int SVM_EXIT_READ_DR4 = 0x024;
    public const int SVM_EXIT_READ_DR5 = 0x025;
    public const int SVM_EXIT_READ_DR6 = 0x026;
    public const int SVM_EXIT_READ_DR7 = 0x027;
    public const int SVM_EXIT_WRITE_DR0 = 0x030;
    public const int SVM_EXIT_WRITE_DR1 = 0x031;
    public const int SVM_EXIT_WRITE_DR2 = 0x032;
    public const int SVM_EXIT_WRITE_DR3 = 0x033;
    public const int SVM_EXIT_WRITE_DR4 = 0x034;
    public const int SVM_EXIT_WRITE_DR5 = 0x035;
    public const int SVM_EXIT_WRITE_DR6 = 0x036;
    public const int SVM_EXIT_WRITE_DR7 = 0x037;
    public const int SVM_EXIT_EXCP_BASE = 0x040;
    public const int SVM_EXIT_LAST_EXCP = 0x05f;
    public const int SVM_EXIT_INTR = 0x060;
    public const int SVM_EXIT_NMI = 0x061;
    public const int SVM_EXIT_SMI = 0x062;
    public const int SVM_EXIT_INIT = 0x063;
    public const int SVM_EXIT_VINTR = 0x064;
    public const int SVM_EXIT_CR0_SEL_WRITE = 0x065;
    public const int SVM_EXIT_IDTR_READ = 0x066;
    public const int SVM_EXIT_GDTR_READ = 0x067;
    public const int SVM_EXIT_LDTR_READ = 0x068;
    public const int SVM_EXIT_TR_READ = 0x069;
    public const int SVM_EXIT_IDTR_WRITE = 0x06a;
    public const int SVM_EXIT_GDTR_WRITE = 0x06b;
    public const int SVM_EXIT_LDTR_WRITE = 0x06c;
    public const int SVM_EXIT_TR_WRITE = 0x06d;
    public const int SVM_EXIT_RDTSC = 0x06e;
    public const int SVM_EXIT_RDPMC = 0x06f;
    public const int SVM_EXIT_PUSHF = 0x070;
    public const int SVM_EXIT_POPF = 0x071;
    public const int SVM_EXIT_CPUID = 0x072;
    public const int SVM_EXIT_RSM = 0x073;
    public const int SVM_EXIT_IRET = 0x074;
    public const int SVM_EXIT_SWINT = 0x075;
    public const int SVM_EXIT_INVD = 0x076;
    public const int SVM_EXIT_PAUSE = 0x077;
    public const int SVM_EXIT_HLT = 0x078;
    public const int SVM_EXIT_INVLPG = 0x079;
    public const int SVM_EXIT_INVLPGA = 0x07a;
    public const int SVM_EXIT_IOIO = 0x07b;
    public const int SVM_EXIT_MSR = 0x07c;
    public const int SVM_EXIT_TASK_SWITCH = 0x07d;
    public const int SVM_EXIT_FERR_FREEZE = 0x07e;
    public const int SVM_EXIT_SHUTDOWN = 0x07f;
    public const int SVM_EXIT_VMRUN = 0x080;
    public const int SVM_EXIT_VMMCALL = 0x081;
    public const int SVM_EXIT_VMLOAD = 0x082;
    public const int SVM_EXIT_VMSAVE = 0x083;
    public const int SVM_EXIT_STGI = 0x084;
    public const int SVM_EXIT_CLGI = 0x085;
    public const int SVM_EXIT_SKINIT = 0x086;
    public const int SVM_EXIT_RDTSCP = 0x087;
    public const int SVM_EXIT_ICEBP = 0x088;
    public const int SVM_EXIT_WBINVD = 0x089;
    public const int SVM_EXIT_MONITOR = 0x08a;
    public const int SVM_EXIT_MWAIT = 0x08b;
    public const int SVM_EXIT_MWAIT_COND = 0x08c;
    public const int SVM_EXIT_XSETBV = 0x08d;
    public const int SVM_EXIT_RDPRU = 0x08e;
    public const int SVM_EXIT_EFER_WRITE_TRAP = 0x08f;
    public const int SVM_EXIT_CR0_WRITE_TRAP = 0x090;
    public const int SVM_EXIT_CR1_WRITE_TRAP = 0x091;
    public const int SVM_EXIT_CR2_WRITE_TRAP = 0x092;
    public const int SVM_EXIT_CR3_WRITE_TRAP = 0x093;
    public const int SVM_EXIT_CR4_WRITE_TRAP = 0x094;
    public const int SVM_EXIT_CR5_WRITE_TRAP = 0x095;
    public const int SVM_EXIT_CR6_WRITE_TRAP = 0x096;
    public const int SVM_EXIT_CR7_WRITE_TRAP = 0x097;
    public const int SVM_EXIT_CR8_WRITE_TRAP = 0x098;
    public const int SVM_EXIT_CR9_WRITE_TRAP = 0x099;
    public const int SVM_EXIT_CR10_WRITE_TRAP = 0x09a;
    public const int SVM_EXIT_CR11_WRITE_TRAP = 0x09b;
    public const int SVM_EXIT_CR12_WRITE_TRAP = 0x09c;
    public const int SVM_EXIT_CR13_WRITE_TRAP = 0x09d;
    public const int SVM_EXIT_CR14_WRITE_TRAP = 0x09e;
    public const int SVM_EXIT_CR15_WRITE_TRAP = 0x09f;
    public const int SVM_EXIT_INVPCID = 0x0a2;
    public const int SVM_EXIT_NPF = 0x400;
    public const int SVM_EXIT_AVIC_INCOMPLETE_IPI = 0x401;
    public const int SVM_EXIT_AVIC_UNACCELERATED_ACCESS = 0x402;
    public const int SVM_EXIT_VMGEXIT = 0x403;

    public const uint SVM_VMGEXIT_MMIO_READ = 0x80000001;
    public const uint SVM_VMGEXIT_MMIO_WRITE = 0x80000002;
    public const uint SVM_VMGEXIT_NMI_COMPLETE = 0x80000003;
    public const uint SVM_VMGEXIT_AP_HLT_LOOP = 0x80000004;
    public const uint SVM_VMGEXIT_AP_JUMP_TABLE = 0x80000005;
    public const int SVM_VMGEXIT_SET_AP_JUMP_TABLE = 0;
    public const int SVM_VMGEXIT_GET_AP_JUMP_TABLE = 1;
    public const uint SVM_VMGEXIT_PSC = 0x80000010;
    public const uint SVM_VMGEXIT_GUEST_REQUEST = 0x80000011;
    public const uint SVM_VMGEXIT_EXT_GUEST_REQUEST = 0x80000012;
    public const uint SVM_VMGEXIT_AP_CREATION = 0x80000013;
    public const int SVM_VMGEXIT_AP_CREATE_ON_INIT = 0;
    public const int SVM_VMGEXIT_AP_CREATE = 1;
    public const int SVM_VMGEXIT_AP_DESTROY = 2;
    public const uint SVM_VMGEXIT_HV_FEATURES = 0x8000fffd;
    public const uint SVM_VMGEXIT_TERM_REQUEST = 0x8000fffe;
    public const uint SVM_VMGEXIT_UNSUPPORTED_EVENT = 0x8000ffff;

    public const uint SVM_EXIT_SW = 0xf0000000;
    public const int SVM_EXIT_ERR = -1;

    /// <summary>The names that the <c>kvm_exit</c> tracepoint prints, in the header's order.</summary>
    public static readonly IReadOnlyList<KeyValuePair<ulong, string>> SVM_EXIT_REASONS =
    [
        new(SVM_EXIT_READ_CR0, "read_cr0"),
        new(SVM_EXIT_READ_CR2, "read_cr2"),
        new(SVM_EXIT_READ_CR3, "read_cr3"),
        new(SVM_EXIT_READ_CR4, "read_cr4"),
        new(SVM_EXIT_READ_CR8, "read_cr8"),
        new(SVM_EXIT_WRITE_CR0, "write_cr0"),
        new(SVM_EXIT_WRITE_CR2, "write_cr2"),
        new(SVM_EXIT_WRITE_CR3, "write_cr3"),
        new(SVM_EXIT_WRITE_CR4, "write_cr4"),
        new(SVM_EXIT_WRITE_CR8, "write_cr8"),
        new(SVM_EXIT_READ_DR0, "read_dr0"),
        new(SVM_EXIT_READ_DR1, "read_dr1"),
        new(SVM_EXIT_READ_DR2, "read_dr2"),
        new(SVM_EXIT_READ_DR3, "read_dr3"),
        new(SVM_EXIT_READ_DR4, "read_dr4"),
        new(SVM_EXIT_READ_DR5, "read_dr5"),
        new(SVM_EXIT_READ_DR6, "read_dr6"),
        new(SVM_EXIT_READ_DR7, "read_dr7"),
        new(SVM_EXIT_WRITE_DR0, "write_dr0"),
        new(SVM_EXIT_WRITE_DR1, "write_dr1"),
        new(SVM_EXIT_WRITE_DR2, "write_dr2"),
        new(SVM_EXIT_WRITE_DR3, "write_dr3"),
        new(SVM_EXIT_WRITE_DR4, "write_dr4"),
        new(SVM_EXIT_WRITE_DR5, "write_dr5"),
        new(SVM_EXIT_WRITE_DR6, "write_dr6"),
        new(SVM_EXIT_WRITE_DR7, "write_dr7"),
        new(SVM_EXIT_EXCP_BASE + DE_VECTOR, "DE excp"),
        new(SVM_EXIT_EXCP_BASE + DB_VECTOR, "DB excp"),
        new(SVM_EXIT_EXCP_BASE + BP_VECTOR, "BP excp"),
        new(SVM_EXIT_EXCP_BASE + OF_VECTOR, "OF excp"),
        new(SVM_EXIT_EXCP_BASE + BR_VECTOR, "BR excp"),
        new(SVM_EXIT_EXCP_BASE + UD_VECTOR, "UD excp"),
        new(SVM_EXIT_EXCP_BASE + NM_VECTOR, "NM excp"),
        new(SVM_EXIT_EXCP_BASE + DF_VECTOR, "DF excp"),
        new(SVM_EXIT_EXCP_BASE + TS_VECTOR, "TS excp"),
        new(SVM_EXIT_EXCP_BASE + NP_VECTOR, "NP excp"),
        new(SVM_EXIT_EXCP_BASE + SS_VECTOR, "SS excp"),
        new(SVM_EXIT_EXCP_BASE + GP_VECTOR, "GP excp"),
        new(SVM_EXIT_EXCP_BASE + PF_VECTOR, "PF excp"),
        new(SVM_EXIT_EXCP_BASE + MF_VECTOR, "MF excp"),
        new(SVM_EXIT_EXCP_BASE + AC_VECTOR, "AC excp"),
        new(SVM_EXIT_EXCP_BASE + MC_VECTOR, "MC excp"),
        new(SVM_EXIT_EXCP_BASE + XM_VECTOR, "XF excp"),
        new(SVM_EXIT_INTR, "interrupt"),
        new(SVM_EXIT_NMI, "nmi"),
        new(SVM_EXIT_SMI, "smi"),
        new(SVM_EXIT_INIT, "init"),
        new(SVM_EXIT_VINTR, "vintr"),
        new(SVM_EXIT_CR0_SEL_WRITE, "cr0_sel_write"),
        new(SVM_EXIT_IDTR_READ, "read_idtr"),
        new(SVM_EXIT_GDTR_READ, "read_gdtr"),
        new(SVM_EXIT_LDTR_READ, "read_ldtr"),
        new(SVM_EXIT_TR_READ, "read_rt"),
        new(SVM_EXIT_IDTR_WRITE, "write_idtr"),
        new(SVM_EXIT_GDTR_WRITE, "write_gdtr"),
        new(SVM_EXIT_LDTR_WRITE, "write_ldtr"),
        new(SVM_EXIT_TR_WRITE, "write_rt"),
        new(SVM_EXIT_RDTSC, "rdtsc"),
        new(SVM_EXIT_RDPMC, "rdpmc"),
        new(SVM_EXIT_PUSHF, "pushf"),
        new(SVM_EXIT_POPF, "popf"),
        new(SVM_EXIT_CPUID, "cpuid"),
        new(SVM_EXIT_RSM, "rsm"),
        new(SVM_EXIT_IRET, "iret"),
        new(SVM_EXIT_SWINT, "swint"),
        new(SVM_EXIT_INVD, "invd"),
        new(SVM_EXIT_PAUSE, "pause"),
        new(SVM_EXIT_HLT, "hlt"),
        new(SVM_EXIT_INVLPG, "invlpg"),
        new(SVM_EXIT_INVLPGA, "invlpga"),
        new(SVM_EXIT_IOIO, "io"),
        new(SVM_EXIT_MSR, "msr"),
        new(SVM_EXIT_TASK_SWITCH, "task_switch"),
        new(SVM_EXIT_FERR_FREEZE, "ferr_freeze"),
        new(SVM_EXIT_SHUTDOWN, "shutdown"),
        new(SVM_EXIT_VMRUN, "vmrun"),
        new(SVM_EXIT_VMMCALL, "hypercall"),
        new(SVM_EXIT_VMLOAD, "vmload"),
        new(SVM_EXIT_VMSAVE, "vmsave"),
        new(SVM_EXIT_STGI, "stgi"),
        new(SVM_EXIT_CLGI, "clgi"),
        new(SVM_EXIT_SKINIT, "skinit"),
        new(SVM_EXIT_RDTSCP, "rdtscp"),
        new(SVM_EXIT_ICEBP, "icebp"),
        new(SVM_EXIT_WBINVD, "wbinvd"),
        new(SVM_EXIT_MONITOR, "monitor"),
        new(SVM_EXIT_MWAIT, "mwait"),
        new(SVM_EXIT_XSETBV, "xsetbv"),
        new(SVM_EXIT_EFER_WRITE_TRAP, "write_efer_trap"),
        new(SVM_EXIT_CR0_WRITE_TRAP, "write_cr0_trap"),
        new(SVM_EXIT_CR4_WRITE_TRAP, "write_cr4_trap"),
        new(SVM_EXIT_CR8_WRITE_TRAP, "write_cr8_trap"),
        new(SVM_EXIT_INVPCID, "invpcid"),
        new(SVM_EXIT_NPF, "npf"),
        new(SVM_EXIT_AVIC_INCOMPLETE_IPI, "avic_incomplete_ipi"),
        new(SVM_EXIT_AVIC_UNACCELERATED_ACCESS, "avic_unaccelerated_access"),
        new(SVM_EXIT_VMGEXIT, "vmgexit"),
        new(SVM_VMGEXIT_MMIO_READ, "vmgexit_mmio_read"),
        new(SVM_VMGEXIT_MMIO_WRITE, "vmgexit_mmio_write"),
        new(SVM_VMGEXIT_NMI_COMPLETE, "vmgexit_nmi_complete"),
        new(SVM_VMGEXIT_AP_HLT_LOOP, "vmgexit_ap_hlt_loop"),
        new(SVM_VMGEXIT_AP_JUMP_TABLE, "vmgexit_ap_jump_table"),
        new(SVM_VMGEXIT_PSC, "vmgexit_page_state_change"),
        new(SVM_VMGEXIT_GUEST_REQUEST, "vmgexit_guest_request"),
        new(SVM_VMGEXIT_EXT_GUEST_REQUEST, "vmgexit_ext_guest_request"),
        new(SVM_VMGEXIT_AP_CREATION, "vmgexit_ap_creation"),
        new(SVM_VMGEXIT_HV_FEATURES, "vmgexit_hypervisor_feature"),
        new(unchecked((ulong)(SVM_EXIT_ERR)), "invalid_guest_state"),
    ];

    public static ulong SVM_VMGEXIT_TERM_REASON(ulong reason_set, ulong reason_code) => (reason_set & 0xf) | ((reason_code & 0xff) << 4);
}
