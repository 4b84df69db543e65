using System.Numerics;
using System.Runtime.CompilerServices;

namespace Kvm.Emulator;

/// <summary>What operand and address sizes do to values, registers and addresses. Sizes are in bytes: 1, 2, 4, 8.</summary>
/// <remarks>SDM vol 1, "General-Purpose Registers in 64-Bit Mode", "Specifying an Offset"; vol 2A, "Bit(BitBase, BitOffset)".</remarks>
public static class OperandSize
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong Truncate(ulong value, int size) => size switch { 1 => (byte)value, 2 => (ushort)value, 4 => (uint)value, _ => value };

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong SignExtend(ulong value, int size) => size switch { 1 => (ulong)(sbyte)value, 2 => (ulong)(short)value, 4 => (ulong)(int)value, _ => value };

    /// <summary>What a register holds after a write: 8- and 16-bit writes keep the rest, 32-bit writes clear the upper half. <paramref name="high"/>: AH CH DH BH.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong Insert(ulong register, ulong value, int size, bool high = false) => size switch
    {
        1 when high => (register & ~0xff00UL) | (value & 0xff) << 8,
        1 => (register & ~0xffUL) | (byte)value,
        2 => (register & ~0xffffUL) | (ushort)value,
        4 => (uint)value,
        _ => value,
    };

    /// <summary>What an instruction reads of a register, zero-extended.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong Extract(ulong register, int size, bool high = false) => Truncate(high ? register >> 8 : register, size);

    /// <summary>The effective address: base + index × scale + displacement, as wide as addresses are. <paramref name="scale"/> is the number of bits to shift.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong Address(ulong @base, ulong index, int scale, ulong displacement, int size) => Truncate(@base + (index << scale) + displacement, size);

    /// <summary>Where in a string of bits in memory the operand of BT and its like begins, in bytes from the base: the bit offset is as wide as the operand, and signed.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong BitStringOffset(ulong bit, int size) => (ulong)(((long)SignExtend(bit, size) >> (BitOperations.Log2((uint)size) + 3)) * size);
}
