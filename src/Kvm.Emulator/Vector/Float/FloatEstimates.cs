namespace Kvm.Emulator.Vector.Float;

/// <summary>RCPxx and RSQRTxx: reciprocals of single precision good to a relative error of 1.5 * 2^-12.</summary>
/// <remarks>
/// Processors take these from tables, and every family has its own: within the bound the manuals leave the value open, so guests of this engine see the exact
/// reciprocal rounded to 12 significant bits (an error of 2^-12 at most), guests of a host-executed instruction see the host's. What is not open is the same:
/// denormal operands count as zeros, tiny results become zeros, no exception is raised and MXCSR is not looked at (SDM vol 2, RCPPS, RSQRTPS).
/// </remarks>
internal static class FloatEstimates
{
    private const int discarded = 12;

    internal static ulong Reciprocal(ulong a)
    {
        if (SoftFloat.IsNaN<Binary32>(a))
            return a | SoftFloat.QuietBit<Binary32>();
        ulong sign = a & SoftFloat.SignBit<Binary32>();
        if ((a & SoftFloat.Infinity<Binary32>()) == 0)
            return sign | SoftFloat.Infinity<Binary32>();
        return SoftFloat.IsInfinite<Binary32>(a) ? sign : Round(1 / (double)BitConverter.UInt32BitsToSingle((uint)a));
    }

    internal static ulong ReciprocalRoot(ulong a)
    {
        if (SoftFloat.IsNaN<Binary32>(a))
            return a | SoftFloat.QuietBit<Binary32>();
        ulong sign = a & SoftFloat.SignBit<Binary32>();
        if ((a & SoftFloat.Infinity<Binary32>()) == 0)
            return sign | SoftFloat.Infinity<Binary32>();
        if (sign != 0)
            return SoftFloat.DefaultNaN<Binary32>();
        return SoftFloat.IsInfinite<Binary32>(a) ? 0 : Round(1 / Math.Sqrt(BitConverter.UInt32BitsToSingle((uint)a)));
    }

    private static ulong Round(double value)
    {
        const int drop = discarded + 29;
        ulong bits = BitConverter.DoubleToUInt64Bits(value);
        bits = (bits + (1UL << (drop - 1))) & ~((1UL << drop) - 1);
        uint single = BitConverter.SingleToUInt32Bits((float)BitConverter.UInt64BitsToDouble(bits));
        return (single & 0x7f800000) == 0 ? single & 0x80000000 : single;
    }
}

internal readonly struct ReciprocalOperation : IFloatUnary
{
    public static ulong Apply<F>(ulong a, byte immediate, ref FloatContext c) where F : struct, INativeFormat => FloatEstimates.Reciprocal(a);
}

internal readonly struct ReciprocalRootOperation : IFloatUnary
{
    public static ulong Apply<F>(ulong a, byte immediate, ref FloatContext c) where F : struct, INativeFormat => FloatEstimates.ReciprocalRoot(a);
}
