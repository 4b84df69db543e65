// Memory slots and dirty logging.
// Linux 6.1, x86-64; names verbatim from asm/kvm.h, linux/kvm.h.

using System.Runtime.InteropServices;

namespace Kvm.Abi;

/// <summary><c>struct kvm_memory_alias</c>: 32 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_memory_alias
{
    public uint slot;
    public uint flags;
    public ulong guest_phys_addr;
    public ulong memory_size;
    public ulong target_phys_addr;
}

/// <summary><c>struct kvm_memory_region</c>: 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_memory_region
{
    public uint slot;
    public uint flags;
    public ulong guest_phys_addr;
    public ulong memory_size;
}

/// <summary><c>struct kvm_userspace_memory_region</c>: 32 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_userspace_memory_region
{
    public uint slot;
    public uint flags;
    public ulong guest_phys_addr;
    public ulong memory_size;
    public ulong userspace_addr;
}

/// <summary><c>struct kvm_dirty_log</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Explicit, Size = 16)]
public struct kvm_dirty_log
{
    [FieldOffset(0)] public uint slot;
    [FieldOffset(4)] public uint padding1;
    [FieldOffset(8)] public ulong dirty_bitmap; // user pointer
    [FieldOffset(8)] public ulong padding2;
}

/// <summary><c>struct kvm_clear_dirty_log</c>: 24 bytes.</summary>
[StructLayout(LayoutKind.Explicit, Size = 24)]
public struct kvm_clear_dirty_log
{
    [FieldOffset(0)] public uint slot;
    [FieldOffset(4)] public uint num_pages;
    [FieldOffset(8)] public ulong first_page;
    [FieldOffset(16)] public ulong dirty_bitmap; // user pointer
    [FieldOffset(16)] public ulong padding2;
}

/// <summary><c>struct kvm_enc_region</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_enc_region
{
    public ulong addr;
    public ulong size;
}

/// <summary><c>struct kvm_dirty_gfn</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_dirty_gfn
{
    public uint flags;
    public uint slot;
    public ulong offset;
}
