using System.Runtime.Intrinsics;

namespace Kvm.Emulator.Vector.Integer;

/// <summary>PSHUFB: bit 7 of an index makes zero.</summary>
internal readonly struct ShuffleBytes : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.Shuffle(a, b & Vector128.Create((byte)0x8f));
}

/// <summary>PSHUFB of MMX registers: indexes of three bits.</summary>
internal readonly struct ShuffleEightBytes : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.Shuffle(a, b & Vector128.Create((byte)0x87));
}

/// <summary>PSHUFD, VPERMILPS with an immediate.</summary>
internal readonly unsafe struct ShuffleDoublewords : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        uint* p = (uint*)&b;
        return Vector128.Create(p[immediate & 3], p[immediate >> 2 & 3], p[immediate >> 4 & 3], p[immediate >> 6 & 3]).AsByte();
    }
}

/// <summary>PSHUFLW, PSHUFW.</summary>
internal readonly unsafe struct ShuffleLowWords : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        ushort* p = (ushort*)&b;
        return Vector128.Create(p[immediate & 3], p[immediate >> 2 & 3], p[immediate >> 4 & 3], p[immediate >> 6 & 3], p[4], p[5], p[6], p[7]).AsByte();
    }
}

/// <summary>PSHUFHW.</summary>
internal readonly unsafe struct ShuffleHighWords : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        ushort* p = (ushort*)&b;
        return Vector128.Create(p[0], p[1], p[2], p[3], p[4 + (immediate & 3)], p[4 + (immediate >> 2 & 3)], p[4 + (immediate >> 4 & 3)], p[4 + (immediate >> 6 & 3)]).AsByte();
    }
}

/// <summary>SHUFPS: two elements of each operand.</summary>
internal readonly unsafe struct ShuffleSingles : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        uint* p = (uint*)&a, q = (uint*)&b;
        return Vector128.Create(p[immediate & 3], p[immediate >> 2 & 3], q[immediate >> 4 & 3], q[immediate >> 6 & 3]).AsByte();
    }
}

/// <summary>SHUFPD: each lane has two bits of the immediate.</summary>
internal readonly unsafe struct ShuffleDoubles : ILane
{
    public static int ImmediateBits => 2;

    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.Create(((ulong*)&a)[immediate & 1], ((ulong*)&b)[immediate >> 1 & 1]).AsByte();
}

/// <summary>VPERMILPD with an immediate.</summary>
internal readonly unsafe struct PermuteDoubles : ILane
{
    public static int ImmediateBits => 2;

    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.Create(((ulong*)&b)[immediate & 1], ((ulong*)&b)[immediate >> 1 & 1]).AsByte();
}

/// <summary>VPERMILPS by a vector: bits 1:0 of each element.</summary>
internal readonly unsafe struct PermuteSinglesBy : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        uint* p = (uint*)&a, by = (uint*)&b;
        return Vector128.Create(p[by[0] & 3], p[by[1] & 3], p[by[2] & 3], p[by[3] & 3]).AsByte();
    }
}

/// <summary>VPERMILPD by a vector: bit 1 of each element.</summary>
internal readonly unsafe struct PermuteDoublesBy : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        ulong* p = (ulong*)&a, by = (ulong*)&b;
        return Vector128.Create(p[by[0] >> 1 & 1], p[by[1] >> 1 & 1]).AsByte();
    }
}

/// <summary>PALIGNR: the first operand above the second, shifted right by bytes.</summary>
internal readonly unsafe struct AlignRight : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        if (immediate >= 32)
            return Vector128<byte>.Zero;
        Vector128<byte>* bytes = stackalloc Vector128<byte>[3] { b, a, default };
        return Vector128.Load((byte*)bytes + immediate);
    }
}

/// <summary>PALIGNR of MMX registers.</summary>
internal readonly struct AlignEightRight : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => ShiftBytesRight.Of(Vector128.Create(b.GetLower(), a.GetLower()), (ulong)immediate);
}

/// <summary>MOVDDUP: needs 8 bytes a lane only.</summary>
internal readonly struct DuplicateDoubles : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.Create(b.GetLower(), b.GetLower());
}

/// <summary>MOVSLDUP: even elements twice.</summary>
internal readonly struct DuplicateEvenSingles : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.Shuffle(b.AsUInt32(), Vector128.Create(0u, 0, 2, 2)).AsByte();
}

/// <summary>MOVSHDUP: odd elements twice.</summary>
internal readonly struct DuplicateOddSingles : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.Shuffle(b.AsUInt32(), Vector128.Create(1u, 1, 3, 3)).AsByte();
}
