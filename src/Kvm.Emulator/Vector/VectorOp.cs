using Iced.Intel;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector;

/// <summary>How one x87, MMX, SSE or AVX instruction is executed: what <see cref="VectorUnit"/> must check and move around it, and who computes.</summary>
/// <remarks>
/// In native memory, shared by every decoded copy of the same instruction, never changed after creation, never freed. An <see cref="Op"/> that has one keeps
/// its address in <see cref="Op.Imm"/>, the VEX.vvvv register in <see cref="Op.Imm2"/> and the immediate byte (of /is4 operands the register) in <see cref="Op.Width"/>.
/// </remarks>
internal unsafe struct VectorOp
{
    /// <summary>The instruction itself, executed by the host processor on the state block (<see cref="HostStubs"/>); null = <see cref="Managed"/>.</summary>
    public delegate* unmanaged[SuppressGCTransition]<CpuState*, byte*, nint, nint, nint, nint, void> Host;
    /// <summary>The same in C# (<see cref="VectorTable"/>); null where there is none.</summary>
    public delegate*<CpuState*, Op*, byte*, void> Managed;
    public Code Code;
    public VectorFlags Flags;
    /// <summary>Bytes of the memory operand; 0 without one.</summary>
    public ushort MemoryBytes;
    /// <summary>Alignment that the memory operand must have, else #GP(0); 1 = any.</summary>
    public ushort Alignment;
    /// <summary>x87: the low 11 bits of the opcode as FOP records them.</summary>
    public ushort X87Opcode;

    internal static VectorOp* Of(Op* op) => (VectorOp*)op->Imm;

    /// <summary>The immediate byte, or the register number of a /is4 operand.</summary>
    internal static byte Immediate(Op* op) => op->Width;

    /// <summary>The second immediate byte of EXTRQ and INSERTQ, which have no memory operand.</summary>
    internal static byte SecondImmediate(Op* op) => (byte)op->Disp;
}

/// <summary>What surrounds the computation of a <see cref="VectorOp"/>.</summary>
[Flags]
internal enum VectorFlags : ushort
{
    None = 0,
    /// <summary>#NM while CR0.EM or CR0.TS is set.</summary>
    X87 = 1,
    /// <summary>Uses MM registers: #UD while CR0.EM is set, #NM for CR0.TS, reports pending x87 exceptions, ends x87 stack use (the core does that).</summary>
    Mmx = 2,
    /// <summary>Legacy-encoded SSE: #UD without CR4.OSFXSR or with CR0.EM, #NM for CR0.TS.</summary>
    Sse = 4,
    /// <summary>VEX-encoded: #UD outside protected mode, without CR4.OSXSAVE or XCR0[2:1] = 11b; #NM for CR0.TS.</summary>
    Avx = 8,
    /// <summary>Reports an unmasked x87 exception that is pending before it executes (#MF).</summary>
    Waits = 0x10,
    ReadsMemory = 0x20,
    WritesMemory = 0x40,
    /// <summary>Can raise SIMD floating-point exceptions: reads and updates MXCSR.</summary>
    Float = 0x80,
    /// <summary>Writes CF PF AF ZF SF OF: the core leaves them at <see cref="VectorUnit.FlagsOffset"/> of the operand area.</summary>
    WritesFlags = 0x100,
    /// <summary>A legacy-encoded move that is made for aligned data: MXCSR.MM does not help it.</summary>
    AlignedMove = 0x200,
    /// <summary>Reads arithmetic flags: they are at <see cref="VectorUnit.FlagsOffset"/> of the operand area.</summary>
    ReadsFlags = 0x400,
    /// <summary>Needs no aligned data on AMD's processors (SHA).</summary>
    UnalignedOnAmd = 0x800,
}
