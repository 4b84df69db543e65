namespace Kvm.Emulator.Vector.X87;

/// <summary>An irrational number to 128 bits (truncated, bit 127 set); the exponent is biased as in <see cref="Float80"/>.</summary>
internal readonly struct WideConstant(int exponent, ulong high, ulong low)
{
    internal readonly int Exponent = Float80.Bias + exponent;
    internal readonly UInt128 Significand = new(high, low);
}

/// <summary>What FLDL2T, FLDL2E, FLDPI, FLDLG2 and FLDLN2 round.</summary>
internal static class X87Constants
{
    internal static WideConstant Log2Of10 => new(1, 0xd49a784bcd1b8afe, 0x492bf6ff4dafdb4c);
    internal static WideConstant Log2OfE => new(0, 0xb8aa3b295c17f0bb, 0xbe87fed0691d3e88);
    internal static WideConstant Pi => new(1, 0xc90fdaa22168c234, 0xc4c6628b80dc1cd1);
    internal static WideConstant Log10Of2 => new(-2, 0x9a209a84fbcff798, 0x8f8959ac0b7c9178);
    internal static WideConstant LnOf2 => new(-1, 0xb17217f7d1cf79ab, 0xc9e3b39803f2f6af);
}
