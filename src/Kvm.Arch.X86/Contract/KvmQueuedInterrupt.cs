namespace Kvm.Arch.X86;

/// <summary>The interrupt that the next entry injects, or that an exit interrupted on its way.</summary>
/// <remarks>struct kvm_queued_interrupt, asm/kvm_host.h.</remarks>
public struct KvmQueuedInterrupt
{
    public bool Injected;
    public bool Soft;
    public byte Nr;
}
