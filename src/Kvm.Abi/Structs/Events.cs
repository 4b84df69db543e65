// Pending and injected events of a vCPU.
// Linux 6.1, x86-64; names verbatim from asm/kvm.h, linux/kvm.h.

using System.Runtime.InteropServices;

namespace Kvm.Abi;

/// <summary><c>struct kvm_vcpu_events</c>: 64 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_vcpu_events
{
    public exception_struct exception;
    public interrupt_struct interrupt;
    public nmi_struct nmi;
    public uint sipi_vector;
    public uint flags;
    public smi_struct smi;
    public triple_fault_struct triple_fault;
    public u8_array_26 reserved;
    public byte exception_has_payload;
    public ulong exception_payload;

    [StructLayout(LayoutKind.Sequential)]
    public struct exception_struct
    {
        public byte injected;
        public byte nr;
        public byte has_error_code;
        public byte pending;
        public uint error_code;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct interrupt_struct
    {
        public byte injected;
        public byte nr;
        public byte soft;
        public byte shadow;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct nmi_struct
    {
        public byte injected;
        public byte pending;
        public byte masked;
        public byte pad;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct smi_struct
    {
        public byte smm;
        public byte pending;
        public byte smm_inside_nmi;
        public byte latched_init;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct triple_fault_struct
    {
        public byte pending;
    }
}

/// <summary><c>struct kvm_x86_mce</c>: 64 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_x86_mce
{
    public ulong status;
    public ulong addr;
    public ulong misc;
    public ulong mcg_status;
    public byte bank;
    public u8_array_7 pad1;
    public u64_array_3 pad2;
}
