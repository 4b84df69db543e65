// KVM devices, ioeventfd, capabilities, clock, PMU filter, statistics.
// Linux 6.1, x86-64; names verbatim from asm/kvm.h, linux/kvm.h.

using System.Runtime.InteropServices;

namespace Kvm.Abi;

/// <summary><c>struct kvm_pmu_event_filter</c>: 32 bytes.</summary>
[FlexibleArray("events", typeof(ulong), Offset = 32)]
[StructLayout(LayoutKind.Sequential)]
public struct kvm_pmu_event_filter
{
    public uint action;
    public uint nevents;
    public uint fixed_counter_bitmap;
    public uint flags;
    public u32_array_4 pad;

    /// <summary>The flexible array <c>events[]</c> behind a structure in native memory.</summary>
    public static unsafe ulong* events(kvm_pmu_event_filter* header) => (ulong*)((byte*)header + 32);
}

/// <summary><c>struct kvm_ioeventfd</c>: 64 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_ioeventfd
{
    public ulong datamatch;
    public ulong addr;
    public uint len;
    public int fd;
    public uint flags;
    public u8_array_36 pad;
}

/// <summary><c>struct kvm_enable_cap</c>: 104 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_enable_cap
{
    public uint cap;
    public uint flags;
    public u64_array_4 args;
    public u8_array_64 pad;
}

/// <summary><c>struct kvm_clock_data</c>: 48 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_clock_data
{
    public ulong clock;
    public uint flags;
    public uint pad0;
    public ulong realtime;
    public ulong host_tsc;
    public u32_array_4 pad;
}

/// <summary><c>struct kvm_create_device</c>: 12 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_create_device
{
    public uint type;
    public uint fd;
    public uint flags;
}

/// <summary><c>struct kvm_device_attr</c>: 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_device_attr
{
    public uint flags;
    public uint group;
    public ulong attr;
    public ulong addr;
}

/// <summary><c>struct kvm_stats_header</c>: 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_stats_header
{
    public uint flags;
    public uint name_size;
    public uint num_desc;
    public uint id_offset;
    public uint desc_offset;
    public uint data_offset;
}

/// <summary><c>struct kvm_stats_desc</c>: 16 bytes.</summary>
[FlexibleArray("name", typeof(byte), Offset = 16)]
[StructLayout(LayoutKind.Sequential)]
public struct kvm_stats_desc
{
    public uint flags;
    public short exponent;
    public ushort size;
    public uint offset;
    public uint bucket_size;

    /// <summary>The flexible array <c>name[]</c> behind a structure in native memory.</summary>
    public static unsafe byte* name(kvm_stats_desc* header) => (byte*)((byte*)header + 16);
}
