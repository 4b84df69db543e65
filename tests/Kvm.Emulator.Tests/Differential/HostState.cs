using System.Runtime.InteropServices;

namespace Kvm.Emulator.Tests.Differential;

/// <summary>What a program sees of a processor: general registers, RFLAGS, x87/MMX/SSE in the FXSAVE format, the upper halves of the YMM registers.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct HostState
{
    /// <summary>In encoding order; RSP is not the program's.</summary>
    public fixed ulong Gpr[16];
    public ulong Rflags;
    /// <summary>The exception that ended the instruction, plus one; 0 = none.</summary>
    public ulong Fault;
    private fixed ulong reserved[14];
    public fixed byte Fx[512];
    public fixed byte YmmHi[256];
}
