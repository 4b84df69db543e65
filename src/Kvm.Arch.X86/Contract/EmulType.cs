namespace Kvm.Arch.X86;

/// <summary>Why and how the instruction emulator emulates.</summary>
/// <remarks>EMULTYPE_*, asm/kvm_host.h.</remarks>
[Flags]
public enum EmulType
{
    None = 0,

    /// <summary>Complete an access that went to userspace: do not decode again.</summary>
    EMULTYPE_NO_DECODE = 1 << 0,
    EMULTYPE_TRAP_UD = 1 << 1,

    /// <summary>Only advance RIP over the instruction.</summary>
    EMULTYPE_SKIP = 1 << 2,
    EMULTYPE_ALLOW_RETRY_PF = 1 << 3,
    EMULTYPE_TRAP_UD_FORCED = 1 << 4,
    EMULTYPE_VMWARE_GP = 1 << 5,

    /// <summary>The emulation is caused by an intercepted page fault.</summary>
    EMULTYPE_PF = 1 << 6,
    EMULTYPE_COMPLETE_USER_EXIT = 1 << 7,
    EMULTYPE_WRITE_PF_TO_SP = 1 << 8,

    /// <summary>With EMULTYPE_SKIP: only if the instruction is INT n, INT3, INTO.</summary>
    EMULTYPE_SKIP_SOFT_INT = 1 << 9,
}
