// C arrays inside structures: [InlineArray] types named element_array_length.

using System.Runtime.CompilerServices;

namespace Kvm.Abi;

/// <summary><c>kvm_breakpoint[4]</c>.</summary>
[InlineArray(4)]
public struct kvm_breakpoint_array_4
{
    private kvm_breakpoint _element0;
}

/// <summary><c>kvm_ioapic_state.redirtbl_union[24]</c>.</summary>
[InlineArray(24)]
public struct kvm_ioapic_state_redirtbl_array_24
{
    private kvm_ioapic_state.redirtbl_union _element0;
}

/// <summary><c>kvm_msr_filter_range[16]</c>.</summary>
[InlineArray(16)]
public struct kvm_msr_filter_range_array_16
{
    private kvm_msr_filter_range _element0;
}

/// <summary><c>kvm_pit_channel_state[3]</c>.</summary>
[InlineArray(3)]
public struct kvm_pit_channel_state_array_3
{
    private kvm_pit_channel_state _element0;
}

/// <summary><c>kvm_ppc_one_page_size[8]</c>.</summary>
[InlineArray(8)]
public struct kvm_ppc_one_page_size_array_8
{
    private kvm_ppc_one_page_size _element0;
}

/// <summary><c>kvm_ppc_one_seg_page_size[8]</c>.</summary>
[InlineArray(8)]
public struct kvm_ppc_one_seg_page_size_array_8
{
    private kvm_ppc_one_seg_page_size _element0;
}

/// <summary><c>kvm_xcr[16]</c>.</summary>
[InlineArray(16)]
public struct kvm_xcr_array_16
{
    private kvm_xcr _element0;
}

/// <summary><c>ushort[3]</c>.</summary>
[InlineArray(3)]
public struct u16_array_3
{
    private ushort _element0;
}

/// <summary><c>uint[1024]</c>.</summary>
[InlineArray(1024)]
public struct u32_array_1024
{
    private uint _element0;
}

/// <summary><c>uint[11]</c>.</summary>
[InlineArray(11)]
public struct u32_array_11
{
    private uint _element0;
}

/// <summary><c>uint[12]</c>.</summary>
[InlineArray(12)]
public struct u32_array_12
{
    private uint _element0;
}

/// <summary><c>uint[15]</c>.</summary>
[InlineArray(15)]
public struct u32_array_15
{
    private uint _element0;
}

/// <summary><c>uint[3]</c>.</summary>
[InlineArray(3)]
public struct u32_array_3
{
    private uint _element0;
}

/// <summary><c>uint[4]</c>.</summary>
[InlineArray(4)]
public struct u32_array_4
{
    private uint _element0;
}

/// <summary><c>uint[8]</c>.</summary>
[InlineArray(8)]
public struct u32_array_8
{
    private uint _element0;
}

/// <summary><c>uint[9]</c>.</summary>
[InlineArray(9)]
public struct u32_array_9
{
    private uint _element0;
}

/// <summary><c>ulong[16]</c>.</summary>
[InlineArray(16)]
public struct u64_array_16
{
    private ulong _element0;
}

/// <summary><c>ulong[2]</c>.</summary>
[InlineArray(2)]
public struct u64_array_2
{
    private ulong _element0;
}

/// <summary><c>ulong[3]</c>.</summary>
[InlineArray(3)]
public struct u64_array_3
{
    private ulong _element0;
}

/// <summary><c>ulong[32]</c>.</summary>
[InlineArray(32)]
public struct u64_array_32
{
    private ulong _element0;
}

/// <summary><c>ulong[4]</c>.</summary>
[InlineArray(4)]
public struct u64_array_4
{
    private ulong _element0;
}

/// <summary><c>ulong[6]</c>.</summary>
[InlineArray(6)]
public struct u64_array_6
{
    private ulong _element0;
}

/// <summary><c>ulong[8]</c>.</summary>
[InlineArray(8)]
public struct u64_array_8
{
    private ulong _element0;
}

/// <summary><c>ulong[9]</c>.</summary>
[InlineArray(9)]
public struct u64_array_9
{
    private ulong _element0;
}

/// <summary><c>byte[1024]</c>.</summary>
[InlineArray(1024)]
public struct u8_array_1024
{
    private byte _element0;
}

/// <summary><c>byte[108]</c>.</summary>
[InlineArray(108)]
public struct u8_array_108
{
    private byte _element0;
}

/// <summary><c>byte[12]</c>.</summary>
[InlineArray(12)]
public struct u8_array_12
{
    private byte _element0;
}

/// <summary><c>byte[120]</c>.</summary>
[InlineArray(120)]
public struct u8_array_120
{
    private byte _element0;
}

/// <summary><c>byte[15]</c>.</summary>
[InlineArray(15)]
public struct u8_array_15
{
    private byte _element0;
}

/// <summary><c>byte[16]</c>.</summary>
[InlineArray(16)]
public struct u8_array_16
{
    private byte _element0;
}

/// <summary><c>u8_array_16[16]</c>.</summary>
[InlineArray(16)]
public struct u8_array_16_array_16
{
    private u8_array_16 _element0;
}

/// <summary><c>u8_array_16[8]</c>.</summary>
[InlineArray(8)]
public struct u8_array_16_array_8
{
    private u8_array_16 _element0;
}

/// <summary><c>byte[2]</c>.</summary>
[InlineArray(2)]
public struct u8_array_2
{
    private byte _element0;
}

/// <summary><c>byte[2048]</c>.</summary>
[InlineArray(2048)]
public struct u8_array_2048
{
    private byte _element0;
}

/// <summary><c>byte[256]</c>.</summary>
[InlineArray(256)]
public struct u8_array_256
{
    private byte _element0;
}

/// <summary><c>byte[26]</c>.</summary>
[InlineArray(26)]
public struct u8_array_26
{
    private byte _element0;
}

/// <summary><c>byte[3]</c>.</summary>
[InlineArray(3)]
public struct u8_array_3
{
    private byte _element0;
}

/// <summary><c>byte[30]</c>.</summary>
[InlineArray(30)]
public struct u8_array_30
{
    private byte _element0;
}

/// <summary><c>byte[31]</c>.</summary>
[InlineArray(31)]
public struct u8_array_31
{
    private byte _element0;
}

/// <summary><c>byte[32]</c>.</summary>
[InlineArray(32)]
public struct u8_array_32
{
    private byte _element0;
}

/// <summary><c>byte[36]</c>.</summary>
[InlineArray(36)]
public struct u8_array_36
{
    private byte _element0;
}

/// <summary><c>byte[4]</c>.</summary>
[InlineArray(4)]
public struct u8_array_4
{
    private byte _element0;
}

/// <summary><c>byte[4096]</c>.</summary>
[InlineArray(4096)]
public struct u8_array_4096
{
    private byte _element0;
}

/// <summary><c>byte[5]</c>.</summary>
[InlineArray(5)]
public struct u8_array_5
{
    private byte _element0;
}

/// <summary><c>byte[512]</c>.</summary>
[InlineArray(512)]
public struct u8_array_512
{
    private byte _element0;
}

/// <summary><c>byte[56]</c>.</summary>
[InlineArray(56)]
public struct u8_array_56
{
    private byte _element0;
}

/// <summary><c>byte[6]</c>.</summary>
[InlineArray(6)]
public struct u8_array_6
{
    private byte _element0;
}

/// <summary><c>byte[64]</c>.</summary>
[InlineArray(64)]
public struct u8_array_64
{
    private byte _element0;
}

/// <summary><c>byte[7]</c>.</summary>
[InlineArray(7)]
public struct u8_array_7
{
    private byte _element0;
}

/// <summary><c>byte[8]</c>.</summary>
[InlineArray(8)]
public struct u8_array_8
{
    private byte _element0;
}
