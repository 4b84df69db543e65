using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Engine;

/// <summary>
/// C#'s arithmetic, on any host: as long as MXCSR has its default controls and inexactness has been noted before, and operands and results are normal numbers or
/// zeros. Then the result is the architectural one, and no exception is raised that MXCSR does not show already.
/// </summary>
internal readonly unsafe struct CheckedArithmetic : IVectorArithmetic
{
    // Of twice a number's bits: denormals are below (zeros taken out first), infinities and NaNs not below, and normal results have to be above the smallest normal number.
    private const ulong DenormalDouble = (1UL << 53) - 1, InfiniteDouble = 0x7ffUL << 53, TinyDouble = (1UL << 53) + 1;
    private const uint DenormalSingle = (1U << 24) - 1, InfiniteSingle = 0xffU << 24, TinySingle = (1U << 24) + 1;

    /// <summary>MXCSR: round to nearest, all exceptions masked, denormals as they are, inexactness noted.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Begin(CpuState* s) => (VectorUnit.Mxcsr(s) & 0xffe0) == 0x1fa0;

    public static void End(CpuState* s)
    {
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool AddSd(byte* to, byte* from) => SumDouble(to, from, *(double*)to + *(double*)from);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool SubSd(byte* to, byte* from) => SumDouble(to, from, *(double*)to - *(double*)from);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool MulSd(byte* to, byte* from) => ProductDouble(to, from, *(double*)to * *(double*)from);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool DivSd(byte* to, byte* from) => QuotientDouble(to, from, *(double*)to / *(double*)from);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool SqrtSd(byte* to, byte* from) => OrdinaryRoot(*(ulong*)from, Math.Sqrt(*(double*)from)) && Put(to, Math.Sqrt(*(double*)from));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool AddSs(byte* to, byte* from) => SumSingle(to, from, *(float*)to + *(float*)from);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool SubSs(byte* to, byte* from) => SumSingle(to, from, *(float*)to - *(float*)from);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool MulSs(byte* to, byte* from) => ProductSingle(to, from, *(float*)to * *(float*)from);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool DivSs(byte* to, byte* from) => QuotientSingle(to, from, *(float*)to / *(float*)from);
    public static bool AddPd(byte* to, byte* from) => Add<double>(to, from);
    public static bool SubPd(byte* to, byte* from) => Subtract<double>(to, from);
    public static bool MulPd(byte* to, byte* from) => Multiply<double>(to, from);
    public static bool DivPd(byte* to, byte* from) => Divide<double>(to, from);
    public static bool AddPs(byte* to, byte* from) => Add<float>(to, from);
    public static bool SubPs(byte* to, byte* from) => Subtract<float>(to, from);
    public static bool MulPs(byte* to, byte* from) => Multiply<float>(to, from);
    public static bool DivPs(byte* to, byte* from) => Divide<float>(to, from);

    // Conversions that are not exact are inexact, which has been noted.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool CvtSi64Sd(byte* to, byte* from) => Put(to, (double)*(long*)from);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool CvtSi32Ss(byte* to, byte* from) => Put(to, (float)*(int*)from);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool CvttSdSi32(byte* to, byte* from)
    {
        double value = *(double*)from;
        if (!(Math.Abs(value) < 2147483648.0))
            return false;
        *(ulong*)to = (uint)double.ConvertToIntegerNative<int>(value);
        return true;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool CvttSdSi64(byte* to, byte* from)
    {
        double value = *(double*)from;
        if (!(Math.Abs(value) < 9223372036854775808.0))
            return false;
        *(long*)to = double.ConvertToIntegerNative<long>(value);
        return true;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool CvttSsSi32(byte* to, byte* from)
    {
        float value = *(float*)from;
        if (!(Math.Abs(value) < 2147483648.0f))
            return false;
        *(ulong*)to = (uint)float.ConvertToIntegerNative<int>(value);
        return true;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool CvtSsSd(byte* to, byte* from)
    {
        uint twice = *(uint*)from << 1;
        return twice - 1 >= DenormalSingle && twice < InfiniteSingle && Put(to, (double)*(float*)from);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool CvtSdSs(byte* to, byte* from)
    {
        float r = (float)*(double*)from;
        ulong twice = *(ulong*)from << 1;
        if (twice - 1 < DenormalDouble || ((BitConverter.SingleToUInt32Bits(r) << 1) - TinySingle >= InfiniteSingle - TinySingle && twice != 0))
            return false;
        return Put(to, r);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static uint ComiSd(byte* first, byte* second)
    {
        ulong a = *(ulong*)first << 1, b = *(ulong*)second << 1;
        if (a - 1 < DenormalDouble || b - 1 < DenormalDouble || a >= InfiniteDouble || b >= InfiniteDouble)
            return 0;
        return *(double*)first > *(double*)second ? IVectorArithmetic.Greater : *(double*)first < *(double*)second ? IVectorArithmetic.Less : IVectorArithmetic.Equal;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static uint ComiSs(byte* first, byte* second)
    {
        uint a = *(uint*)first << 1, b = *(uint*)second << 1;
        if (a - 1 < DenormalSingle || b - 1 < DenormalSingle || a >= InfiniteSingle || b >= InfiniteSingle)
            return 0;
        return *(float*)first > *(float*)second ? IVectorArithmetic.Greater : *(float*)first < *(float*)second ? IVectorArithmetic.Less : IVectorArithmetic.Equal;
    }

    // A zero minus one wraps around to the largest number: denormal operands are those below.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool IsDenormal(ulong bits) => (bits << 1) - 1 < DenormalDouble;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool IsDenormal(uint bits) => (bits << 1) - 1 < DenormalSingle;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool Put(byte* to, double value)
    {
        Vector128.Load((double*)to).WithElement(0, value).Store((double*)to);
        return true;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool Put(byte* to, float value)
    {
        Vector128.Load((float*)to).WithElement(0, value).Store((float*)to);
        return true;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool OrdinaryRoot(ulong bits, double root) => !IsDenormal(bits) && BitConverter.DoubleToUInt64Bits(root) << 1 < InfiniteDouble;

    // Denormal sums are exact.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool SumDouble(byte* to, byte* from, double r)
        => !IsDenormal(*(ulong*)to) && !IsDenormal(*(ulong*)from) && BitConverter.DoubleToUInt64Bits(r) << 1 < InfiniteDouble && Put(to, r);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool SumSingle(byte* to, byte* from, float r)
        => !IsDenormal(*(uint*)to) && !IsDenormal(*(uint*)from) && BitConverter.SingleToUInt32Bits(r) << 1 < InfiniteSingle && Put(to, r);

    // The smallest normal number may have been rounded up to, from tiny. Zero is exact when a factor is.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool ProductDouble(byte* to, byte* from, double r)
    {
        ulong a = *(ulong*)to, b = *(ulong*)from;
        if (IsDenormal(a) || IsDenormal(b))
            return false;
        bool normal = (BitConverter.DoubleToUInt64Bits(r) << 1) - TinyDouble < InfiniteDouble - TinyDouble;
        return (normal || (r == 0 && (a << 1 == 0 || b << 1 == 0))) && Put(to, r);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool ProductSingle(byte* to, byte* from, float r)
    {
        uint a = *(uint*)to, b = *(uint*)from;
        if (IsDenormal(a) || IsDenormal(b))
            return false;
        bool normal = (BitConverter.SingleToUInt32Bits(r) << 1) - TinySingle < InfiniteSingle - TinySingle;
        return (normal || (r == 0 && (a << 1 == 0 || b << 1 == 0))) && Put(to, r);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool QuotientDouble(byte* to, byte* from, double r)
        => !IsDenormal(*(ulong*)to) && !IsDenormal(*(ulong*)from) && (BitConverter.DoubleToUInt64Bits(r) << 1) - TinyDouble < InfiniteDouble - TinyDouble && Put(to, r);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool QuotientSingle(byte* to, byte* from, float r)
        => !IsDenormal(*(uint*)to) && !IsDenormal(*(uint*)from) && (BitConverter.SingleToUInt32Bits(r) << 1) - TinySingle < InfiniteSingle - TinySingle && Put(to, r);

    private static bool Add<T>(byte* to, byte* from) where T : unmanaged, IBinaryFloatingPointIeee754<T>
        => Sum(to, Vector128.Load((T*)to), Vector128.Load((T*)from), Vector128.Load((T*)to) + Vector128.Load((T*)from));

    private static bool Subtract<T>(byte* to, byte* from) where T : unmanaged, IBinaryFloatingPointIeee754<T>
        => Sum(to, Vector128.Load((T*)to), Vector128.Load((T*)from), Vector128.Load((T*)to) - Vector128.Load((T*)from));

    private static bool Multiply<T>(byte* to, byte* from) where T : unmanaged, IBinaryFloatingPointIeee754<T>
        => Product(to, Vector128.Load((T*)to), Vector128.Load((T*)from), Vector128.Load((T*)to) * Vector128.Load((T*)from));

    // Zero dividends are left to the handler.
    private static bool Divide<T>(byte* to, byte* from) where T : unmanaged, IBinaryFloatingPointIeee754<T>
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
}
