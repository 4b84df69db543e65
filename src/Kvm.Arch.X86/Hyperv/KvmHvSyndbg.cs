namespace Kvm.Arch.X86;

/// <summary>struct kvm_hv_syndbg: registers of the synthetic debugger, which userspace plays.</summary>
public struct KvmHvSyndbg
{
    public ulong Control, Status, SendPage, RecvPage, PendingPage, Options;
}
