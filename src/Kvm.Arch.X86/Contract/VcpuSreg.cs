namespace Kvm.Arch.X86;

/// <summary>Segment registers in the order of struct kvm_sregs and of the instruction encoding.</summary>
/// <remarks>enum in asm/kvm_host.h.</remarks>
public static class VcpuSreg
{
    public const int VCPU_SREG_ES = 0;
    public const int VCPU_SREG_CS = 1;
    public const int VCPU_SREG_SS = 2;
    public const int VCPU_SREG_DS = 3;
    public const int VCPU_SREG_FS = 4;
    public const int VCPU_SREG_GS = 5;
    public const int VCPU_SREG_TR = 6;
    public const int VCPU_SREG_LDTR = 7;
}
