using System.Runtime.InteropServices;
using Iced.Intel;

namespace Kvm.Emulator.Engine;

/// <summary>
/// A decoded instruction, 64 bytes. Register numbers are 0–15 in encoding order; byte registers AH CH DH BH are 16–19; <see cref="NoRegister"/> = none;
/// <see cref="RipBase"/> as <see cref="Base"/> means RIP-relative to the *next* instruction (blocks are cached by physical address, so nothing here holds a linear address).
/// </summary>
/// <remarks>
/// Handlers use the architectural fields (Width … Imm, Imm2) and <see cref="Processor.EffectiveAddress"/>. The fields whose names end in Slot, and
/// <see cref="BlockDisp"/> and <see cref="AddressMask"/>, are byte offsets into <see cref="CpuState"/> and precomputed terms for the engine's own fast paths.
/// </remarks>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct Op
{
    public const byte NoRegister = 0xff;
    public const byte RipBase = 0xfe;

    /// <summary>Case of the engine's switch; <see cref="OpKind.Cold"/> calls <see cref="Handler"/>.</summary>
    internal OpKind Kind;
    private ushort code;
    /// <summary>Offset of the instruction from the start of its block.</summary>
    internal ushort BlockOffset;
    /// <summary>CpuState offset of the segment base to add (zero, or an impossible address that forces the slow path).</summary>
    internal ushort SegmentSlot;
    /// <summary>CpuState offsets of the registers: reg, rm, base, index. Absent ones address a zero.</summary>
    internal byte RegSlot, RmSlot, BaseSlot, IndexSlot;
    /// <summary>Second immediate (ENTER level, SSE4a) or far pointer selector.</summary>
    public ushort Imm2;
    /// <summary>Bytes, 1–15.</summary>
    public byte Length;
    /// <summary>Operand size in bytes: 1, 2, 4, 8 (far pointers and descriptors: the offset's size).</summary>
    public byte Width;
    /// <summary>Address size in bytes: 2, 4, 8.</summary>
    public byte AddressWidth;
    /// <summary>Effective segment of the memory operand, overrides applied (string source too; string destination is always ES).</summary>
    public Seg Segment;
    /// <summary>ModRM.reg operand, or the register in the opcode; number of the segment, control or debug register for those moves.</summary>
    public byte Reg;
    /// <summary>ModRM.rm register operand; <see cref="NoRegister"/> when the operand is memory (or there is none).</summary>
    public byte Rm;
    public byte Base;
    public byte Index;
    /// <summary>log2 of the index scale.</summary>
    public byte Scale;
    public OpPrefixes Prefixes;
    /// <summary>Sign-extended displacement.</summary>
    public long Disp;
    /// <summary>Displacement for the fast path: RIP-relative ones are relative to the block's start.</summary>
    internal long BlockDisp;
    /// <summary>First immediate, sign-extended to 64 bits where the instruction does; branch displacement; far pointer offset.</summary>
    public ulong Imm;
    /// <summary>Mask that truncates effective addresses to <see cref="AddressWidth"/>; of branches, RIP to the operand size.</summary>
    internal ulong AddressMask;
    /// <summary>Handler of a cold instruction; direct branches of the switch keep their successor block here.</summary>
    public delegate*<Processor, Op*, ExecStatus> Handler;

    /// <summary>Iced's code of the instruction.</summary>
    public Code Code { readonly get => (Code)code; set => code = (ushort)value; }

    /// <summary>The ModRM operand is in memory.</summary>
    public readonly bool HasMemory => (Prefixes & OpPrefixes.Memory) != 0;
}

/// <summary>Prefixes of an instruction that its handler may ask about, and whether it has a memory operand.</summary>
[Flags]
public enum OpPrefixes : byte { None = 0, Lock = 1, Rep = 2, Repne = 4, OperandSize = 8, AddressSize = 16, Rex = 32, RexW = 64, Memory = 128 }
