namespace Kvm.Arch.X86.Vmx;

/// <summary>IA32_VMX_EPT_VPID_CAP: low half (EPT) and high half (VPID).</summary>
/// <remarks><c>struct vmx_capability</c> (arch/x86/kvm/vmx/capabilities.h).</remarks>
public record struct VmxCapability
{
    public uint Ept;
    public uint Vpid;
}
