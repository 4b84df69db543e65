using System.Globalization;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Svm;

/// <summary>Names of exit codes in the kvm_exit tracepoint.</summary>
/// <remarks>SVM_EXIT_REASONS, uapi/asm/svm.h ("read_rt" is the kernel's spelling).</remarks>
internal static class SvmExitNames
{
    private static readonly string[] instructions =
    [
        "interrupt", "nmi", "smi", "init", "vintr", "cr0_sel_write", "read_idtr", "read_gdtr", "read_ldtr", "read_rt", "write_idtr", "write_gdtr",
        "write_ldtr", "write_rt", "rdtsc", "rdpmc", "pushf", "popf", "cpuid", "rsm", "iret", "swint", "invd", "pause", "hlt", "invlpg", "invlpga", "io", "msr",
        "task_switch", "ferr_freeze", "shutdown", "vmrun", "hypercall", "vmload", "vmsave", "stgi", "clgi", "skinit", "rdtscp", "icebp", "wbinvd", "monitor", "mwait",
    ];

    private static readonly string[] exceptions = ["DE excp", "DB excp", "", "BP excp", "OF excp", "BR excp", "UD excp", "NM excp", "DF excp", "", "TS excp", "NP excp", "SS excp",
        "GP excp", "PF excp", "", "MF excp", "AC excp", "MC excp", "XF excp"];

    public static string Of(uint code) => (int)code switch
    {
        SVM_EXIT_ERR => "invalid_guest_state",
        SVM_EXIT_NPF => "npf",
        SVM_EXIT_XSETBV => "xsetbv",
        SVM_EXIT_INVPCID => "invpcid",
        SVM_EXIT_EFER_WRITE_TRAP => "write_efer_trap",
        SVM_EXIT_CR0_WRITE_TRAP => "write_cr0_trap",
        SVM_EXIT_CR4_WRITE_TRAP => "write_cr4_trap",
        SVM_EXIT_CR8_WRITE_TRAP => "write_cr8_trap",
        SVM_EXIT_AVIC_INCOMPLETE_IPI => "avic_incomplete_ipi",
        SVM_EXIT_AVIC_UNACCELERATED_ACCESS => "avic_unaccelerated_access",
        SVM_EXIT_VMGEXIT => "vmgexit",
        >= 0x00 and <= 0x0f and (0 or 2 or 3 or 4 or 8) => $"read_cr{code}",
        >= 0x10 and <= 0x1f and (0x10 or 0x12 or 0x13 or 0x14 or 0x18) => $"write_cr{code - 0x10}",
        >= 0x20 and <= 0x27 => $"read_dr{code - 0x20}",
        >= 0x30 and <= 0x37 => $"write_dr{code - 0x30}",
        >= 0x40 and < 0x54 when exceptions[code - 0x40].Length != 0 => exceptions[code - 0x40],
        >= 0x60 and <= 0x8b => instructions[code - 0x60],
        _ => "0x" + code.ToString("x", CultureInfo.InvariantCulture),
    };
}
