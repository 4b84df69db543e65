// The shared kvm_run page and what belongs to KVM_RUN.
// Linux 6.1, x86-64; names verbatim from linux/kvm.h.

using System.Runtime.InteropServices;

namespace Kvm.Abi;

/// <summary><c>struct kvm_hyperv_exit</c>: 56 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_hyperv_exit
{
    public uint type;
    public uint pad1;
    public u_union u;

    [StructLayout(LayoutKind.Explicit, Size = 48)]
    public struct u_union
    {
        [FieldOffset(0)] public synic_struct synic;
        [FieldOffset(0)] public hcall_struct hcall;
        [FieldOffset(0)] public syndbg_struct syndbg;

        [StructLayout(LayoutKind.Sequential)]
        public struct synic_struct
        {
            public uint msr;
            public uint pad2;
            public ulong control;
            public ulong evt_page;
            public ulong msg_page;
        }

        [StructLayout(LayoutKind.Sequential)]
        public struct hcall_struct
        {
            public ulong input;
            public ulong result;
            public u64_array_2 @params;
        }

        [StructLayout(LayoutKind.Sequential)]
        public struct syndbg_struct
        {
            public uint msr;
            public uint pad2;
            public ulong control;
            public ulong status;
            public ulong send_page;
            public ulong recv_page;
            public ulong pending_page;
        }
    }
}

/// <summary><c>struct kvm_xen_exit</c>: 80 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_xen_exit
{
    public uint type;
    public u_union u;

    [StructLayout(LayoutKind.Explicit, Size = 72)]
    public struct u_union
    {
        [FieldOffset(0)] public hcall_struct hcall;

        [StructLayout(LayoutKind.Sequential)]
        public struct hcall_struct
        {
            public uint longmode;
            public uint cpl;
            public ulong input;
            public ulong result;
            public u64_array_6 @params;
        }
    }
}

/// <summary><c>struct kvm_run</c>: 2352 bytes.</summary>
[StructLayout(LayoutKind.Explicit, Size = 2352)]
public struct kvm_run
{
    [FieldOffset(0)] public byte request_interrupt_window;
    [FieldOffset(1)] public byte immediate_exit;
    [FieldOffset(2)] public u8_array_6 padding1;
    [FieldOffset(8)] public uint exit_reason;
    [FieldOffset(12)] public byte ready_for_interrupt_injection;
    [FieldOffset(13)] public byte if_flag;
    [FieldOffset(14)] public ushort flags;
    [FieldOffset(16)] public ulong cr8;
    [FieldOffset(24)] public ulong apic_base;
    [FieldOffset(32)] public hw_struct hw;
    [FieldOffset(32)] public fail_entry_struct fail_entry;
    [FieldOffset(32)] public ex_struct ex;
    [FieldOffset(32)] public io_struct io;
    [FieldOffset(32)] public debug_struct debug;
    [FieldOffset(32)] public mmio_struct mmio;
    [FieldOffset(32)] public hypercall_struct hypercall;
    [FieldOffset(32)] public tpr_access_struct tpr_access;
    [FieldOffset(32)] public s390_sieic_struct s390_sieic;
    [FieldOffset(32)] public ulong s390_reset_flags;
    [FieldOffset(32)] public s390_ucontrol_struct s390_ucontrol;
    [FieldOffset(32)] public dcr_struct dcr;
    [FieldOffset(32)] public internal_struct @internal;
    [FieldOffset(32)] public emulation_failure_struct emulation_failure;
    [FieldOffset(32)] public osi_struct osi;
    [FieldOffset(32)] public papr_hcall_struct papr_hcall;
    [FieldOffset(32)] public s390_tsch_struct s390_tsch;
    [FieldOffset(32)] public epr_struct epr;
    [FieldOffset(32)] public system_event_struct system_event;
    [FieldOffset(32)] public s390_stsi_struct s390_stsi;
    [FieldOffset(32)] public eoi_struct eoi;
    [FieldOffset(32)] public kvm_hyperv_exit hyperv;
    [FieldOffset(32)] public arm_nisv_struct arm_nisv;
    [FieldOffset(32)] public msr_struct msr;
    [FieldOffset(32)] public kvm_xen_exit xen;
    [FieldOffset(32)] public riscv_sbi_struct riscv_sbi;
    [FieldOffset(32)] public riscv_csr_struct riscv_csr;
    [FieldOffset(32)] public notify_struct notify;
    [FieldOffset(32)] public u8_array_256 padding;
    [FieldOffset(288)] public ulong kvm_valid_regs;
    [FieldOffset(296)] public ulong kvm_dirty_regs;
    [FieldOffset(304)] public s_union s;

    [StructLayout(LayoutKind.Sequential)]
    public struct hw_struct
    {
        public ulong hardware_exit_reason;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct fail_entry_struct
    {
        public ulong hardware_entry_failure_reason;
        public uint cpu;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct ex_struct
    {
        public uint exception;
        public uint error_code;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct io_struct
    {
        public byte direction;
        public byte size;
        public ushort port;
        public uint count;
        public ulong data_offset;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct debug_struct
    {
        public kvm_debug_exit_arch arch;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct mmio_struct
    {
        public ulong phys_addr;
        public u8_array_8 data;
        public uint len;
        public byte is_write;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct hypercall_struct
    {
        public ulong nr;
        public u64_array_6 args;
        public ulong ret;
        public uint longmode;
        public uint pad;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct tpr_access_struct
    {
        public ulong rip;
        public uint is_write;
        public uint pad;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct s390_sieic_struct
    {
        public byte icptcode;
        public ushort ipa;
        public uint ipb;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct s390_ucontrol_struct
    {
        public ulong trans_exc_code;
        public uint pgm_code;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct dcr_struct
    {
        public uint dcrn;
        public uint data;
        public byte is_write;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct internal_struct
    {
        public uint suberror;
        public uint ndata;
        public u64_array_16 data;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct emulation_failure_struct
    {
        public uint suberror;
        public uint ndata;
        public ulong flags;
        public byte insn_size;
        public u8_array_15 insn_bytes;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct osi_struct
    {
        public u64_array_32 gprs;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct papr_hcall_struct
    {
        public ulong nr;
        public ulong ret;
        public u64_array_9 args;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct s390_tsch_struct
    {
        public ushort subchannel_id;
        public ushort subchannel_nr;
        public uint io_int_parm;
        public uint io_int_word;
        public uint ipb;
        public byte dequeued;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct epr_struct
    {
        public uint epr;
    }

    [StructLayout(LayoutKind.Explicit, Size = 136)]
    public struct system_event_struct
    {
        [FieldOffset(0)] public uint type;
        [FieldOffset(4)] public uint ndata;
        [FieldOffset(8)] public ulong flags;
        [FieldOffset(8)] public u64_array_16 data;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct s390_stsi_struct
    {
        public ulong addr;
        public byte ar;
        public byte reserved;
        public byte fc;
        public byte sel1;
        public ushort sel2;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct eoi_struct
    {
        public byte vector;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct arm_nisv_struct
    {
        public ulong esr_iss;
        public ulong fault_ipa;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct msr_struct
    {
        public byte error;
        public u8_array_7 pad;
        public uint reason;
        public uint index;
        public ulong data;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct riscv_sbi_struct
    {
        public ulong extension_id;
        public ulong function_id;
        public u64_array_6 args;
        public u64_array_2 ret;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct riscv_csr_struct
    {
        public ulong csr_num;
        public ulong new_value;
        public ulong write_mask;
        public ulong ret_value;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct notify_struct
    {
        public uint flags;
    }

    [StructLayout(LayoutKind.Explicit, Size = 2048)]
    public struct s_union
    {
        [FieldOffset(0)] public kvm_sync_regs regs;
        [FieldOffset(0)] public u8_array_2048 padding;
    }
}

/// <summary><c>struct kvm_coalesced_mmio_zone</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Explicit, Size = 16)]
public struct kvm_coalesced_mmio_zone
{
    [FieldOffset(0)] public ulong addr;
    [FieldOffset(8)] public uint size;
    [FieldOffset(12)] public uint pad;
    [FieldOffset(12)] public uint pio;
}

/// <summary><c>struct kvm_coalesced_mmio</c>: 24 bytes.</summary>
[StructLayout(LayoutKind.Explicit, Size = 24)]
public struct kvm_coalesced_mmio
{
    [FieldOffset(0)] public ulong phys_addr;
    [FieldOffset(8)] public uint len;
    [FieldOffset(12)] public uint pad;
    [FieldOffset(12)] public uint pio;
    [FieldOffset(16)] public u8_array_8 data;
}

/// <summary><c>struct kvm_coalesced_mmio_ring</c>: 8 bytes.</summary>
[FlexibleArray("coalesced_mmio", typeof(kvm_coalesced_mmio), Offset = 8)]
[StructLayout(LayoutKind.Sequential)]
public struct kvm_coalesced_mmio_ring
{
    public uint first;
    public uint last;

    /// <summary>The flexible array <c>coalesced_mmio[]</c> behind a structure in native memory.</summary>
    public static unsafe kvm_coalesced_mmio* coalesced_mmio(kvm_coalesced_mmio_ring* header) => (kvm_coalesced_mmio*)((byte*)header + 8);
}

/// <summary><c>struct kvm_signal_mask</c>: 4 bytes.</summary>
[FlexibleArray("sigset", typeof(byte), Offset = 4)]
[StructLayout(LayoutKind.Sequential)]
public struct kvm_signal_mask
{
    public uint len;

    /// <summary>The flexible array <c>sigset[]</c> behind a structure in native memory.</summary>
    public static unsafe byte* sigset(kvm_signal_mask* header) => (byte*)((byte*)header + 4);
}

/// <summary><c>struct kvm_tpr_access_ctl</c>: 40 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_tpr_access_ctl
{
    public uint enabled;
    public uint flags;
    public u32_array_8 reserved;
}

/// <summary><c>struct kvm_vapic_addr</c>: 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_vapic_addr
{
    public ulong vapic_addr;
}

/// <summary><c>struct kvm_mp_state</c>: 4 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_mp_state
{
    public uint mp_state;
}
