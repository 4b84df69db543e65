using System.Runtime.InteropServices;

namespace Kvm.Emulator.Vector.X87;

/// <summary>A number in the double extended-precision format, as an x87 register or a ten-byte memory operand holds it.</summary>
/// <remarks>SDM vol 1, "Floating-Point Format": the integer bit is explicit, bit 63 of the significand.</remarks>
[StructLayout(LayoutKind.Sequential, Pack = 2)]
internal readonly struct Float80(ushort signExponent, ulong significand)
{
    internal const int Bias = 16383, MaxExponent = 0x7fff;
    internal const ulong IntegerBit = 1UL << 63, QuietBit = 1UL << 62;

    internal readonly ulong Significand = significand;
    internal readonly ushort SignExponent = signExponent;

    internal Float80(bool negative, int exponent, ulong significand) : this((ushort)((negative ? 0x8000 : 0) | exponent), significand)
    {
    }

    internal bool Negative => (SignExponent & 0x8000) != 0;

    internal int Exponent => SignExponent & MaxExponent;

    /// <summary>What a masked invalid operation gives: the QNaN floating-point indefinite.</summary>
    internal static Float80 Indefinite => new(0xffff, IntegerBit | QuietBit);

    internal static Float80 One => new(Bias, IntegerBit);

    internal static Float80 Zero(bool negative = false) => new(negative, 0, 0);

    internal static Float80 Infinity(bool negative = false) => new(negative, MaxExponent, IntegerBit);

    /// <summary>The finite number of the largest magnitude that has <paramref name="precision"/> significant bits.</summary>
    internal static Float80 Largest(bool negative, int precision) => new(negative, MaxExponent - 1, ulong.MaxValue << (64 - precision));

    internal Float80 Negated => new((ushort)(SignExponent ^ 0x8000), Significand);

    internal Float80 Absolute => new((ushort)(SignExponent & MaxExponent), Significand);

    public override string ToString() => $"{SignExponent:x4}:{Significand:x16}";
}
