// Model-specific registers: lists, values, the userspace filter.
// Linux 6.1, x86-64; names verbatim from asm/kvm.h.

using System.Runtime.InteropServices;

namespace Kvm.Abi;

/// <summary><c>struct kvm_msr_entry</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_msr_entry
{
    public uint index;
    public uint reserved;
    public ulong data;
}

/// <summary><c>struct kvm_msrs</c>: 8 bytes.</summary>
[FlexibleArray("entries", typeof(kvm_msr_entry), Offset = 8)]
[StructLayout(LayoutKind.Sequential)]
public struct kvm_msrs
{
    public uint nmsrs;
    public uint pad;

    /// <summary>The flexible array <c>entries[]</c> behind a structure in native memory.</summary>
    public static unsafe kvm_msr_entry* entries(kvm_msrs* header) => (kvm_msr_entry*)((byte*)header + 8);
}

/// <summary><c>struct kvm_msr_list</c>: 4 bytes.</summary>
[FlexibleArray("indices", typeof(uint), Offset = 4)]
[StructLayout(LayoutKind.Sequential)]
public struct kvm_msr_list
{
    public uint nmsrs;

    /// <summary>The flexible array <c>indices[]</c> behind a structure in native memory.</summary>
    public static unsafe uint* indices(kvm_msr_list* header) => (uint*)((byte*)header + 4);
}

/// <summary><c>struct kvm_msr_filter_range</c>: 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_msr_filter_range
{
    public uint flags;
    public uint nmsrs;
    public uint @base;
    public ulong bitmap; // user pointer
}

/// <summary><c>struct kvm_msr_filter</c>: 392 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_msr_filter
{
    public uint flags;
    public kvm_msr_filter_range_array_16 ranges;
}
