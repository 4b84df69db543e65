// Structures a guest shares with KVM (asm/kvm_para.h).
// Linux 6.1, x86-64; names verbatim from asm/kvm_para.h.

using System.Runtime.InteropServices;

namespace Kvm.Abi;

/// <summary><c>struct kvm_steal_time</c>: 64 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_steal_time
{
    public ulong steal;
    public uint version;
    public uint flags;
    public byte preempted;
    public u8_array_3 u8_pad;
    public u32_array_11 pad;
}

/// <summary><c>struct kvm_clock_pairing</c>: 64 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_clock_pairing
{
    public long sec;
    public long nsec;
    public ulong tsc;
    public uint flags;
    public u32_array_9 pad;
}

/// <summary><c>struct kvm_mmu_op_header</c>: 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_mmu_op_header
{
    public uint op;
    public uint pad;
}

/// <summary><c>struct kvm_mmu_op_write_pte</c>: 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_mmu_op_write_pte
{
    public kvm_mmu_op_header header;
    public ulong pte_phys;
    public ulong pte_val;
}

/// <summary><c>struct kvm_mmu_op_flush_tlb</c>: 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_mmu_op_flush_tlb
{
    public kvm_mmu_op_header header;
}

/// <summary><c>struct kvm_mmu_op_release_pt</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_mmu_op_release_pt
{
    public kvm_mmu_op_header header;
    public ulong pt_phys;
}

/// <summary><c>struct kvm_vcpu_pv_apf_data</c>: 68 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_vcpu_pv_apf_data
{
    public uint flags;
    public uint token;
    public u8_array_56 pad;
    public uint enabled;
}
