// Structures of PowerPC hosts: part of linux/kvm.h on every architecture.
// Linux 6.1, x86-64; names verbatim from linux/kvm.h.

using System.Runtime.InteropServices;

namespace Kvm.Abi;

/// <summary><c>struct kvm_ppc_pvinfo</c>: 128 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_ppc_pvinfo
{
    public uint flags;
    public u32_array_4 hcall;
    public u8_array_108 pad;
}

/// <summary><c>struct kvm_ppc_one_page_size</c>: 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_ppc_one_page_size
{
    public uint page_shift;
    public uint pte_enc;
}

/// <summary><c>struct kvm_ppc_one_seg_page_size</c>: 72 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_ppc_one_seg_page_size
{
    public uint page_shift;
    public uint slb_enc;
    public kvm_ppc_one_page_size_array_8 enc;
}

/// <summary><c>struct kvm_ppc_smmu_info</c>: 592 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_ppc_smmu_info
{
    public ulong flags;
    public uint slb_size;
    public ushort data_keys;
    public ushort instr_keys;
    public kvm_ppc_one_seg_page_size_array_8 sps;
}

/// <summary><c>struct kvm_ppc_resize_hpt</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_ppc_resize_hpt
{
    public ulong flags;
    public uint shift;
    public uint pad;
}

/// <summary><c>struct kvm_config_tlb</c>: 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_config_tlb
{
    public ulong @params;
    public ulong array;
    public uint mmu_type;
    public uint array_len;
}

/// <summary><c>struct kvm_dirty_tlb</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_dirty_tlb
{
    public ulong bitmap;
    public uint num_dirty;
}

/// <summary><c>struct kvm_vfio_spapr_tce</c>: 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_vfio_spapr_tce
{
    public int groupfd;
    public int tablefd;
}
