// CPUID entries.
// Linux 6.1, x86-64; names verbatim from asm/kvm.h.

using System.Runtime.InteropServices;

namespace Kvm.Abi;

/// <summary><c>struct kvm_cpuid_entry</c>: 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_cpuid_entry
{
    public uint function;
    public uint eax;
    public uint ebx;
    public uint ecx;
    public uint edx;
    public uint padding;
}

/// <summary><c>struct kvm_cpuid</c>: 8 bytes.</summary>
[FlexibleArray("entries", typeof(kvm_cpuid_entry), Offset = 8)]
[StructLayout(LayoutKind.Sequential)]
public struct kvm_cpuid
{
    public uint nent;
    public uint padding;

    /// <summary>The flexible array <c>entries[]</c> behind a structure in native memory.</summary>
    public static unsafe kvm_cpuid_entry* entries(kvm_cpuid* header) => (kvm_cpuid_entry*)((byte*)header + 8);
}

/// <summary><c>struct kvm_cpuid_entry2</c>: 40 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_cpuid_entry2
{
    public uint function;
    public uint index;
    public uint flags;
    public uint eax;
    public uint ebx;
    public uint ecx;
    public uint edx;
    public u32_array_3 padding;
}

/// <summary><c>struct kvm_cpuid2</c>: 8 bytes.</summary>
[FlexibleArray("entries", typeof(kvm_cpuid_entry2), Offset = 8)]
[StructLayout(LayoutKind.Sequential)]
public struct kvm_cpuid2
{
    public uint nent;
    public uint padding;

    /// <summary>The flexible array <c>entries[]</c> behind a structure in native memory.</summary>
    public static unsafe kvm_cpuid_entry2* entries(kvm_cpuid2* header) => (kvm_cpuid_entry2*)((byte*)header + 8);
}
