using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.Float;

/// <summary>Operands and results of the floating-point cores. Results are complete before anything is written: sources may point at the destination.</summary>
internal static unsafe class FloatOperands
{
    /// <summary>Bytes of scratch memory that a core provides: two sources, a result.</summary>
    internal const int Scratch = 96, Other = 32, Result = 64;

    internal static int Size<F>() where F : struct, IFloatFormat => SoftFloat.Width<F>() / 8;

    /// <summary>The register that is the first source.</summary>
    internal static int FirstNumber<S>(Op* op) where S : struct, IFloatShape => S.Vex ? op->Imm2 : op->Reg;

    internal static byte* First<S>(CpuState* s, Op* op, byte* scratch) where S : struct, IFloatShape => Register(s, FirstNumber<S>(op), S.Bytes, scratch);

    /// <summary>The r/m operand: register or the operand area.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static byte* Second(CpuState* s, Op* op, byte* m, int bytes, byte* scratch) => op->HasMemory ? m : Register(s, op->Rm, bytes, scratch + Other);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static byte* Register(CpuState* s, int number, int bytes, byte* scratch)
    {
        byte* low = VectorUnit.Xmm(s, number);
        if (bytes <= 16)
            return low;
        Copy(low, scratch);
        Copy(VectorUnit.YmmHigh(s, number), scratch + 16);
        return scratch;
    }

    /// <summary>Writes a whole register, from 16 or 32 bytes as the shape says.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void Write<S>(CpuState* s, int number, byte* from) where S : struct, IFloatShape
    {
        Copy(from, VectorUnit.Xmm(s, number));
        if (S.Bytes == 32)
            Copy(from + 16, VectorUnit.YmmHigh(s, number));
        else if (S.Vex)
            Vector128<byte>.Zero.Store(VectorUnit.YmmHigh(s, number));
    }

    /// <summary>Writes the lowest element; the rest comes from the first source.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void WriteScalar<F, S>(CpuState* s, Op* op, ulong value)
        where F : struct, INativeFormat
        where S : struct, IFloatShape
    {
        byte* to = VectorUnit.Xmm(s, op->Reg);
        if (S.Vex)
        {
            Copy(VectorUnit.Xmm(s, op->Imm2), to);
            Vector128<byte>.Zero.Store(VectorUnit.YmmHigh(s, op->Reg));
        }
        F.Store(to, value);
    }

    internal static FloatContext Begin(CpuState* s) => new(VectorUnit.Mxcsr(s));

    internal static void End(CpuState* s, ref FloatContext c)
    {
        c.Traps();
        VectorUnit.Mxcsr(s) |= c.Flags;
    }

    private static void Copy(byte* from, byte* to) => Vector128.Load(from).Store(to);
}
