// Guest debugging, and the interfaces it replaced.
// Linux 6.1, x86-64; names verbatim from asm/kvm.h, linux/kvm.h.

using System.Runtime.InteropServices;

namespace Kvm.Abi;

/// <summary><c>struct kvm_debug_exit_arch</c>: 32 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_debug_exit_arch
{
    public uint exception;
    public uint pad;
    public ulong pc;
    public ulong dr6;
    public ulong dr7;
}

/// <summary><c>struct kvm_guest_debug_arch</c>: 64 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_guest_debug_arch
{
    public u64_array_8 debugreg;
}

/// <summary><c>struct kvm_user_trace_setup</c>: 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_user_trace_setup
{
    public uint buf_size;
    public uint buf_nr;
}

/// <summary><c>struct kvm_breakpoint</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_breakpoint
{
    public uint enabled;
    public uint padding;
    public ulong address;
}

/// <summary><c>struct kvm_debug_guest</c>: 80 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_debug_guest
{
    public uint enabled;
    public uint pad;
    public kvm_breakpoint_array_4 breakpoints;
    public uint singlestep;
}

/// <summary><c>struct kvm_guest_debug</c>: 72 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_guest_debug
{
    public uint control;
    public uint pad;
    public kvm_guest_debug_arch arch;
}
