namespace Kvm.Emulator.Tests.Vector;

/// <summary>Operands that floating-point arithmetic can go wrong on, and others.</summary>
internal static class FloatValues
{
    /// <summary>A value of a format with <paramref name="exponentBits"/> and <paramref name="fractionBits"/>.</summary>
    internal static ulong Next(ref CaseRandom random, int exponentBits, int fractionBits)
    {
        ulong sign = (random.Next64() & 1) << (exponentBits + fractionBits);
        ulong maximum = (1UL << exponentBits) - 1, bias = maximum >> 1, one = 1UL << fractionBits;
        ulong exponent = random.Next(16) switch
        {
            0 or 1 => 0,
            2 => maximum,
            3 => 1 + (ulong)random.Next(3),
            4 => maximum - 1 - (ulong)random.Next(3),
            5 => (ulong)random.Next(fractionBits + 4) & maximum,
            6 => maximum - ((ulong)random.Next(fractionBits + 4) & maximum),
            7 => bias / 2 + (ulong)random.Next(5),
            8 => bias + bias / 2 + (ulong)random.Next(5),
            9 => bias + 29 + (ulong)random.Next(4),
            10 => bias + 61 + (ulong)random.Next(4),
            11 => bias + (ulong)random.Next(fractionBits + 2),
            12 => bias - 3 + (ulong)random.Next(6),
            13 => bias - (ulong)random.Next(fractionBits + 2),
            _ => random.Next64() & maximum,
        };
        ulong fraction = random.Next(10) switch
        {
            0 => 0,
            1 => one - 1,
            2 => 1UL << random.Next(fractionBits),
            3 => one - (1UL << random.Next(fractionBits)),
            4 => random.Next64() << random.Next(fractionBits),
            5 => random.Next64() >> random.Next(63),
            _ => random.Next64(),
        };
        return sign | (exponent & maximum) << fractionBits | (fraction & (one - 1));
    }

    /// <summary>Something close to <paramref name="value"/>, or to its negative.</summary>
    internal static ulong Near(ref CaseRandom random, ulong value, int exponentBits, int fractionBits)
    {
        if (random.One(2))
            value ^= 1UL << (exponentBits + fractionBits);
        return random.Next(6) switch
        {
            0 => value,
            1 => value + 1,
            2 => value - 1,
            3 => value + (1UL << fractionBits),
            4 => value - (1UL << fractionBits),
            _ => value ^ random.Next64() >> (64 - random.Next(fractionBits) - 1),
        };
    }

    internal static ulong NextInteger(ref CaseRandom random) => random.Next(8) switch
    {
        0 => 0,
        1 => ulong.MaxValue,
        2 => 1UL << random.Next(64),
        3 => (1UL << random.Next(64)) - 1,
        4 => 0 - (1UL << random.Next(64)),
        5 => random.Next64() >> random.Next(64),
        6 => (ulong)((long)random.Next64() >> random.Next(64)),
        _ => random.Next64(),
    };
}
