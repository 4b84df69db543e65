using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Engine;

/// <summary>Pieces of <see cref="VectorLoop"/>. False or negative: nothing has happened, the instruction's handler has to do it.</summary>
internal static unsafe class FastFloat
{
    // Of twice a number's bits: denormals are below (zeros taken out first), infinities and NaNs not below, and normal results have to be above the smallest normal number.
    internal const ulong DenormalDouble = (1UL << 53) - 1, InfiniteDouble = 0x7ffUL << 53, TinyDouble = (1UL << 53) + 1;
    internal const uint DenormalSingle = (1U << 24) - 1, InfiniteSingle = 0xffU << 24, TinySingle = (1U << 24) + 1;

    /// <summary>MXCSR: round to nearest, all exceptions masked, denormals as they are, inexactness noted.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static bool Usable(CpuState* s) => (VectorUnit.Mxcsr(s) & 0xffe0) == 0x1fa0;

    /// <summary>All exceptions are masked: no core can end in one.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static bool Masked(CpuState* s) => (VectorUnit.Mxcsr(s) & VectorUnit.MxcsrMasks) == VectorUnit.MxcsrMasks;

    /// <summary>COMISD and UCOMISD of numbers: 0 greater, 1 less, 2 equal; MXCSR plays no part.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static int CompareDouble(byte* first, byte* second)
    {
        if ((*(ulong*)first << 1) - 1 - DenormalDouble > InfiniteDouble - 1 - DenormalDouble && *(ulong*)first << 1 != 0)
            return -1;
        if ((*(ulong*)second << 1) - 1 - DenormalDouble > InfiniteDouble - 1 - DenormalDouble && *(ulong*)second << 1 != 0)
            return -1;
        return (*(double*)first < *(double*)second ? 1 : 0) + (*(double*)first == *(double*)second ? 2 : 0);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static int CompareFloat(byte* first, byte* second)
    {
        if ((*(uint*)first << 1) - 1 - DenormalSingle > InfiniteSingle - 1 - DenormalSingle && *(uint*)first << 1 != 0)
            return -1;
        if ((*(uint*)second << 1) - 1 - DenormalSingle > InfiniteSingle - 1 - DenormalSingle && *(uint*)second << 1 != 0)
            return -1;
        return (*(float*)first < *(float*)second ? 1 : 0) + (*(float*)first == *(float*)second ? 2 : 0);
    }

    /// <summary>RFLAGS after a comparison.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void RecordComparison(CpuState* s, int relation)
    {
        // greater: none, less: CF, equal: ZF
        s->LazyOp = LazyOp.None;
        s->Rflags = (s->Rflags & ~LazyFlags.All) | (0x40_0100UL >> (relation << 3) & 0xff);
    }

    /// <summary>Whether a branch is taken after a comparison.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static bool Condition(OpKind branch, int relation)
    {
        // Four bits for each condition: bit 0 greater, bit 1 less, bit 2 equal.
        const ulong holds = 0x3470_7070_1634_5270UL;
        return (holds >> ((branch - OpKind.JO) << 2) >> relation & 1) != 0;
    }

    internal static bool DoubleFromInt64(byte* to, byte* from, bool usable)
    {
        const long exact = 1L << 53;
        long value = *(long*)from;
        if ((ulong)(value + exact) > 2 * exact && !usable)
            return false;
        Vector128.Load((double*)to).WithElement(0, value).Store((double*)to);
        return true;
    }

    internal static bool SingleFromInt32(byte* to, byte* from, bool usable)
    {
        const int exact = 1 << 24;
        int value = *(int*)from;
        if ((uint)(value + exact) > 2 * exact && !usable)
            return false;
        Vector128.Load((float*)to).WithElement(0, value).Store((float*)to);
        return true;
    }

    /// <summary>CVTTSD2SI to 32 bits.</summary>
    internal static bool TruncateToInt32(byte* to, byte* from, bool usable)
    {
        double value = *(double*)from;
        if (!(Math.Abs(value) < 2147483648.0))
            return false;
        int result = double.ConvertToIntegerNative<int>(value);
        if (result != value && !usable)
            return false;
        *(ulong*)to = (uint)result;
        return true;
    }

    /// <summary>CVTTSD2SI to 64 bits.</summary>
    internal static bool TruncateToInt64(byte* to, byte* from, bool usable)
    {
        double value = *(double*)from;
        if (!(Math.Abs(value) < 9223372036854775808.0))
            return false;
        long result = double.ConvertToIntegerNative<long>(value);
        if (result != value && !usable)
            return false;
        *(long*)to = result;
        return true;
    }

    /// <summary>CVTTSS2SI to 32 bits.</summary>
    internal static bool TruncateSingleToInt32(byte* to, byte* from, bool usable)
    {
        float value = *(float*)from;
        if (!(Math.Abs(value) < 2147483648.0f))
            return false;
        int result = float.ConvertToIntegerNative<int>(value);
        if (result != value && !usable)
            return false;
        *(ulong*)to = (uint)result;
        return true;
    }

    internal static bool SingleToDouble(byte* to, byte* from)
    {
        uint twice = *(uint*)from << 1;
        if (twice - 1 < DenormalSingle || twice > InfiniteSingle)
            return false;
        Vector128.Load((double*)to).WithElement(0, *(float*)from).Store((double*)to);
        return true;
    }

    internal static bool DoubleToSingle(byte* to, byte* from, bool usable)
    {
        float r = (float)*(double*)from;
        ulong twice = *(ulong*)from << 1;
        if (!usable || twice - 1 < DenormalDouble || ((BitConverter.SingleToUInt32Bits(r) << 1) - TinySingle >= InfiniteSingle - TinySingle && twice != 0))
            return false;
        Vector128.Load((float*)to).WithElement(0, r).Store((float*)to);
        return true;
    }

    /// <summary>ADDPx.</summary>
    internal static bool Add<T>(byte* to, byte* from) where T : unmanaged, IBinaryFloatingPointIeee754<T>
        => Sum(to, Vector128.Load((T*)to), Vector128.Load((T*)from), Vector128.Load((T*)to) + Vector128.Load((T*)from));

    internal static bool Subtract<T>(byte* to, byte* from) where T : unmanaged, IBinaryFloatingPointIeee754<T>
        => Sum(to, Vector128.Load((T*)to), Vector128.Load((T*)from), Vector128.Load((T*)to) - Vector128.Load((T*)from));

    internal static bool Multiply<T>(byte* to, byte* from) where T : unmanaged, IBinaryFloatingPointIeee754<T>
        => Product(to, Vector128.Load((T*)to), Vector128.Load((T*)from), Vector128.Load((T*)to) * Vector128.Load((T*)from));

    /// <summary>DIVPx; zero dividends are left to the handler.</summary>
    internal static bool Divide<T>(byte* to, byte* from) where T : unmanaged, IBinaryFloatingPointIeee754<T>
    {
        Vector128<T> a = Vector128.Load((T*)to), b = Vector128.Load((T*)from), r = a / b;
        if (!NotDenormal(a, b) || !Vector128.LessThanAll(Vector128.Abs(r), Infinity<T>()) || !Vector128.GreaterThanAll(Vector128.Abs(r), Least<T>()))
            return false;
        r.Store((T*)to);
        return true;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool Sum<T>(byte* to, Vector128<T> a, Vector128<T> b, Vector128<T> r) where T : unmanaged, IBinaryFloatingPointIeee754<T>
    {
        if (!NotDenormal(a, b) || !Vector128.LessThanAll(Vector128.Abs(r), Infinity<T>()))
            return false;
        r.Store((T*)to);
        return true;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool Product<T>(byte* to, Vector128<T> a, Vector128<T> b, Vector128<T> r) where T : unmanaged, IBinaryFloatingPointIeee754<T>
    {
        if (!NotDenormal(a, b) || !Vector128.LessThanAll(Vector128.Abs(r), Infinity<T>()))
            return false;
        Vector128<T> zero = Vector128.Equals(r, Vector128<T>.Zero) & (Vector128.Equals(a, Vector128<T>.Zero) | Vector128.Equals(b, Vector128<T>.Zero));
        if (!Vector128.EqualsAll((Vector128.GreaterThan(Vector128.Abs(r), Least<T>()) | zero).AsInt32(), Vector128<int>.AllBitsSet))
            return false;
        r.Store((T*)to);
        return true;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool NotDenormal<T>(Vector128<T> a, Vector128<T> b) where T : unmanaged, IBinaryFloatingPointIeee754<T>
    {
        Vector128<T> small = Vector128.AndNot(Vector128.LessThan(Vector128.Abs(a), Least<T>()), Vector128.Equals(a, Vector128<T>.Zero))
            | Vector128.AndNot(Vector128.LessThan(Vector128.Abs(b), Least<T>()), Vector128.Equals(b, Vector128<T>.Zero));
        return small.AsUInt64() == Vector128<ulong>.Zero;
    }

    /// <summary>The smallest normal number.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<T> Least<T>() where T : unmanaged
        => typeof(T) == typeof(double) ? Vector128.Create(0x0010_0000_0000_0000UL).As<ulong, T>() : Vector128.Create(0x0080_0000U).As<uint, T>();

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<T> Infinity<T>() where T : unmanaged, IBinaryFloatingPointIeee754<T> => Vector128.Create(T.PositiveInfinity);

    /// <summary>Any instruction that has a core.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    internal static void Compute(CpuState* s, Op* op, byte* area) => VectorUnit.Compute(s, op, VectorOp.Of(op), area);

    internal static bool ComputeFromMemory(CpuState* s, Op* op, byte* area)
    {
        VectorOp* v = VectorOp.Of(op);
        if ((v->Flags & VectorFlags.Float) != 0 && !Masked(s))
            return false;
        byte* p = Operand.FastRead(s, op, v->MemoryBytes);
        if (p == null || ((nuint)p & (v->Alignment - 1u)) != 0)
            return false;
        VectorUnit.Copy(p, area, v->MemoryBytes);
        VectorUnit.Compute(s, op, v, area);
        return true;
    }

    internal static bool ComputeToMemory(CpuState* s, Op* op, byte* area)
    {
        VectorOp* v = VectorOp.Of(op);
        byte* p = Operand.FastWrite(s, op, v->MemoryBytes);
        if (p == null || ((nuint)p & (v->Alignment - 1u)) != 0)
            return false;
        VectorUnit.Compute(s, op, v, area);
        VectorUnit.Copy(area, p, v->MemoryBytes);
        return true;
    }
}
