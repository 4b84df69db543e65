namespace Kvm.Arch.X86;

/// <summary>struct pvclock_vcpu_time_info, as KVM last computed it: how guests get nanoseconds from their TSC.</summary>
/// <remarks>asm/pvclock-abi.h; vcpu->arch.hv_clock.</remarks>
public struct PvclockVcpuTimeInfo
{
    public ulong TscTimestamp;
    public ulong SystemTime;
    public uint TscToSystemMul;
    public sbyte TscShift;

    /// <summary>PVCLOCK_TSC_STABLE_BIT: all vCPUs share one master clock.</summary>
    public bool TscStable;
}
