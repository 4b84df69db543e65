using System.Runtime.CompilerServices;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.Float;

/// <summary>
/// DPPx: in each 128 bits the sum of those products that bits 7:4 of the immediate select, to the elements that bits 3:0 select; zero elsewhere.
/// </summary>
/// <remarks>Steps: all products, sums of neighbours, sum of the two sums. Each is rounded, and an unmasked exception in one ends the instruction (SDM vol 2, DPPS; as silicon does).</remarks>
internal static unsafe class FloatDotProduct
{
    [SkipLocalsInit]
    internal static void Packed<F, S>(CpuState* s, Op* op, byte* m)
        where F : struct, INativeFormat
        where S : struct, IFloatShape
    {
        byte* scratch = stackalloc byte[FloatOperands.Scratch];
        byte* a = FloatOperands.First<S>(s, op, scratch), b = FloatOperands.Second(s, op, m, S.Bytes, scratch), r = scratch + FloatOperands.Result;
        FloatContext c = FloatOperands.Begin(s);
        byte immediate = VectorOp.Immediate(op);
        ulong* terms = stackalloc ulong[8];
        int size = FloatOperands.Size<F>(), count = 16 / size;
        for (int i = 0; i < S.Bytes / size; i++)
            terms[i] = (immediate >> (4 + i % count) & 1) != 0 ? MultiplyOperation.Apply<F>(F.Load(a + i * size), F.Load(b + i * size), ref c) : 0;
        if (Sum<F>(terms, S.Bytes / size, count, ref c))
        {
            for (int i = 0; i < S.Bytes / size; i++)
                F.Store(r + i * size, (immediate >> i % count & 1) != 0 ? terms[i / count * count] : 0);
            FloatOperands.Write<S>(s, op->Reg, r);
        }
        VectorUnit.Mxcsr(s) |= c.Flags;
    }

    /// <summary>The sum of each <paramref name="count"/> terms, in the first of them. False: a step raised an unmasked exception.</summary>
    private static bool Sum<F>(ulong* terms, int all, int count, ref FloatContext c) where F : struct, INativeFormat
    {
        if (c.Traps())
            return false;
        for (int distance = 1; distance < count; distance *= 2)
        {
            uint earlier = c.Flags;
            for (int i = 0; i < all; i += 2 * distance)
                terms[i] = AddOperation.Apply<F>(terms[i], terms[i + distance], ref c);
            if (c.Traps(earlier))
                return false;
        }
        return true;
    }
}
