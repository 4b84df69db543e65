using System.Runtime.Intrinsics;

namespace Kvm.Emulator.Vector.Integer;

/// <summary>PMULLW, PMULLD: low halves of the products.</summary>
internal readonly struct MultiplyLow<T> : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => (a.As<byte, T>() * b.As<byte, T>()).AsByte();
}

/// <summary>PMULHW: high halves of signed products.</summary>
internal readonly struct MultiplyHigh : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        Vector128<short> x = a.AsInt16(), y = b.AsInt16();
        Vector128<int> low = Vector128.WidenLower(x) * Vector128.WidenLower(y), high = Vector128.WidenUpper(x) * Vector128.WidenUpper(y);
        return Vector128.Narrow(low >> 16, high >> 16).AsByte();
    }
}

/// <summary>PMULHUW: high halves of unsigned products.</summary>
internal readonly struct MultiplyHighUnsigned : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        Vector128<ushort> x = a.AsUInt16(), y = b.AsUInt16();
        Vector128<uint> low = Vector128.WidenLower(x) * Vector128.WidenLower(y), high = Vector128.WidenUpper(x) * Vector128.WidenUpper(y);
        return Vector128.Narrow(low >> 16, high >> 16).AsByte();
    }
}

/// <summary>PMULHRSW: products of 1.15 fractions, rounded.</summary>
internal readonly struct MultiplyRounded : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        Vector128<short> x = a.AsInt16(), y = b.AsInt16();
        Vector128<int> low = Vector128.WidenLower(x) * Vector128.WidenLower(y), high = Vector128.WidenUpper(x) * Vector128.WidenUpper(y);
        return Vector128.Narrow((low + Vector128.Create(0x4000)) >> 15, (high + Vector128.Create(0x4000)) >> 15).AsByte();
    }
}

/// <summary>PMULDQ: the even signed doublewords.</summary>
internal readonly struct MultiplyEven : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) =>
        Vector128.Create((long)a.AsInt32().GetElement(0) * b.AsInt32().GetElement(0), (long)a.AsInt32().GetElement(2) * b.AsInt32().GetElement(2)).AsByte();
}

/// <summary>PMULUDQ: the even unsigned doublewords.</summary>
internal readonly struct MultiplyEvenUnsigned : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) =>
        Vector128.Create((ulong)a.AsUInt32().GetElement(0) * b.AsUInt32().GetElement(0), (ulong)a.AsUInt32().GetElement(2) * b.AsUInt32().GetElement(2)).AsByte();
}

/// <summary>PMADDWD: sums of pairs of products; four times -32768 squared wraps.</summary>
internal readonly struct MultiplyAddWords : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        Vector128<int> x = a.AsInt32(), y = b.AsInt32();
        return ((x << 16 >> 16) * (y << 16 >> 16) + (x >> 16) * (y >> 16)).AsByte();
    }
}

/// <summary>PMADDUBSW: unsigned bytes by signed bytes, pairs summed with saturation.</summary>
internal readonly struct MultiplyAddBytes : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        Vector128<short> x = a.AsInt16(), y = b.AsInt16();
        return Vector128.AddSaturate((x & Vector128.Create((short)0xff)) * (y << 8 >> 8), (x >>> 8) * (y >> 8)).AsByte();
    }
}

/// <summary>PSADBW: sums of absolute differences of eight bytes.</summary>
internal readonly struct SumOfDifferences : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        Vector128<ushort> words = (Vector128.Max(a, b) - Vector128.Min(a, b)).AsUInt16();
        Vector128<uint> doubles = ((words & Vector128.Create((ushort)0xff)) + (words >> 8)).AsUInt32();
        Vector128<ulong> quads = ((doubles & Vector128.Create(0xffffu)) + (doubles >> 16)).AsUInt64();
        return ((quads & Vector128.Create((ulong)uint.MaxValue)) + (quads >> 32)).AsByte();
    }
}

/// <summary>MPSADBW: sums of absolute differences of one group of four bytes and eight overlapping ones; each lane has three bits of the immediate.</summary>
internal readonly unsafe struct SlidingDifferences : ILane
{
    public static int ImmediateBits => 3;

    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        byte* sliding = (byte*)&a + (immediate >> 2 & 1) * 4, group = (byte*)&b + (immediate & 3) * 4;
        Vector128<ushort> result = default;
        for (int i = 0; i < 8; i++)
        {
            int sum = 0;
            for (int j = 0; j < 4; j++)
                sum += Math.Abs(sliding[i + j] - group[j]);
            ((ushort*)&result)[i] = (ushort)sum;
        }
        return result.AsByte();
    }
}

/// <summary>PHMINPOSUW: the smallest word and the place of its first occurrence.</summary>
internal readonly unsafe struct SmallestWord : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        ushort* words = (ushort*)&b;
        int at = 0;
        for (int i = 1; i < 8; i++)
        {
            if (words[i] < words[at])
                at = i;
        }
        return Vector128.CreateScalar(words[at] | (uint)at << 16).AsByte();
    }
}
