namespace Kvm.Arch.X86;

/// <summary>Registers of <see cref="X86Vcpu"/>: general registers live in memory, the others are read from the hardware on demand.</summary>
/// <remarks>enum kvm_reg, asm/kvm_host.h.</remarks>
public enum KvmReg
{
    VCPU_REGS_RAX = 0,
    VCPU_REGS_RCX = 1,
    VCPU_REGS_RDX = 2,
    VCPU_REGS_RBX = 3,
    VCPU_REGS_RSP = 4,
    VCPU_REGS_RBP = 5,
    VCPU_REGS_RSI = 6,
    VCPU_REGS_RDI = 7,
    VCPU_REGS_R8 = 8,
    VCPU_REGS_R9 = 9,
    VCPU_REGS_R10 = 10,
    VCPU_REGS_R11 = 11,
    VCPU_REGS_R12 = 12,
    VCPU_REGS_R13 = 13,
    VCPU_REGS_R14 = 14,
    VCPU_REGS_R15 = 15,
    VCPU_REGS_RIP = 16,
    NR_VCPU_REGS = 17,

    VCPU_EXREG_PDPTR = NR_VCPU_REGS,
    VCPU_EXREG_CR0 = 18,
    VCPU_EXREG_CR3 = 19,
    VCPU_EXREG_CR4 = 20,
    VCPU_EXREG_RFLAGS = 21,
    VCPU_EXREG_SEGMENTS = 22,
    VCPU_EXREG_EXIT_INFO_1 = 23,
    VCPU_EXREG_EXIT_INFO_2 = 24,
}
