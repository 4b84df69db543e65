using System.Runtime.CompilerServices;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Tests.Vector;

/// <summary>Random register files and operands in which edges are frequent: extremes, zeros, NaNs, denormals, counts, text. The seed decides everything.</summary>
internal sealed unsafe class CoreOperands(ulong seed)
{
    private static readonly ulong[] integers = [0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 63, 64, 65, 127, 128, 255, 256, 0x7f80, 0x8000, ulong.MaxValue, ulong.MaxValue - 1, 1UL << 63, (1UL << 63) - 1];

    private static readonly uint[] singles =
    [
        0, 0x8000_0000, 1, 0x8000_0001, 0x007f_ffff, 0x807f_ffff, 0x0080_0000, 0x8080_0000, 0x7f7f_ffff, 0xff7f_ffff, 0x3f80_0000, 0xbf80_0000, 0x3fc0_0000, 0x3f00_0000,
        0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0xffc0_0000, 0x7f80_0001, 0xff80_0001, 0x7fbf_ffff, 0x7fff_ffff, 0x4f00_0000, 0xcf00_0000, 0x5f00_0000, 0xdf00_0000, 0x4b00_0001, 0x3eff_ffff,
    ];

    private static readonly ulong[] doubles =
    [
        0, 1UL << 63, 1, 1UL << 63 | 1, 0x000f_ffff_ffff_ffff, 0x0010_0000_0000_0000, 0x8010_0000_0000_0000, 0x7fef_ffff_ffff_ffff, 0xffef_ffff_ffff_ffff,
        0x3ff0_0000_0000_0000, 0xbff0_0000_0000_0000, 0x3ff8_0000_0000_0000, 0x3fe0_0000_0000_0000, 0x7ff0_0000_0000_0000, 0xfff0_0000_0000_0000, 0x7ff8_0000_0000_0000, 0xfff8_0000_0000_0000,
        0x7ff0_0000_0000_0001, 0xfff0_0000_0000_0001, 0x7ff7_ffff_ffff_ffff, 0x41df_ffff_ffc0_0000, 0x41e0_0000_0000_0000, 0xc1e0_0000_0000_0000, 0xc1e0_0000_0020_0000,
        0x43e0_0000_0000_0000, 0xc3e0_0000_0000_0000, 0x4330_0000_0000_0001, 0x3810_0000_0000_0000, 0x36a0_0000_0000_0000, 0x47ef_ffff_e000_0000, 0x47ef_ffff_f000_0000,
    ];

    /// <summary>Significand and sign with exponent of 80-bit values, those that are no numbers today included (unnormals, pseudo-denormals, pseudo-NaNs, pseudo-infinities).</summary>
    private static readonly (ulong Significand, ushort Exponent)[] extended =
    [
        (0, 0), (0, 0x8000), (1, 0), (1UL << 63, 0), (1UL << 63 | 1, 0x8000), (ulong.MaxValue >> 1, 0), (1UL << 63, 1), (ulong.MaxValue, 0x7ffe), (ulong.MaxValue, 0xfffe),
        (1UL << 63, 0x3fff), (1UL << 63, 0xbfff), (3UL << 62, 0x3fff), (1UL << 63, 0x3ffe), (1UL << 63, 0x7fff), (1UL << 63, 0xffff), (3UL << 62, 0x7fff), (3UL << 62, 0xffff),
        (1UL << 63 | 1, 0x7fff), (1UL << 63 | 1, 0xffff), (ulong.MaxValue, 0x7fff), (0, 0x7fff), (1, 0x7fff), (1UL << 62, 0x4000), (1, 0x3fff),
        (1UL << 63, 0x400e), (1UL << 63, 0x401e), (1UL << 63, 0xc01e), (1UL << 63, 0x403e), (1UL << 63, 0xc03e), (0xc90f_daa2_2168_c235, 0x4000), (0xc90f_daa2_2168_c235, 0x3fff),
        (0xffff_ff00_0000_0000, 0x407e), (0xffff_ff80_0000_0000, 0x407e), (1UL << 63, 0x3f80), (1UL << 63, 0x3c00), (1UL << 63, 0x3bcd), (1UL << 63, 0x43ff),
    ];

    private CaseRandom random = new(seed);

    internal ulong Next() => random.Next64();

    /// <summary>0 to <paramref name="bound"/> - 1.</summary>
    internal int Next(int bound) => random.Next(bound);

    /// <summary>Register files, control words and operand area; flags are the caller's.</summary>
    internal void Fill(CpuState* s, byte* area, bool legacy)
    {
        for (int i = 0; i < 16; i++)
            s->Gpr[i] = Integer();
        for (int i = 0; i < 16; i++)
            Chunk(s->Fx + VectorUnit.FxXmm + i * 16);
        for (int i = 0; i < 16; i++)
            Chunk(s->YmmHi + i * 16);
        for (int i = 0; i < 4; i++)
            Chunk(area + i * 16);
        for (int i = 64; i < VectorUnit.FlagsOffset; i += 8)
            *(ulong*)(area + i) = Next();
        // Operands that are equal, or differ little, take other ways than unrelated ones.
        if (Next(4) == 0)
            Unsafe.CopyBlock(s->Fx + VectorUnit.FxXmm + Next(16) * 16, s->Fx + VectorUnit.FxXmm + Next(16) * 16, 16);
        if (Next(4) == 0)
            Unsafe.CopyBlock(area, s->Fx + VectorUnit.FxXmm + Next(16) * 16, 16);
        VectorUnit.Mxcsr(s) = VectorUnit.MxcsrMasks | ((uint)Next() & 0x6000) | (Next(4) == 0 ? 0x40u : 0) | (Next(4) == 0 ? 0x8000u : 0) | (Next(2) == 0 ? (uint)Next(64) : 0);
        if (legacy)
            Legacy(s, area);
    }

    /// <summary>x87 and MMX registers. No exception is pending: <see cref="VectorUnit"/> would not have come as far as the core.</summary>
    private void Legacy(CpuState* s, byte* area)
    {
        uint masks = Next(3) == 0 ? (uint)Next(64) : 0x3f;
        *(ushort*)(s->Fx + VectorUnit.FxControl) = (ushort)(masks | 0x40 | (uint)Next(16) << 8 | (uint)Next(2) << 12);
        *(ushort*)(s->Fx + VectorUnit.FxStatus) = (ushort)((uint)Next(64) & masks | (Next(8) == 0 ? 0x40u : 0) | ((uint)Next() & 0x7f00));
        s->Fx[VectorUnit.FxTags] = Next(3) == 0 ? (byte)Next(256) : (byte)0xff;
        for (int i = 0; i < 8; i++)
        {
            Extended(s->Fx + VectorUnit.FxSt + i * 16);
            *(ushort*)(s->Fx + VectorUnit.FxSt + i * 16 + 10) = 0;
            *(uint*)(s->Fx + VectorUnit.FxSt + i * 16 + 12) = 0;
        }
        if (Next(2) == 0)
            Extended(area);
    }

    internal ulong Integer() => Next(3) switch { 0 => integers[Next(integers.Length)], 1 => Next() >> Next(64), _ => Next() };

    internal void Extended(byte* p)
    {
        (ulong significand, ushort exponent) = extended[Next(extended.Length)];
        switch (Next(8))
        {
            case 0:
                (significand, exponent) = (Next(), (ushort)Next());
                break;
            case 1: // an integer of any size
                significand = Integer() | 1;
                int shift = System.Numerics.BitOperations.LeadingZeroCount(significand);
                (significand, exponent) = (significand << shift, (ushort)(0x403e - shift | Next(2) << 15));
                break;
            case 2 or 3: // near enough to others for sums and quotients that round
                (significand, exponent) = (Next() | 1UL << 63, (ushort)(0x3fff - 40 + Next(80) | Next(2) << 15));
                break;
            case 4: // as MMX instructions see it
                byte* chunk = stackalloc byte[16];
                Chunk(chunk);
                (significand, exponent) = (*(ulong*)chunk, (ushort)Next());
                break;
            case 5: // few significant bits: exact results
                (significand, exponent) = (Next() << 48 | 1UL << 63, (ushort)(0x3fff - 20 + Next(40) | Next(2) << 15));
                break;
        }
        *(ulong*)p = significand;
        *(ushort*)(p + 8) = exponent;
    }

    /// <summary>Sixteen bytes of one of many kinds.</summary>
    internal void Chunk(byte* p)
    {
        int kind = Next(16);
        switch (kind)
        {
            case 0:
                Put(p, 0, 0);
                break;
            case 1:
                Put(p, ulong.MaxValue, ulong.MaxValue);
                break;
            case 2: // bytes at the edges
                for (int i = 0; i < 16; i++)
                    p[i] = (byte)integers[Next(integers.Length)];
                break;
            case 3:
                for (int i = 0; i < 8; i++)
                    ((ushort*)p)[i] = Next(8) == 0 ? (ushort)(0x8000 + Next(3) - 1) : (ushort)integers[Next(integers.Length)];
                break;
            case 4:
                for (int i = 0; i < 4; i++)
                    ((uint*)p)[i] = Next(8) == 0 ? 0x8000_0000 + (uint)Next(3) - 1 : (uint)integers[Next(integers.Length)];
                break;
            case 5:
                Put(p, Integer(), Integer());
                break;
            case 6 or 7:
                for (int i = 0; i < 4; i++)
                    ((uint*)p)[i] = Single();
                break;
            case 8 or 9:
                Put(p, Double(), Double());
                break;
            case 10: // text
                for (int i = 0; i < 16; i++)
                    p[i] = Next(12) == 0 ? (byte)0 : (byte)('a' + Next(4));
                break;
            case 11: // a count
                Put(p, (ulong)Next(72), Next(2) == 0 ? 0 : Next());
                break;
            case 12: // counts or indexes
                for (int i = 0; i < 4; i++)
                    ((uint*)p)[i] = (uint)Next(72);
                break;
            default:
                Put(p, Next(), Next());
                break;
        }
    }

    internal uint Single() => Next(5) switch
    {
        0 => (uint)Next(),
        1 => (uint)Next() & 0x807f_ffff | (uint)(127 - 30 + Next(60)) << 23,
        2 => (uint)Next() & 0x8070_0000 | (uint)(127 - 8 + Next(16)) << 23,
        3 => BitConverter.SingleToUInt32Bits((int)Integer()),
        _ => singles[Next(singles.Length)],
    };

    internal ulong Double() => Next(5) switch
    {
        0 => Next(),
        1 => Next() & 0x800f_ffff_ffff_ffff | (ulong)(1023 - 60 + Next(120)) << 52,
        2 => Next() & 0x800f_0000_0000_0000 | (ulong)(1023 - 8 + Next(16)) << 52,
        3 => BitConverter.DoubleToUInt64Bits((long)Integer()),
        _ => doubles[Next(doubles.Length)],
    };

    private static void Put(byte* p, ulong low, ulong high)
    {
        *(ulong*)p = low;
        *(ulong*)(p + 8) = high;
    }
}
