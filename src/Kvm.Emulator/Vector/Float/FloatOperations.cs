using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Vector.Float;

/// <summary>One element of an operation with two sources.</summary>
internal interface IFloatBinary
{
    static abstract ulong Apply<F>(ulong a, ulong b, ref FloatContext c) where F : struct, INativeFormat;
}

/// <summary>One element of an operation with one source.</summary>
internal interface IFloatUnary
{
    static abstract ulong Apply<F>(ulong a, byte immediate, ref FloatContext c) where F : struct, INativeFormat;
}

/// <summary>When the host's own arithmetic is known to give the architectural result (<see cref="FloatContext.Native"/> provided).</summary>
internal static class NativeRange
{
    /// <summary>Zero, normal, infinite or NaN.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static bool NotDenormal<F>(ulong a) where F : struct, IFloatFormat
        => (a << (65 - SoftFloat.Width<F>())) - 1 >= (1UL << (F.FractionBits + 65 - SoftFloat.Width<F>())) - 1;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static bool Finite<F>(ulong a) where F : struct, IFloatFormat => (a & SoftFloat.Infinity<F>()) != SoftFloat.Infinity<F>();

    /// <summary>Finite, and above the smallest normal number, which may be a tiny result rounded up.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static bool Normal<F>(ulong a) where F : struct, IFloatFormat
    {
        ulong least = (1UL << F.FractionBits) + 1;
        return (a & ~SoftFloat.SignBit<F>()) - least < SoftFloat.Infinity<F>() - least;
    }
}

internal readonly struct AddOperation : IFloatBinary
{
    // A sum that is denormal is exact.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong Apply<F>(ulong a, ulong b, ref FloatContext c) where F : struct, INativeFormat
        => c.Native && NativeRange.NotDenormal<F>(a) && NativeRange.NotDenormal<F>(b) && F.Add(a, b) is var r && NativeRange.Finite<F>(r)
            ? r : SoftFloat.Add<F>(a, b, subtract: false, ref c);
}

internal readonly struct SubtractOperation : IFloatBinary
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong Apply<F>(ulong a, ulong b, ref FloatContext c) where F : struct, INativeFormat
        => c.Native && NativeRange.NotDenormal<F>(a) && NativeRange.NotDenormal<F>(b) && F.Subtract(a, b) is var r && NativeRange.Finite<F>(r)
            ? r : SoftFloat.Add<F>(a, b, subtract: true, ref c);
}

internal readonly struct MultiplyOperation : IFloatBinary
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong Apply<F>(ulong a, ulong b, ref FloatContext c) where F : struct, INativeFormat
        => c.Native && NativeRange.NotDenormal<F>(a) && NativeRange.NotDenormal<F>(b) && F.Multiply(a, b) is var r && NativeRange.Normal<F>(r)
            ? r : SoftFloat.Multiply<F>(a, b, ref c);
}

internal readonly struct DivideOperation : IFloatBinary
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong Apply<F>(ulong a, ulong b, ref FloatContext c) where F : struct, INativeFormat
        => c.Native && NativeRange.NotDenormal<F>(a) && NativeRange.NotDenormal<F>(b) && F.Divide(a, b) is var r && NativeRange.Normal<F>(r)
            ? r : SoftFloat.Divide<F>(a, b, ref c);
}

internal readonly struct MinimumOperation : IFloatBinary
{
    public static ulong Apply<F>(ulong a, ulong b, ref FloatContext c) where F : struct, INativeFormat => SoftFloat.Choose<F>(a, b, Relation.Less, ref c);
}

internal readonly struct MaximumOperation : IFloatBinary
{
    public static ulong Apply<F>(ulong a, ulong b, ref FloatContext c) where F : struct, INativeFormat => SoftFloat.Choose<F>(a, b, Relation.Greater, ref c);
}

internal readonly struct SquareRootOperation : IFloatUnary
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong Apply<F>(ulong a, byte immediate, ref FloatContext c) where F : struct, INativeFormat
        => c.Native && NativeRange.NotDenormal<F>(a) && F.SquareRoot(a) is var r && NativeRange.Finite<F>(r) ? r : SoftFloat.SquareRoot<F>(a, ref c);
}

/// <summary>ROUNDxx: bits 1:0 of the immediate are the mode unless bit 2 says to take MXCSR's; bit 3 keeps inexactness to itself.</summary>
internal readonly struct RoundOperation : IFloatUnary
{
    public static ulong Apply<F>(ulong a, byte immediate, ref FloatContext c) where F : struct, INativeFormat
        => SoftFloat.RoundToIntegral<F>(a, (immediate & 4) != 0 ? c.Rounding : (Rounding)(immediate & 3), (immediate & 8) != 0, ref c);
}
