// Xen and Hyper-V interfaces.
// Linux 6.1, x86-64; names verbatim from linux/kvm.h.

using System.Runtime.InteropServices;

namespace Kvm.Abi;

/// <summary><c>struct kvm_xen_hvm_config</c>: 56 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_xen_hvm_config
{
    public uint flags;
    public uint msr;
    public ulong blob_addr_32;
    public ulong blob_addr_64;
    public byte blob_size_32;
    public byte blob_size_64;
    public u8_array_30 pad2;
}

/// <summary><c>struct kvm_xen_hvm_attr</c>: 72 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_xen_hvm_attr
{
    public ushort type;
    public u16_array_3 pad;
    public u_union u;

    [StructLayout(LayoutKind.Explicit, Size = 64)]
    public struct u_union
    {
        [FieldOffset(0)] public byte long_mode;
        [FieldOffset(0)] public byte vector;
        [FieldOffset(0)] public shared_info_struct shared_info;
        [FieldOffset(0)] public evtchn_struct evtchn;
        [FieldOffset(0)] public uint xen_version;
        [FieldOffset(0)] public u64_array_8 pad;

        [StructLayout(LayoutKind.Sequential)]
        public struct shared_info_struct
        {
            public ulong gfn;
        }

        [StructLayout(LayoutKind.Sequential)]
        public struct evtchn_struct
        {
            public uint send_port;
            public uint type;
            public uint flags;
            public deliver_union deliver;

            [StructLayout(LayoutKind.Explicit, Size = 16)]
            public struct deliver_union
            {
                [FieldOffset(0)] public port_struct port;
                [FieldOffset(0)] public eventfd_struct eventfd;
                [FieldOffset(0)] public u32_array_4 padding;

                [StructLayout(LayoutKind.Sequential)]
                public struct port_struct
                {
                    public uint port;
                    public uint vcpu;
                    public uint priority;
                }

                [StructLayout(LayoutKind.Sequential)]
                public struct eventfd_struct
                {
                    public uint port;
                    public int fd;
                }
            }
        }
    }
}

/// <summary><c>struct kvm_xen_vcpu_attr</c>: 72 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_xen_vcpu_attr
{
    public ushort type;
    public u16_array_3 pad;
    public u_union u;

    [StructLayout(LayoutKind.Explicit, Size = 64)]
    public struct u_union
    {
        [FieldOffset(0)] public ulong gpa;
        [FieldOffset(0)] public u64_array_8 pad;
        [FieldOffset(0)] public runstate_struct runstate;
        [FieldOffset(0)] public uint vcpu_id;
        [FieldOffset(0)] public timer_struct timer;
        [FieldOffset(0)] public byte vector;

        [StructLayout(LayoutKind.Sequential)]
        public struct runstate_struct
        {
            public ulong state;
            public ulong state_entry_time;
            public ulong time_running;
            public ulong time_runnable;
            public ulong time_blocked;
            public ulong time_offline;
        }

        [StructLayout(LayoutKind.Sequential)]
        public struct timer_struct
        {
            public uint port;
            public uint priority;
            public ulong expires_ns;
        }
    }
}

/// <summary><c>struct kvm_hyperv_eventfd</c>: 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_hyperv_eventfd
{
    public uint conn_id;
    public int fd;
    public uint flags;
    public u32_array_3 padding;
}
