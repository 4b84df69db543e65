namespace Kvm.Arch.X86.Vmx;

/// <summary>What this module will put in every VMCS: the controls it requires and the optional ones that the processors have.</summary>
/// <remarks><c>struct vmcs_config</c> (arch/x86/kvm/vmx/capabilities.h). Compared field by field between processors, as the kernel does with memcmp.</remarks>
public record struct VmcsConfiguration
{
    /// <summary>Size of a VMXON or VMCS region in bytes (IA32_VMX_BASIC[44:32]), at most 4096.</summary>
    public int Size;
    /// <summary>High half of IA32_VMX_BASIC without the size.</summary>
    public uint BasicCap;
    public uint RevisionId;
    public uint PinBasedExecCtrl;
    public uint CpuBasedExecCtrl;
    public uint CpuBased2ndExecCtrl;
    public ulong CpuBased3rdExecCtrl;
    public uint VmexitCtrl;
    public uint VmentryCtrl;
    /// <summary>IA32_VMX_MISC.</summary>
    public ulong Misc;
    public NestedVmxMsrs Nested;
}
