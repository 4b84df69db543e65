// Interrupt controllers, timer, routing, irqfd.
// Linux 6.1, x86-64; names verbatim from asm/kvm.h, linux/kvm.h.

using System.Runtime.InteropServices;

namespace Kvm.Abi;

/// <summary><c>struct kvm_pic_state</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_pic_state
{
    public byte last_irr;
    public byte irr;
    public byte imr;
    public byte isr;
    public byte priority_add;
    public byte irq_base;
    public byte read_reg_select;
    public byte poll;
    public byte special_mask;
    public byte init_state;
    public byte auto_eoi;
    public byte rotate_on_auto_eoi;
    public byte special_fully_nested_mode;
    public byte init4;
    public byte elcr;
    public byte elcr_mask;
}

/// <summary><c>struct kvm_ioapic_state</c>: 216 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_ioapic_state
{
    public ulong base_address;
    public uint ioregsel;
    public uint id;
    public uint irr;
    public uint pad;
    public kvm_ioapic_state_redirtbl_array_24 redirtbl;

    [StructLayout(LayoutKind.Explicit, Size = 8)]
    public struct redirtbl_union
    {
        [FieldOffset(0)] public ulong bits;
        [FieldOffset(0)] public fields_struct fields;

        [StructLayout(LayoutKind.Explicit, Size = 8)]
        public struct fields_struct
        {
            [FieldOffset(0)] public byte vector;
            [FieldOffset(1)] private byte _bits1;
            [FieldOffset(2)] private byte _bits2;
            [FieldOffset(3)] public u8_array_4 reserved;
            [FieldOffset(7)] public byte dest_id;

            /// <summary>Bits 0..2 of byte 1.</summary>
            public byte delivery_mode
            {
                readonly get => (byte)((_bits1 >> 0) & 0x7);
                set => _bits1 = (byte)((_bits1 & ~0x7) | ((value & 0x7) << 0));
            }

            /// <summary>Bit 3 of byte 1.</summary>
            public byte dest_mode
            {
                readonly get => (byte)((_bits1 >> 3) & 0x1);
                set => _bits1 = (byte)((_bits1 & ~0x8) | ((value & 0x1) << 3));
            }

            /// <summary>Bit 4 of byte 1.</summary>
            public byte delivery_status
            {
                readonly get => (byte)((_bits1 >> 4) & 0x1);
                set => _bits1 = (byte)((_bits1 & ~0x10) | ((value & 0x1) << 4));
            }

            /// <summary>Bit 5 of byte 1.</summary>
            public byte polarity
            {
                readonly get => (byte)((_bits1 >> 5) & 0x1);
                set => _bits1 = (byte)((_bits1 & ~0x20) | ((value & 0x1) << 5));
            }

            /// <summary>Bit 6 of byte 1.</summary>
            public byte remote_irr
            {
                readonly get => (byte)((_bits1 >> 6) & 0x1);
                set => _bits1 = (byte)((_bits1 & ~0x40) | ((value & 0x1) << 6));
            }

            /// <summary>Bit 7 of byte 1.</summary>
            public byte trig_mode
            {
                readonly get => (byte)((_bits1 >> 7) & 0x1);
                set => _bits1 = (byte)((_bits1 & ~0x80) | ((value & 0x1) << 7));
            }

            /// <summary>Bit 0 of byte 2.</summary>
            public byte mask
            {
                readonly get => (byte)((_bits2 >> 0) & 0x1);
                set => _bits2 = (byte)((_bits2 & ~0x1) | ((value & 0x1) << 0));
            }

            /// <summary>Bits 1..7 of byte 2.</summary>
            public byte reserve
            {
                readonly get => (byte)((_bits2 >> 1) & 0x7f);
                set => _bits2 = (byte)((_bits2 & ~0xfe) | ((value & 0x7f) << 1));
            }
        }
    }
}

/// <summary><c>struct kvm_lapic_state</c>: 1024 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_lapic_state
{
    public u8_array_1024 regs; // [0x400]
}

/// <summary><c>struct kvm_pit_channel_state</c>: 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_pit_channel_state
{
    public uint count;
    public ushort latched_count;
    public byte count_latched;
    public byte status_latched;
    public byte status;
    public byte read_state;
    public byte write_state;
    public byte write_latch;
    public byte rw_mode;
    public byte mode;
    public byte bcd;
    public byte gate;
    public long count_load_time;
}

/// <summary><c>struct kvm_pit_state</c>: 72 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_pit_state
{
    public kvm_pit_channel_state_array_3 channels;
}

/// <summary><c>struct kvm_pit_state2</c>: 112 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_pit_state2
{
    public kvm_pit_channel_state_array_3 channels;
    public uint flags;
    public u32_array_9 reserved;
}

/// <summary><c>struct kvm_reinject_control</c>: 32 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_reinject_control
{
    public byte pit_reinject;
    public u8_array_31 reserved;
}

/// <summary><c>struct kvm_irq_level</c>: 8 bytes.</summary>
[StructLayout(LayoutKind.Explicit, Size = 8)]
public struct kvm_irq_level
{
    [FieldOffset(0)] public uint irq;
    [FieldOffset(0)] public int status;
    [FieldOffset(4)] public uint level;
}

/// <summary><c>struct kvm_irqchip</c>: 520 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_irqchip
{
    public uint chip_id;
    public uint pad;
    public chip_union chip;

    [StructLayout(LayoutKind.Explicit, Size = 512)]
    public struct chip_union
    {
        [FieldOffset(0)] public u8_array_512 dummy;
        [FieldOffset(0)] public kvm_pic_state pic;
        [FieldOffset(0)] public kvm_ioapic_state ioapic;
    }
}

/// <summary><c>struct kvm_pit_config</c>: 64 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_pit_config
{
    public uint flags;
    public u32_array_15 pad;
}

/// <summary><c>struct kvm_interrupt</c>: 4 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_interrupt
{
    public uint irq;
}

/// <summary><c>struct kvm_irq_routing_irqchip</c>: 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_irq_routing_irqchip
{
    public uint irqchip;
    public uint pin;
}

/// <summary><c>struct kvm_irq_routing_msi</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Explicit, Size = 16)]
public struct kvm_irq_routing_msi
{
    [FieldOffset(0)] public uint address_lo;
    [FieldOffset(4)] public uint address_hi;
    [FieldOffset(8)] public uint data;
    [FieldOffset(12)] public uint pad;
    [FieldOffset(12)] public uint devid;
}

/// <summary><c>struct kvm_irq_routing_s390_adapter</c>: 32 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_irq_routing_s390_adapter
{
    public ulong ind_addr;
    public ulong summary_addr;
    public ulong ind_offset;
    public uint summary_offset;
    public uint adapter_id;
}

/// <summary><c>struct kvm_irq_routing_hv_sint</c>: 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_irq_routing_hv_sint
{
    public uint vcpu;
    public uint sint;
}

/// <summary><c>struct kvm_irq_routing_xen_evtchn</c>: 12 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_irq_routing_xen_evtchn
{
    public uint port;
    public uint vcpu;
    public uint priority;
}

/// <summary><c>struct kvm_irq_routing_entry</c>: 48 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_irq_routing_entry
{
    public uint gsi;
    public uint type;
    public uint flags;
    public uint pad;
    public u_union u;

    [StructLayout(LayoutKind.Explicit, Size = 32)]
    public struct u_union
    {
        [FieldOffset(0)] public kvm_irq_routing_irqchip irqchip;
        [FieldOffset(0)] public kvm_irq_routing_msi msi;
        [FieldOffset(0)] public kvm_irq_routing_s390_adapter adapter;
        [FieldOffset(0)] public kvm_irq_routing_hv_sint hv_sint;
        [FieldOffset(0)] public kvm_irq_routing_xen_evtchn xen_evtchn;
        [FieldOffset(0)] public u32_array_8 pad;
    }
}

/// <summary><c>struct kvm_irq_routing</c>: 8 bytes.</summary>
[FlexibleArray("entries", typeof(kvm_irq_routing_entry), Offset = 8)]
[StructLayout(LayoutKind.Sequential)]
public struct kvm_irq_routing
{
    public uint nr;
    public uint flags;

    /// <summary>The flexible array <c>entries[]</c> behind a structure in native memory.</summary>
    public static unsafe kvm_irq_routing_entry* entries(kvm_irq_routing* header) => (kvm_irq_routing_entry*)((byte*)header + 8);
}

/// <summary><c>struct kvm_irqfd</c>: 32 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_irqfd
{
    public uint fd;
    public uint gsi;
    public uint flags;
    public uint resamplefd;
    public u8_array_16 pad;
}

/// <summary><c>struct kvm_msi</c>: 32 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_msi
{
    public uint address_lo;
    public uint address_hi;
    public uint data;
    public uint flags;
    public uint devid;
    public u8_array_12 pad;
}
