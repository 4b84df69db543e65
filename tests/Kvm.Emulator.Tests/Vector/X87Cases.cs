using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Tests.Vector;

/// <summary>Makes up x87 states and operands: mostly plain numbers, often near something that matters, sometimes nonsense.</summary>
internal static unsafe class X87Cases
{
    /// <summary>Control word, status word, tags, registers and memory operand of the next case; no unmasked exception is pending.</summary>
    internal static void Prepare(CpuState* s, byte* area, int register, int memoryBytes, bool integer, ref CaseRandom random)
    {
        int masks = random.Next(4) == 0 ? random.Next(64) : 0x3f;
        int precision = random.Next(8) switch { 0 => 0, 1 or 2 => 2, _ => 3 };
        *(ushort*)(s->Fx + VectorUnit.FxControl) = (ushort)(0x40 | masks | precision << 8 | random.Next(4) << 10);
        int flags = random.Next(2) == 0 ? random.Next(128) & (masks | 0x40) : 0;
        *(ushort*)(s->Fx + VectorUnit.FxStatus) = (ushort)(flags | random.Next(8) << 11 | random.Next(8) << 8 | random.Next(2) << 14);
        *(uint*)(s->Fx + VectorUnit.FxMxcsr) = 0x1f80;
        int top = *(ushort*)(s->Fx + VectorUnit.FxStatus) >> 11 & 7;
        s->Fx[VectorUnit.FxTags] = random.Next(16) switch
        {
            <= 7 => (byte)~(1 << (top + 7 & 7)), // room for one more
            <= 12 => 0xff,
            13 => 0,
            _ => (byte)random.Next64(),
        };
        for (int i = 0; i < 8; i++)
            Register(s, i, Value(ref random));
        Relate(s, register == 0 ? 1 : register, ref random);
        Memory(s, area, memoryBytes, integer, ref random);
        *(ulong*)(area + VectorUnit.FlagsOffset) = (random.Next64() & 0x8d5) | 2;
    }

    private static void Register(CpuState* s, int i, (ushort SignExponent, ulong Significand) value)
    {
        byte* slot = s->Fx + VectorUnit.FxSt + 16 * i;
        *(ulong*)slot = value.Significand;
        *(ushort*)(slot + 8) = value.SignExponent;
    }

    /// <summary>Half the time the second operand resembles the first, so that they cancel, compare equal, divide evenly.</summary>
    private static void Relate(CpuState* s, int register, ref CaseRandom random)
    {
        byte* first = s->Fx + VectorUnit.FxSt, second = first + 16 * register;
        ulong significand = *(ulong*)first;
        ushort exponent = *(ushort*)(first + 8);
        switch (random.Next(10))
        {
            case 0:
                *(ulong*)second = significand;
                *(ushort*)(second + 8) = (ushort)(exponent + (random.Next(2) * (random.Next(5) - 2)) ^ random.Next(2) << 15);
                break;
            case 1:
                *(ulong*)second = significand ^ random.Next64() >> random.Next(64);
                *(ushort*)(second + 8) = (ushort)(exponent ^ random.Next(2) << 15);
                break;
            case 2:
                *(ushort*)(second + 8) = (ushort)(exponent + random.Next(5) - 2 ^ random.Next(2) << 15);
                break;
            case 3:
                *(ushort*)(second + 8) = (ushort)(exponent + random.Next(140) - 70 ^ random.Next(2) << 15);
                break;
            case 4:
                Register(s, register, Normal(Scale(exponent & 0x7fff, ref random)));
                break;
            default:
                break;
        }
    }

    /// <summary>What FSCALE needs to bring an exponent to where overflow and underflow begin, or where their wrapped results end.</summary>
    private static long Scale(int exponent, ref CaseRandom random)
    {
        int target = random.Next(6) switch { 0 => 0, 1 => -64, 2 => 0x7fff, 3 => -24576, 4 => 0x7fff + 24576, _ => 0x3fff };
        return target - exponent + random.Next(7) - 3;
    }

    internal static (ushort SignExponent, ulong Significand) Value(ref CaseRandom random)
    {
        int sign = random.Next(2) << 15;
        ulong significand = Significand(ref random) | 1UL << 63;
        int exponent;
        switch (random.Next(28))
        {
            case 0:
                return ((ushort)sign, 0);
            case 1:
                return ((ushort)(sign | 0x7fff), 1UL << 63);
            case 2:
                return ((ushort)(sign | 0x7fff), significand | 1UL << 62);
            case 3:
                return ((ushort)(sign | 0x7fff), significand & ~(1UL << 62) | 1);
            case 4:
                return ((ushort)sign, Significand(ref random) >> random.Next(64));
            case 5:
                return ((ushort)sign, significand);
            case 6:
                return ((ushort)(sign | Unusual(ref random)), significand << 1 >> 1);
            case 7:
                exponent = random.Next(80);
                break;
            case 8:
                exponent = 0x7fff - random.Next(80);
                break;
            case 9:
                exponent = 0x3fff - 1022 - 60 + random.Next(64);
                break;
            case 10:
                exponent = 0x3fff + 1024 - random.Next(4);
                break;
            case 11:
                exponent = 0x3fff - 126 - 30 + random.Next(34);
                break;
            case 12:
                exponent = 0x3fff + 128 - random.Next(4);
                break;
            case 13:
                long integer = (long)random.Next64() >> random.Next(64);
                return Normal(integer);
            case 14 or 15 or 16:
                exponent = 0x3ffc + random.Next(70);
                break;
            case 17:
                exponent = random.Next(0x8000);
                break;
            case 18 or 19:
                (ushort boundary, significand) = Boundary(ref random);
                return ((ushort)(sign | boundary), significand);
            case 20:
                // just below the smallest normal number of a format, up to which it may be rounded
                exponent = random.Next(4) switch { 0 => 0x3fff - 1023, 1 => 0x3fff - 127, _ => 0 };
                significand = ~(random.Next64() >> 20 >> random.Next(44));
                return ((ushort)(sign | exponent), exponent == 0 ? significand >> 1 : significand);
            default:
                exponent = 0x3fff - 32 + random.Next(64);
                break;
        }
        return ((ushort)(sign | exponent), significand);
    }

    /// <summary>A few quarters from where an integer format ends, or small.</summary>
    private static (ushort SignExponent, ulong Significand) Boundary(ref CaseRandom random)
    {
        UInt128 quarters = random.Next(8) switch
        {
            0 => (UInt128)1 << 17,
            1 => (UInt128)1 << 33,
            2 => (UInt128)1 << 65,
            3 => (UInt128)1 << 66,
            4 or 5 => (UInt128)4_000_000_000_000_000_000,
            _ => (UInt128)(uint)(16 + random.Next(64)),
        };
        quarters += (UInt128)(uint)random.Next(17);
        quarters -= 8;
        int length = 128 - (int)UInt128.LeadingZeroCount(quarters);
        return ((ushort)(0x3fff - 2 + length - 1), (ulong)(length > 64 ? quarters >> (length - 64) : quarters << (64 - length)));
    }

    private static int Unusual(ref CaseRandom random) => random.Next(3) switch { 0 => 0x7fff, 1 => 0x3fff + random.Next(4), _ => 1 + random.Next(0x7ffe) };

    private static (ushort, ulong) Normal(long value)
    {
        if (value == 0)
            return (0, 0);
        ulong magnitude = (ulong)Math.Abs((decimal)value);
        int shift = System.Numerics.BitOperations.LeadingZeroCount(magnitude);
        return ((ushort)((value < 0 ? 0x8000 : 0) | 0x3fff + 63 - shift), magnitude << shift);
    }

    /// <summary>Few or many ones, or an end that decides a rounding.</summary>
    private static ulong Significand(ref CaseRandom random)
    {
        ulong bits = random.Next64();
        switch (random.Next(10))
        {
            case 0:
                return 1UL << random.Next(64);
            case 1:
                return ulong.MaxValue << random.Next(64);
            case 2:
                return bits & random.Next64() & random.Next64();
            case 3:
                return bits | random.Next64() | random.Next64();
            case 4:
                return (bits & ~0x7ffUL) | (uint)(0x3ff + random.Next(3));
            case 5:
                return (bits & ~0xff_ffffffffUL) | 0x7f_ffffffffUL + (ulong)random.Next(3);
            case 6:
                return bits & ~0UL << random.Next(64);
            case 7:
                return ~(random.Next64() >> random.Next(64));
            default:
                return bits;
        }
    }

    private static void Memory(CpuState* s, byte* area, int bytes, bool integer, ref CaseRandom random)
    {
        random.Fill(new Span<byte>(area, 64));
        (ushort signExponent, ulong significand) = random.Next(3) == 0
            ? (*(ushort*)(s->Fx + VectorUnit.FxSt + 8), *(ulong*)(s->Fx + VectorUnit.FxSt))
            : Value(ref random);
        if (bytes == 10)
        {
            *(ulong*)area = significand;
            *(ushort*)(area + 8) = signExponent;
            if (random.Next(2) == 0)
                Decimal(area, ref random);
        }
        else if (integer)
        {
            *(long*)area = (long)random.Next64() >> random.Next(64);
        }
        else if (bytes == 4)
        {
            *(uint*)area = Shorter(signExponent, significand, 8, 23, ref random) is var v ? (uint)v : 0;
        }
        else if (bytes == 8)
        {
            *(ulong*)area = Shorter(signExponent, significand, 11, 52, ref random);
        }
    }

    private static void Decimal(byte* area, ref CaseRandom random)
    {
        for (int i = 0; i < 10; i++)
            area[i] = (byte)(random.Next(10) << 4 | random.Next(10));
        for (int i = random.Next(10); i < 9; i++)
            area[i] = random.Next(8) == 0 ? (byte)0x99 : (byte)0;
        area[9] = (byte)(random.Next(2) << 7);
    }

    /// <summary>A single or double that resembles a register's value.</summary>
    private static ulong Shorter(ushort signExponent, ulong significand, int exponentBits, int fractionBits, ref CaseRandom random)
    {
        int limit = (1 << exponentBits) - 1, exponent = (signExponent & 0x7fff) - 0x3fff + (limit >> 1);
        if ((signExponent & 0x7fff) is 0x7fff or 0)
            exponent = (signExponent & 1) * limit;
        if (exponent < 0 || exponent > limit)
            exponent = random.Next(3) switch { 0 => 0, 1 => limit, _ => random.Next(limit) };
        ulong fraction = significand << 1 >> (64 - fractionBits);
        return (ulong)(signExponent >> 15) << (exponentBits + fractionBits) | (ulong)exponent << fractionBits | fraction;
    }
}
