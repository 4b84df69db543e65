using System.Runtime.InteropServices;
using Iced.Intel;

namespace Kvm.Emulator.Engine;

/// <summary>
/// A decoded instruction. Register numbers are 0–15 in encoding order; byte registers AH CH DH BH are 16–19; <see cref="NoRegister"/> = none;
/// <see cref="RipBase"/> as <see cref="Base"/> means RIP-relative to the *next* instruction (blocks are cached by physical address, so nothing here holds a linear address).
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct Op
{
    public const byte NoRegister = 0xff;
    public const byte RipBase = 0xfe;

    /// <summary>Case of the engine's switch; OpKind.Cold calls <see cref="Handler"/>.</summary>
    public ushort Kind;
    /// <summary>Iced's code of the instruction.</summary>
    public Code Code;
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
    /// <summary>First immediate, sign-extended to 64 bits where the instruction does; branch displacement; far pointer offset.</summary>
    public ulong Imm;
    /// <summary>Second immediate (ENTER level) or far pointer selector.</summary>
    public ulong Imm2;
    /// <summary>Handler of a cold instruction.</summary>
    public delegate*<Processor, Op*, ExecStatus> Handler;

    public readonly bool HasMemory => Rm == NoRegister && (Base != NoRegister || Index != NoRegister || AddressWidth != 0);
}

[Flags]
public enum OpPrefixes : byte { None = 0, Lock = 1, Rep = 2, Repne = 4, OperandSize = 8, AddressSize = 16, Rex = 32, RexW = 64 }
