// Nested virtualization state.
// Linux 6.1, x86-64; names verbatim from asm/kvm.h.

using System.Runtime.InteropServices;

namespace Kvm.Abi;

/// <summary><c>struct kvm_vmx_nested_state_data</c>: 8192 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_vmx_nested_state_data
{
    public u8_array_4096 vmcs12; // [0x1000]
    public u8_array_4096 shadow_vmcs12; // [0x1000]
}

/// <summary><c>struct kvm_vmx_nested_state_hdr</c>: 32 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_vmx_nested_state_hdr
{
    public ulong vmxon_pa;
    public ulong vmcs12_pa;
    public smm_struct smm;
    public ushort pad;
    public uint flags;
    public ulong preemption_timer_deadline;

    [StructLayout(LayoutKind.Sequential)]
    public struct smm_struct
    {
        public ushort flags;
    }
}

/// <summary><c>struct kvm_svm_nested_state_data</c>: 4096 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_svm_nested_state_data
{
    public u8_array_4096 vmcb12; // [0x1000]
}

/// <summary><c>struct kvm_svm_nested_state_hdr</c>: 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_svm_nested_state_hdr
{
    public ulong vmcb_pa;
}

/// <summary><c>struct kvm_nested_state</c>: 128 bytes.</summary>
[FlexibleArray("data.vmx", typeof(kvm_vmx_nested_state_data), Offset = 128)]
[FlexibleArray("data.svm", typeof(kvm_svm_nested_state_data), Offset = 128)]
[StructLayout(LayoutKind.Sequential)]
public struct kvm_nested_state
{
    public ushort flags;
    public ushort format;
    public uint size;
    public hdr_union hdr;

    [StructLayout(LayoutKind.Explicit, Size = 120)]
    public struct hdr_union
    {
        [FieldOffset(0)] public kvm_vmx_nested_state_hdr vmx;
        [FieldOffset(0)] public kvm_svm_nested_state_hdr svm;
        [FieldOffset(0)] public u8_array_120 pad;
    }
}
