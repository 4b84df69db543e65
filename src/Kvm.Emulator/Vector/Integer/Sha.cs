using System.Runtime.Intrinsics;

namespace Kvm.Emulator.Vector.Integer;

// SHA extensions: FIPS 180-4 with the newest word in the highest element for SHA-1, in the lowest for SHA-256. SDM vol 2B.

/// <summary>SHA1NEXTE: the E of four rounds on, added to a message word.</summary>
internal readonly struct Sha1NextE : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        Vector128<uint> words = b.AsUInt32();
        return words.WithElement(3, words.GetElement(3) + uint.RotateLeft(a.AsUInt32().GetElement(3), 30)).AsByte();
    }
}

internal readonly struct Sha1Message1 : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => a ^ Vector128.Create(b.GetUpper(), a.GetLower());
}

internal readonly struct Sha1Message2 : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        Vector128<uint> x = a.AsUInt32(), y = b.AsUInt32();
        uint w16 = uint.RotateLeft(x.GetElement(3) ^ y.GetElement(2), 1), w17 = uint.RotateLeft(x.GetElement(2) ^ y.GetElement(1), 1);
        uint w18 = uint.RotateLeft(x.GetElement(1) ^ y.GetElement(0), 1), w19 = uint.RotateLeft(x.GetElement(0) ^ w16, 1);
        return Vector128.Create(w19, w18, w17, w16).AsByte();
    }
}

/// <summary>SHA1RNDS4: four rounds with the function and constant of the immediate's low bits; E is already in the message.</summary>
internal readonly struct Sha1FourRounds : ILane
{
    public static Vector128<byte> Of(Vector128<byte> state, Vector128<byte> message, int immediate)
    {
        Vector128<uint> x = state.AsUInt32(), w = message.AsUInt32();
        uint a = x.GetElement(3), b = x.GetElement(2), c = x.GetElement(1), d = x.GetElement(0), e = 0;
        for (int i = 3; i >= 0; i--)
        {
            uint f = (immediate & 3) switch { 0 => (b & c) ^ (~b & d), 2 => (b & c) ^ (b & d) ^ (c & d), _ => b ^ c ^ d };
            uint k = (immediate & 3) switch { 0 => 0x5a827999, 1 => 0x6ed9eba1, 2 => 0x8f1bbcdc, _ => 0xca62c1d6 };
            uint next = f + uint.RotateLeft(a, 5) + w.GetElement(i) + e + k;
            (e, d, c, b, a) = (d, c, uint.RotateLeft(b, 30), a, next);
        }
        return Vector128.Create(d, c, b, a).AsByte();
    }
}

/// <summary>SHA256MSG1.</summary>
internal readonly struct Sha256Message1 : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        Vector128<uint> x = a.AsUInt32();
        uint next = b.AsUInt32().ToScalar();
        return Vector128.Create(x.GetElement(0) + Sigma(x.GetElement(1)), x.GetElement(1) + Sigma(x.GetElement(2)), x.GetElement(2) + Sigma(x.GetElement(3)), x.GetElement(3) + Sigma(next)).AsByte();
    }

    private static uint Sigma(uint x) => uint.RotateRight(x, 7) ^ uint.RotateRight(x, 18) ^ x >> 3;
}

/// <summary>SHA256MSG2.</summary>
internal readonly struct Sha256Message2 : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        Vector128<uint> x = a.AsUInt32(), y = b.AsUInt32();
        uint w16 = x.GetElement(0) + Sigma(y.GetElement(2)), w17 = x.GetElement(1) + Sigma(y.GetElement(3));
        return Vector128.Create(w16, w17, x.GetElement(2) + Sigma(w16), x.GetElement(3) + Sigma(w17)).AsByte();
    }

    private static uint Sigma(uint x) => uint.RotateRight(x, 17) ^ uint.RotateRight(x, 19) ^ x >> 10;
}

/// <summary>SHA256RNDS2 xmm (C D G H), xmm/m128 (A B E F), &lt;XMM0&gt; (two words with their constants added).</summary>
internal readonly struct Sha256TwoRounds : IMaskedLane
{
    public static Vector128<byte> Of(Vector128<byte> first, Vector128<byte> second, Vector128<byte> message)
    {
        Vector128<uint> x = first.AsUInt32(), y = second.AsUInt32();
        uint a = y.GetElement(3), b = y.GetElement(2), c = x.GetElement(3), d = x.GetElement(2);
        uint e = y.GetElement(1), f = y.GetElement(0), g = x.GetElement(1), h = x.GetElement(0);
        for (int i = 0; i < 2; i++)
        {
            uint t = h + (uint.RotateRight(e, 6) ^ uint.RotateRight(e, 11) ^ uint.RotateRight(e, 25)) + ((e & f) ^ (~e & g)) + message.AsUInt32().GetElement(i);
            uint majority = (a & b) ^ (a & c) ^ (b & c);
            uint next = t + majority + (uint.RotateRight(a, 2) ^ uint.RotateRight(a, 13) ^ uint.RotateRight(a, 22));
            (h, g, f, e, d, c, b, a) = (g, f, e, d + t, c, b, a, next);
        }
        return Vector128.Create(f, e, b, a).AsByte();
    }
}
