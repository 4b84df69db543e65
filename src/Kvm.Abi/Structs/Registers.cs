// Processor registers as userspace reads and writes them.
// Linux 6.1, x86-64; names verbatim from asm/kvm.h, linux/kvm.h.

using System.Runtime.InteropServices;

namespace Kvm.Abi;

/// <summary><c>struct kvm_regs</c>: 144 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_regs
{
    public ulong rax;
    public ulong rbx;
    public ulong rcx;
    public ulong rdx;
    public ulong rsi;
    public ulong rdi;
    public ulong rsp;
    public ulong rbp;
    public ulong r8;
    public ulong r9;
    public ulong r10;
    public ulong r11;
    public ulong r12;
    public ulong r13;
    public ulong r14;
    public ulong r15;
    public ulong rip;
    public ulong rflags;
}

/// <summary><c>struct kvm_segment</c>: 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_segment
{
    public ulong @base;
    public uint limit;
    public ushort selector;
    public byte type;
    public byte present;
    public byte dpl;
    public byte db;
    public byte s;
    public byte l;
    public byte g;
    public byte avl;
    public byte unusable;
    public byte padding;
}

/// <summary><c>struct kvm_dtable</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_dtable
{
    public ulong @base;
    public ushort limit;
    public u16_array_3 padding;
}

/// <summary><c>struct kvm_sregs</c>: 312 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_sregs
{
    public kvm_segment cs;
    public kvm_segment ds;
    public kvm_segment es;
    public kvm_segment fs;
    public kvm_segment gs;
    public kvm_segment ss;
    public kvm_segment tr;
    public kvm_segment ldt;
    public kvm_dtable gdt;
    public kvm_dtable idt;
    public ulong cr0;
    public ulong cr2;
    public ulong cr3;
    public ulong cr4;
    public ulong cr8;
    public ulong efer;
    public ulong apic_base;
    public u64_array_4 interrupt_bitmap; // [(256 + 63) / 64]
}

/// <summary><c>struct kvm_sregs2</c>: 320 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_sregs2
{
    public kvm_segment cs;
    public kvm_segment ds;
    public kvm_segment es;
    public kvm_segment fs;
    public kvm_segment gs;
    public kvm_segment ss;
    public kvm_segment tr;
    public kvm_segment ldt;
    public kvm_dtable gdt;
    public kvm_dtable idt;
    public ulong cr0;
    public ulong cr2;
    public ulong cr3;
    public ulong cr4;
    public ulong cr8;
    public ulong efer;
    public ulong apic_base;
    public ulong flags;
    public u64_array_4 pdptrs;
}

/// <summary><c>struct kvm_fpu</c>: 416 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_fpu
{
    public u8_array_16_array_8 fpr;
    public ushort fcw;
    public ushort fsw;
    public byte ftwx;
    public byte pad1;
    public ushort last_opcode;
    public ulong last_ip;
    public ulong last_dp;
    public u8_array_16_array_16 xmm;
    public uint mxcsr;
    public uint pad2;
}

/// <summary><c>struct kvm_debugregs</c>: 128 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_debugregs
{
    public u64_array_4 db;
    public ulong dr6;
    public ulong dr7;
    public ulong flags;
    public u64_array_9 reserved;
}

/// <summary><c>struct kvm_xsave</c>: 4096 bytes.</summary>
[FlexibleArray("extra", typeof(uint), Offset = 4096)]
[StructLayout(LayoutKind.Sequential)]
public struct kvm_xsave
{
    public u32_array_1024 region;

    /// <summary>The flexible array <c>extra[]</c> behind a structure in native memory.</summary>
    public static unsafe uint* extra(kvm_xsave* header) => (uint*)((byte*)header + 4096);
}

/// <summary><c>struct kvm_xcr</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_xcr
{
    public uint xcr;
    public uint reserved;
    public ulong value;
}

/// <summary><c>struct kvm_xcrs</c>: 392 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_xcrs
{
    public uint nr_xcrs;
    public uint flags;
    public kvm_xcr_array_16 xcrs;
    public u64_array_16 padding;
}

/// <summary><c>struct kvm_sync_regs</c>: 520 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_sync_regs
{
    public kvm_regs regs;
    public kvm_sregs sregs;
    public kvm_vcpu_events events;
}

/// <summary><c>struct kvm_translation</c>: 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_translation
{
    public ulong linear_address;
    public ulong physical_address;
    public byte valid;
    public byte writeable;
    public byte usermode;
    public u8_array_5 pad;
}

/// <summary><c>struct kvm_reg_list</c>: 8 bytes.</summary>
[FlexibleArray("reg", typeof(ulong), Offset = 8)]
[StructLayout(LayoutKind.Sequential)]
public struct kvm_reg_list
{
    public ulong n;

    /// <summary>The flexible array <c>reg[]</c> behind a structure in native memory.</summary>
    public static unsafe ulong* reg(kvm_reg_list* header) => (ulong*)((byte*)header + 8);
}

/// <summary><c>struct kvm_one_reg</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_one_reg
{
    public ulong id;
    public ulong addr;
}
