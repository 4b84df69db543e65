using System.Runtime.Intrinsics;

namespace Kvm.Emulator.Vector.Integer;

// The same for integers, singles and doubles: bits.

internal readonly struct And : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => a & b;
}

/// <summary>The *first* operand is the inverted one.</summary>
internal readonly struct AndNot : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.AndNot(b, a);
}

internal readonly struct Or : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => a | b;
}

internal readonly struct Xor : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => a ^ b;
}
