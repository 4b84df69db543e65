namespace Kvm.Arch.X86;

/// <summary>What the vendor must do around the next entry.</summary>
/// <remarks>enum kvm_x86_run_flags, asm/kvm_host.h.</remarks>
[Flags]
public enum KvmX86RunFlags : ulong
{
    None = 0,
    KVM_RUN_FORCE_IMMEDIATE_EXIT = 1 << 0,
    KVM_RUN_LOAD_GUEST_DR6 = 1 << 1,
    KVM_RUN_LOAD_DEBUGCTL = 1 << 2,
}
