// Structures of s390 hosts: part of linux/kvm.h on every architecture.
// Linux 6.1, x86-64; names verbatim from linux/kvm.h.

using System.Runtime.InteropServices;

namespace Kvm.Abi;

/// <summary><c>struct kvm_s390_skeys</c>: 64 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_skeys
{
    public ulong start_gfn;
    public ulong count;
    public ulong skeydata_addr;
    public uint flags;
    public u32_array_9 reserved;
}

/// <summary><c>struct kvm_s390_cmma_log</c>: 32 bytes.</summary>
[StructLayout(LayoutKind.Explicit, Size = 32)]
public struct kvm_s390_cmma_log
{
    [FieldOffset(0)] public ulong start_gfn;
    [FieldOffset(8)] public uint count;
    [FieldOffset(12)] public uint flags;
    [FieldOffset(16)] public ulong remaining;
    [FieldOffset(16)] public ulong mask;
    [FieldOffset(24)] public ulong values;
}

/// <summary><c>struct kvm_s390_mem_op</c>: 64 bytes.</summary>
[StructLayout(LayoutKind.Explicit, Size = 64)]
public struct kvm_s390_mem_op
{
    [FieldOffset(0)] public ulong gaddr;
    [FieldOffset(8)] public ulong flags;
    [FieldOffset(16)] public uint size;
    [FieldOffset(20)] public uint op;
    [FieldOffset(24)] public ulong buf;
    [FieldOffset(32)] public byte ar;
    [FieldOffset(33)] public byte key;
    [FieldOffset(32)] public uint sida_offset;
    [FieldOffset(32)] public u8_array_32 reserved;
}

/// <summary><c>struct kvm_s390_psw</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_psw
{
    public ulong mask;
    public ulong addr;
}

/// <summary><c>struct kvm_s390_interrupt</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_interrupt
{
    public uint type;
    public uint parm;
    public ulong parm64;
}

/// <summary><c>struct kvm_s390_io_info</c>: 12 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_io_info
{
    public ushort subchannel_id;
    public ushort subchannel_nr;
    public uint io_int_parm;
    public uint io_int_word;
}

/// <summary><c>struct kvm_s390_ext_info</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_ext_info
{
    public uint ext_params;
    public uint pad;
    public ulong ext_params2;
}

/// <summary><c>struct kvm_s390_pgm_info</c>: 40 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_pgm_info
{
    public ulong trans_exc_code;
    public ulong mon_code;
    public ulong per_address;
    public uint data_exc_code;
    public ushort code;
    public ushort mon_class_nr;
    public byte per_code;
    public byte per_atmid;
    public byte exc_access_id;
    public byte per_access_id;
    public byte op_access_id;
    public byte flags;
    public u8_array_2 pad;
}

/// <summary><c>struct kvm_s390_prefix_info</c>: 4 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_prefix_info
{
    public uint address;
}

/// <summary><c>struct kvm_s390_extcall_info</c>: 2 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_extcall_info
{
    public ushort code;
}

/// <summary><c>struct kvm_s390_emerg_info</c>: 2 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_emerg_info
{
    public ushort code;
}

/// <summary><c>struct kvm_s390_stop_info</c>: 4 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_stop_info
{
    public uint flags;
}

/// <summary><c>struct kvm_s390_mchk_info</c>: 48 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_mchk_info
{
    public ulong cr14;
    public ulong mcic;
    public ulong failing_storage_address;
    public uint ext_damage_code;
    public uint pad;
    public u8_array_16 fixed_logout;
}

/// <summary><c>struct kvm_s390_irq</c>: 72 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_irq
{
    public ulong type;
    public u_union u;

    [StructLayout(LayoutKind.Explicit, Size = 64)]
    public struct u_union
    {
        [FieldOffset(0)] public kvm_s390_io_info io;
        [FieldOffset(0)] public kvm_s390_ext_info ext;
        [FieldOffset(0)] public kvm_s390_pgm_info pgm;
        [FieldOffset(0)] public kvm_s390_emerg_info emerg;
        [FieldOffset(0)] public kvm_s390_extcall_info extcall;
        [FieldOffset(0)] public kvm_s390_prefix_info prefix;
        [FieldOffset(0)] public kvm_s390_stop_info stop;
        [FieldOffset(0)] public kvm_s390_mchk_info mchk;
        [FieldOffset(0)] public u8_array_64 reserved;
    }
}

/// <summary><c>struct kvm_s390_irq_state</c>: 32 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_irq_state
{
    public ulong buf;
    public uint flags;
    public uint len;
    public u32_array_4 reserved;
}

/// <summary><c>struct kvm_s390_ucas_mapping</c>: 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_ucas_mapping
{
    public ulong user_addr;
    public ulong vcpu_addr;
    public ulong length;
}

/// <summary><c>struct kvm_s390_pv_sec_parm</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_pv_sec_parm
{
    public ulong origin;
    public ulong length;
}

/// <summary><c>struct kvm_s390_pv_unp</c>: 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_pv_unp
{
    public ulong addr;
    public ulong size;
    public ulong tweak;
}

/// <summary><c>struct kvm_s390_pv_dmp</c>: 64 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_pv_dmp
{
    public ulong subcmd;
    public ulong buff_addr;
    public ulong buff_len;
    public ulong gaddr;
    public u64_array_4 reserved;
}

/// <summary><c>struct kvm_s390_pv_info_dump</c>: 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_pv_info_dump
{
    public ulong dump_cpu_buffer_len;
    public ulong dump_config_mem_buffer_per_1m;
    public ulong dump_config_finalize_len;
}

/// <summary><c>struct kvm_s390_pv_info_vm</c>: 64 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_pv_info_vm
{
    public u64_array_4 inst_calls_list;
    public ulong max_cpus;
    public ulong max_guests;
    public ulong max_guest_addr;
    public ulong feature_indication;
}

/// <summary><c>struct kvm_s390_pv_info_header</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_pv_info_header
{
    public uint id;
    public uint len_max;
    public uint len_written;
    public uint reserved;
}

/// <summary><c>struct kvm_s390_pv_info</c>: 80 bytes.</summary>
[StructLayout(LayoutKind.Explicit, Size = 80)]
public struct kvm_s390_pv_info
{
    [FieldOffset(0)] public kvm_s390_pv_info_header header;
    [FieldOffset(16)] public kvm_s390_pv_info_dump dump;
    [FieldOffset(16)] public kvm_s390_pv_info_vm vm;
}

/// <summary><c>struct kvm_pv_cmd</c>: 32 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_pv_cmd
{
    public uint cmd;
    public ushort rc;
    public ushort rrc;
    public ulong data;
    public uint flags;
    public u32_array_3 reserved;
}

/// <summary><c>struct kvm_s390_zpci_op</c>: 72 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_s390_zpci_op
{
    public uint fh;
    public byte op;
    public u8_array_3 pad;
    public u_union u;

    [StructLayout(LayoutKind.Explicit, Size = 64)]
    public struct u_union
    {
        [FieldOffset(0)] public reg_aen_struct reg_aen;
        [FieldOffset(0)] public u64_array_8 reserved;

        [StructLayout(LayoutKind.Sequential)]
        public struct reg_aen_struct
        {
            public ulong ibv;
            public ulong sb;
            public uint flags;
            public uint noi;
            public byte isc;
            public byte sbo;
            public ushort pad;
        }
    }
}
