namespace Kvm.Arch.X86;

/// <summary>One MSR access: by the guest, or by userspace (<see cref="HostInitiated"/>).</summary>
/// <remarks>struct msr_data, asm/kvm_host.h.</remarks>
public struct MsrData
{
    public bool HostInitiated;
    public uint Index;
    public ulong Data;

    public MsrData(uint index, ulong data, bool hostInitiated)
    {
        Index = index;
        Data = data;
        HostInitiated = hostInitiated;
    }
}
