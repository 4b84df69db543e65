namespace Kvm.Arch.X86;

/// <summary>A port access that userspace (or an in-kernel device) still has to complete.</summary>
/// <remarks>struct kvm_pio_request, asm/kvm_host.h.</remarks>
public struct KvmPioRequest
{
    public ulong LinearRip;
    public ulong Count;
    public ushort Port;
    public bool In;
    public int Size;
}
