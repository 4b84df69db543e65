using System.Numerics;
using System.Runtime.Intrinsics;

namespace Kvm.Emulator.Vector.Integer;

/// <summary>GF(2^8) with x^8 + x^4 + x^3 + x + 1, and products of polynomials over GF(2).</summary>
internal static class GaloisField
{
    private static readonly byte[] inverses = Inverses();

    private static byte[] Inverses()
    {
        byte[] result = new byte[256];
        for (int i = 1; i < 256; i++)
        {
            int j = 1;
            while (Multiply((byte)i, (byte)j) != 1)
                j++;
            result[i] = (byte)j;
        }
        return result;
    }

    /// <summary>0 has none and stays.</summary>
    internal static byte Invert(byte x) => inverses[x];

    internal static byte Multiply(byte x, byte y)
    {
        int product = 0, factor = x;
        for (int bits = y; bits != 0; bits >>= 1)
        {
            product ^= (bits & 1) != 0 ? factor : 0;
            factor = factor << 1 ^ (factor >> 7) * 0x11b;
        }
        return (byte)product;
    }

    /// <summary>The matrix has its first row in its last byte.</summary>
    internal static byte Affine(ulong matrix, byte x, int constant)
    {
        int result = constant;
        for (int i = 0; i < 8; i++)
            result ^= (BitOperations.PopCount((uint)(byte)(matrix >> 8 * (7 - i)) & x) & 1) << i;
        return (byte)result;
    }
}

internal readonly unsafe struct GaloisMultiply : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        for (int i = 0; i < 16; i++)
            ((byte*)&a)[i] = GaloisField.Multiply(((byte*)&a)[i], ((byte*)&b)[i]);
        return a;
    }
}

/// <summary>GF2P8AFFINEQB: each quadword of the second operand is a matrix for eight bytes of the first.</summary>
internal readonly unsafe struct GaloisAffine : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        for (int i = 0; i < 16; i++)
            ((byte*)&a)[i] = GaloisField.Affine(((ulong*)&b)[i >> 3], ((byte*)&a)[i], immediate);
        return a;
    }
}

/// <summary>GF2P8AFFINEINVQB: of the inverses.</summary>
internal readonly unsafe struct GaloisAffineInverse : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        for (int i = 0; i < 16; i++)
            ((byte*)&a)[i] = GaloisField.Affine(((ulong*)&b)[i >> 3], GaloisField.Invert(((byte*)&a)[i]), immediate);
        return a;
    }
}

/// <summary>PCLMULQDQ: bits 0 and 4 of the immediate choose the quadwords.</summary>
internal readonly struct CarrylessMultiply : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        ulong x = a.AsUInt64().GetElement(immediate & 1), y = b.AsUInt64().GetElement(immediate >> 4 & 1), low = 0, high = 0;
        for (int i = 0; i < 64; i++)
        {
            ulong chosen = 0 - (y >> i & 1);
            low ^= x << i & chosen;
            high ^= x >> 1 >> (63 - i) & chosen;
        }
        return Vector128.Create(low, high).AsByte();
    }
}
