using System.Runtime.Intrinsics;

namespace Kvm.Emulator.Vector.Integer;

/// <summary>What PHADD and PHSUB do to neighbours: elements in twice their width, which saturation needs.</summary>
internal interface INeighbours
{
    static abstract Vector128<T> Of<T>(Vector128<T> even, Vector128<T> odd);
}

internal readonly struct Sum : INeighbours
{
    public static Vector128<T> Of<T>(Vector128<T> even, Vector128<T> odd) => even + odd;
}

internal readonly struct Difference : INeighbours
{
    public static Vector128<T> Of<T>(Vector128<T> even, Vector128<T> odd) => even - odd;
}

/// <summary>PHADDW, PHSUBW: the low half of the result from the first operand, the high half from the second.</summary>
internal readonly struct HorizontalWords<T> : ILane where T : struct, INeighbours
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) =>
        Vector128.Narrow(HorizontalSaturated<T>.Pairs(a.AsInt32()), HorizontalSaturated<T>.Pairs(b.AsInt32())).AsByte();
}

/// <summary>PHADDSW, PHSUBSW.</summary>
internal readonly struct HorizontalSaturated<T> : ILane where T : struct, INeighbours
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.NarrowWithSaturation(Pairs(a.AsInt32()), Pairs(b.AsInt32())).AsByte();

    internal static Vector128<int> Pairs(Vector128<int> x) => T.Of(x << 16 >> 16, x >> 16);
}

/// <summary>PHADDD, PHSUBD.</summary>
internal readonly struct HorizontalDoublewords<T> : ILane where T : struct, INeighbours
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.Narrow(Pairs(a.AsUInt64()), Pairs(b.AsUInt64())).AsByte();

    private static Vector128<ulong> Pairs(Vector128<ulong> x) => T.Of(x, x >> 32);
}
