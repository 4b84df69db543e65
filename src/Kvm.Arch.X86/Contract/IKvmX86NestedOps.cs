using Kvm.Abi;

namespace Kvm.Arch.X86;

/// <summary>Nested virtualization: what common code asks about a running L2 guest.</summary>
/// <remarks>struct kvm_x86_nested_ops, asm/kvm_host.h. The defaults describe a vendor without nested guests.</remarks>
public interface IKvmX86NestedOps
{
    void LeaveNested(X86Vcpu vcpu) { }

    bool IsExceptionVmexit(X86Vcpu vcpu, byte vector, uint errorCode) => false;

    int CheckEvents(X86Vcpu vcpu) => 0;

    bool HasEvents(X86Vcpu vcpu, bool forInjection) => false;

    void TripleFault(X86Vcpu vcpu) { }

    bool GetNestedStatePages(X86Vcpu vcpu) => true;

    /// <summary>The largest state that KVM_GET_NESTED_STATE can return, in bytes; also KVM_CAP_NESTED_STATE. 0: not supported.</summary>
    uint MaxStateSize => 0;

    /// <summary>Writes at most <paramref name="userDataSize"/> bytes at <paramref name="userState"/>; returns the size needed, or -errno.</summary>
    int GetState(X86Vcpu vcpu, ulong userState, uint userDataSize) => -Errnos.EINVAL;

    int SetState(X86Vcpu vcpu, ulong userState, ref kvm_nested_state state) => -Errnos.EINVAL;

    /// <summary>True if enable_evmcs exists (KVM_CAP_HYPERV_ENLIGHTENED_VMCS).</summary>
    bool HasEnableEvmcs => false;

    /// <summary>Lets the guest hypervisor use Hyper-V's form of the VMCS: the versions it may have.</summary>
    ushort EnableEvmcs(X86Vcpu vcpu) => 0;

    /// <summary>Versions of the enlightened VMCS, lowest in bits 7:0 and highest in 15:8; 0 where there is none, or <paramref name="vcpu"/> has not enabled it.</summary>
    ushort GetEvmcsVersion(X86Vcpu? vcpu) => 0;
}
