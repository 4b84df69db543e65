using System.Runtime.Intrinsics;

namespace Kvm.Emulator.Vector.Integer;

/// <summary>The steps of FIPS 197 that the AES instructions are made of. Byte 4c + r of a lane is row r of column c.</summary>
internal static unsafe class Aes
{
    private static readonly byte[] substitutions = Substitutions(), inverse = Inverse(substitutions);

    /// <summary>Multiplicative inverse in GF(2^8), then the affine map.</summary>
    private static byte[] Substitutions()
    {
        byte[] box = new byte[256];
        for (int i = 0; i < 256; i++)
        {
            int x = GaloisField.Invert((byte)i);
            box[i] = (byte)(x ^ Rotate(x, 1) ^ Rotate(x, 2) ^ Rotate(x, 3) ^ Rotate(x, 4) ^ 0x63);
        }
        return box;
    }

    private static int Rotate(int x, int by) => (x << by | x >> 8 - by) & 0xff;

    private static byte[] Inverse(byte[] box)
    {
        byte[] result = new byte[256];
        for (int i = 0; i < 256; i++)
            result[box[i]] = (byte)i;
        return result;
    }

    private static Vector128<byte> Substitute(Vector128<byte> state, byte[] box)
    {
        for (int i = 0; i < 16; i++)
            ((byte*)&state)[i] = box[((byte*)&state)[i]];
        return state;
    }

    internal static Vector128<byte> SubBytes(Vector128<byte> state) => Substitute(state, substitutions);

    internal static Vector128<byte> InvSubBytes(Vector128<byte> state) => Substitute(state, inverse);

    internal static Vector128<byte> ShiftRows(Vector128<byte> state) =>
        Vector128.Shuffle(state, Vector128.Create((byte)0, 5, 10, 15, 4, 9, 14, 3, 8, 13, 2, 7, 12, 1, 6, 11));

    internal static Vector128<byte> InvShiftRows(Vector128<byte> state) =>
        Vector128.Shuffle(state, Vector128.Create((byte)0, 13, 10, 7, 4, 1, 14, 11, 8, 5, 2, 15, 12, 9, 6, 3));

    /// <summary>Every byte by x in GF(2^8).</summary>
    private static Vector128<byte> Double(Vector128<byte> x) => (x << 1) ^ (Vector128.LessThan(x.AsSByte(), Vector128<sbyte>.Zero).AsByte() & Vector128.Create((byte)0x1b));

    /// <summary>Row r of every column becomes row r + <paramref name="by"/>.</summary>
    private static Vector128<byte> Rows(Vector128<byte> x, int by) => (x.AsUInt32() >>> 8 * by | x.AsUInt32() << 32 - 8 * by).AsByte();

    internal static Vector128<byte> MixColumns(Vector128<byte> x) => Double(x) ^ Rows(Double(x) ^ x, 1) ^ Rows(x, 2) ^ Rows(x, 3);

    internal static Vector128<byte> InvMixColumns(Vector128<byte> x)
    {
        Vector128<byte> four = Double(Double(x));
        return MixColumns(x ^ four ^ Rows(four, 2));
    }
}

internal readonly struct AesEncrypt : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Aes.MixColumns(Aes.SubBytes(Aes.ShiftRows(a))) ^ b;
}

internal readonly struct AesEncryptLast : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Aes.SubBytes(Aes.ShiftRows(a)) ^ b;
}

internal readonly struct AesDecrypt : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Aes.InvMixColumns(Aes.InvSubBytes(Aes.InvShiftRows(a))) ^ b;
}

internal readonly struct AesDecryptLast : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Aes.InvSubBytes(Aes.InvShiftRows(a)) ^ b;
}

/// <summary>AESIMC.</summary>
internal readonly struct AesInvertKey : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Aes.InvMixColumns(b);
}

/// <summary>AESKEYGENASSIST: columns 1 and 3 substituted, and the same rotated with the round constant.</summary>
internal readonly struct AesAssistKey : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        Vector128<uint> x = Aes.SubBytes(b).AsUInt32();
        uint first = x.GetElement(1), second = x.GetElement(3);
        return Vector128.Create(first, uint.RotateRight(first, 8) ^ (uint)immediate, second, uint.RotateRight(second, 8) ^ (uint)immediate).AsByte();
    }
}
