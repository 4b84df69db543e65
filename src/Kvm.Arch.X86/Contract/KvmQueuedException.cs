namespace Kvm.Arch.X86;

/// <summary>The exception that waits for injection (<see cref="Pending"/>) or that an entry already carried (<see cref="Injected"/>).</summary>
/// <remarks>struct kvm_queued_exception, asm/kvm_host.h.</remarks>
public struct KvmQueuedException
{
    public bool Pending;
    public bool Injected;
    public bool HasErrorCode;
    public byte Vector;
    public uint ErrorCode;
    public ulong Payload;
    public bool HasPayload;
}
