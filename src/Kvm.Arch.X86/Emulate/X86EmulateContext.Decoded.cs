using System.Runtime.Intrinsics;
using Iced.Intel;

namespace Kvm.Arch.X86;

/// <remarks>
/// What the decoder made of the bytes of an instruction. The bytes are fetched as ever and compared with those that were decoded, so this is never wrong;
/// a device that is driven by a few instructions costs no decoding.
/// </remarks>
public sealed partial class X86EmulateContext
{
    private const int DecodedInstructions = 16;

    private readonly DecodedInstruction[] decoded = new DecodedInstruction[DecodedInstructions];

    /// <summary>Bytes, address and mode of an instruction, and what follows from them alone.</summary>
    private struct DecodedInstruction
    {
        /// <summary>15 bytes of an instruction, and one that is always 0.</summary>
        internal const int Bytes = 16;

        internal Decoder? Decoder;
        internal ulong Eip;
        internal Vector128<byte> Code, Mask;
        internal Instruction Instruction;
        internal EmulFlags Flags;
        internal int Length, OpBytes, AdBytes, PrefixLength, DroppedPrefixes;
        internal byte RepPrefix, Rex, Opcode;
        internal bool LockPrefix, OperandSizePrefix, DropRepeat, DropOperandSize;

        internal readonly bool IsOf(Decoder decoder, ulong eip, byte[] fetched, int length) =>
            Eip == eip && ReferenceEquals(Decoder, decoder) && length >= Length && ((Vector128.Create(fetched) ^ Code) & Mask) == Vector128<byte>.Zero;
    }

    private void Remember(ref DecodedInstruction memo, Decoder decoder)
    {
        int length = code.Position;
        memo.Decoder = decoder;
        memo.Eip = Eip;
        memo.Length = length;
        memo.Mask = Vector128.LessThan(Vector128<byte>.Indices, Vector128.Create((byte)length));
        memo.Code = Vector128.Create(fetch) & memo.Mask;
        memo.Instruction = insn;
        memo.Flags = flags;
        (memo.OpBytes, memo.AdBytes, memo.PrefixLength, memo.DroppedPrefixes) = (opBytes, adBytes, prefixLength, droppedPrefixes);
        (memo.RepPrefix, memo.Rex, memo.Opcode) = (repPrefix, rex, opcode);
        (memo.LockPrefix, memo.OperandSizePrefix, memo.DropRepeat, memo.DropOperandSize) = (lockPrefix, operandSizePrefix, dropRepeat, dropOperandSize);
    }

    private void Recall(in DecodedInstruction memo)
    {
        code.Position = memo.Length;
        insn = memo.Instruction;
        flags = memo.Flags;
        (opBytes, adBytes, prefixLength, droppedPrefixes) = (memo.OpBytes, memo.AdBytes, memo.PrefixLength, memo.DroppedPrefixes);
        (repPrefix, rex, opcode) = (memo.RepPrefix, memo.Rex, memo.Opcode);
        (lockPrefix, operandSizePrefix, dropRepeat, dropOperandSize) = (memo.LockPrefix, memo.OperandSizePrefix, memo.DropRepeat, memo.DropOperandSize);
    }
}
