namespace Kvm.Arch.X86;

/// <summary>What the hardware lets KVM offer, beyond CPUID bits; the vendor's hardware_setup fills it.</summary>
/// <remarks>struct kvm_caps, x86.h.</remarks>
public sealed class KvmCaps
{
    public bool HasTscControl;
    public uint MaxGuestTscKhz;
    public byte TscScalingRatioFracBits;
    public ulong MaxTscScalingRatio;
    public ulong DefaultTscScalingRatio = 1;
    public bool HasBusLockExit;
    public bool HasNotifyVmexit;
    public ulong SupportedMceCap = MsrBits.MCG_CTL_P | MsrBits.MCG_SER_P;
    public ulong SupportedXcr0;
    public ulong SupportedXss;
    public ulong SupportedPerfCap;
}
