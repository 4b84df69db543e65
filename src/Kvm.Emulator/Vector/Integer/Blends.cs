using System.Runtime.Intrinsics;

namespace Kvm.Emulator.Vector.Integer;

/// <summary>PBLENDW: a set bit takes the word of the second operand; both lanes use the same bits.</summary>
internal readonly struct BlendWords : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        Vector128<ushort> bits = Vector128.Create((ushort)1, 2, 4, 8, 16, 32, 64, 128);
        return Vector128.ConditionalSelect(Vector128.Equals(Vector128.Create((ushort)immediate) & bits, bits).AsByte(), b, a);
    }
}

/// <summary>BLENDPS, VPBLENDD.</summary>
internal readonly struct BlendSingles : ILane
{
    public static int ImmediateBits => 4;

    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        var bits = Vector128.Create(1, 2, 4, 8);
        return Vector128.ConditionalSelect(Vector128.Equals(Vector128.Create(immediate) & bits, bits).AsByte(), b, a);
    }
}

/// <summary>BLENDPD.</summary>
internal readonly struct BlendDoubles : ILane
{
    public static int ImmediateBits => 2;

    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        var bits = Vector128.Create(1L, 2);
        return Vector128.ConditionalSelect(Vector128.Equals(Vector128.Create((long)immediate) & bits, bits).AsByte(), b, a);
    }
}

/// <summary>PBLENDVB, BLENDVPS, BLENDVPD by element type: the sign of a mask element takes the second operand's.</summary>
internal readonly struct BlendBySign<T> : IMaskedLane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, Vector128<byte> mask) =>
        Vector128.ConditionalSelect(Vector128.LessThan(mask.As<byte, T>(), Vector128<T>.Zero).AsByte(), b, a);
}
