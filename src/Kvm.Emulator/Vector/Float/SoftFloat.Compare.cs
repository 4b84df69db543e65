namespace Kvm.Emulator.Vector.Float;

/// <summary>How two operands compare; one bit each, so that a predicate is a set of them.</summary>
[Flags]
internal enum Relation : uint { None = 0, Less = 1, Equal = 2, Greater = 4, Unordered = 8 }

internal static partial class SoftFloat
{
    /// <summary>Any NaN is an invalid operand of a signalling comparison, only signalling NaNs of a quiet one.</summary>
    internal static Relation Compare<F>(ulong a, ulong b, bool signalling, ref FloatContext c) where F : struct, IFloatFormat
    {
        a = Operand<F>(a, ref c);
        b = Operand<F>(b, ref c);
        if (IsNaN<F>(a) || IsNaN<F>(b))
        {
            if (signalling || IsSignalingNaN<F>(a) || IsSignalingNaN<F>(b))
                c.Raise(FloatContext.Invalid);
            return Relation.Unordered;
        }
        NoteDenormal<F>(a, ref c);
        NoteDenormal<F>(b, ref c);
        long x = Ordinal<F>(a), y = Ordinal<F>(b);
        return x < y ? Relation.Less : x > y ? Relation.Greater : Relation.Equal;
    }

    /// <summary>An integer that orders as the numbers do; both zeros are 0.</summary>
    private static long Ordinal<F>(ulong a) where F : struct, IFloatFormat
    {
        long magnitude = (long)(a & ~SignBit<F>());
        return IsNegative<F>(a) ? -magnitude : magnitude;
    }

    /// <summary>MINxx (<paramref name="wanted"/> Less) and MAXxx (Greater): the first operand if it compares so, otherwise, NaNs and equal numbers included, the second.</summary>
    internal static ulong Choose<F>(ulong a, ulong b, Relation wanted, ref FloatContext c) where F : struct, IFloatFormat
        => Compare<F>(a, b, signalling: true, ref c) == wanted ? Operand<F>(a, ref c) : Operand<F>(b, ref c);
}
