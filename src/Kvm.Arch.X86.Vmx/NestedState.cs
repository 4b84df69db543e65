using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Errno;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Vmx;

/// <summary>KVM_GET/SET_NESTED_STATE of a vCPU that is outside VMX operation. DIVERGES: D-VMX-1, a state inside it is refused.</summary>
internal sealed unsafe class NestedState(X86Arch arch) : IKvmX86NestedOps
{
    private const int vmcs12Size = 4096;

    /// <summary>Header, VMCS12 and shadow VMCS12.</summary>
    public uint MaxStateSize => (uint)sizeof(kvm_nested_state) + 2 * vmcs12Size;

    public bool HasEnableEvmcs => true;

    [KernelFunction("nested_enable_evmcs", File = "arch/x86/kvm/vmx/evmcs.c")]
    public ushort EnableEvmcs(X86Vcpu vcpu)
    {
        ((VcpuVmx)vcpu).EnlightenedVmcsEnabled = true;
        return GetEvmcsVersion(vcpu);
    }

    /// <summary>/dev/kvm answers for a vCPU that has enabled it.</summary>
    [KernelFunction("nested_get_evmcs_version", File = "arch/x86/kvm/vmx/evmcs.c")]
    public ushort GetEvmcsVersion(X86Vcpu? vcpu) =>
        arch.CpuCapHas(X86Feature.VMX) && (vcpu is null || ((VcpuVmx)vcpu).EnlightenedVmcsEnabled) ? Evmcs.Versions : (ushort)0;

    [KernelFunction("vmx_get_nested_state", File = "arch/x86/kvm/vmx/nested.c")]
    public int GetState(X86Vcpu vcpu, ulong userState, uint userDataSize)
    {
        using var _ = FunctionTrace.Enter("vmx_get_nested_state");
        var state = new kvm_nested_state { format = KVM_STATE_NESTED_FORMAT_VMX, size = (uint)sizeof(kvm_nested_state) };
        state.hdr.vmx.vmxon_pa = X86Const.INVALID_PAGE;
        state.hdr.vmx.vmcs12_pa = X86Const.INVALID_PAGE;
        if (userDataSize >= state.size && !new UserPtr<kvm_nested_state>(userState).Write(state))
            return -(int)EFAULT;
        return (int)state.size;
    }

    [KernelFunction("vmx_set_nested_state", File = "arch/x86/kvm/vmx/nested.c")]
    public int SetState(X86Vcpu vcpu, ulong userState, ref kvm_nested_state state)
    {
        using var _ = FunctionTrace.Enter("vmx_set_nested_state");
        bool outside = state.format == KVM_STATE_NESTED_FORMAT_VMX && state.hdr.vmx.vmxon_pa == X86Const.INVALID_PAGE && state.hdr.vmx.smm.flags == 0
            && state.hdr.vmx.vmcs12_pa == X86Const.INVALID_PAGE && (state.hdr.vmx.flags & ~(uint)KVM_STATE_VMX_PREEMPTION_TIMER_DEADLINE) == 0 && state.flags == 0;
        return outside ? 0 : -(int)EINVAL;
    }
}
