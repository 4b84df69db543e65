namespace Kvm.Emulator.Vector.X87;

/// <summary>Elementary functions to about 120 bits, by power series in 128-bit fixed point after the argument has been made small.</summary>
/// <remarks>Fixed-point numbers below one are scaled by 2^128, series' sums (between one half and two) by 2^127.</remarks>
internal static class WideFunctions
{
    private static readonly UInt128 one = UInt128.One << 127;
    /// <summary>1 / k!.</summary>
    private static readonly UInt128[] factorials = Factorials();
    /// <summary>1 / (2k + 1).</summary>
    private static readonly UInt128[] odds = [.. Enumerable.Range(0, 28).Select(k => one / (UInt128)(2 * k + 1))];
    /// <summary>atan(i / 16) × 2^128.</summary>
    private static readonly UInt128[] arctangents =
    [
        new(0x0000000000000000, 0x0000000000000000), new(0x0ffaaddb967ef4e3, 0x6cb2792dc0e2e0d5), new(0x1fd5ba9aac2f6dc6, 0x5912f313e7d111de),
        new(0x2f72f6979cb6044d, 0x1ec2d3e207271d21), new(0x3eb6ebf25901bac5, 0x5b71e7bd7de885f9), new(0x4d89dcdc1faf2f34, 0xe2d5da4c693d7994),
        new(0x5bd86507937bc239, 0xc55190916e7f2241), new(0x6993bb0f308ff2db, 0x213e4af4800f389b), new(0x76b19c1586ed3da2, 0xb7f222f65e1d4681),
        new(0x832bf4a6d9867e2a, 0x4b6a09cb61a515c0), new(0x8f005d5ef7f59f9b, 0x5c835e1665c43747), new(0x9a2f80e671bdda20, 0x4226f8e2204ff3bc),
        new(0xa4bc7d1934f70924, 0x19a87f2a457dac9e), new(0xaeac4c38b4d8c080, 0x14725e2f3e52070a), new(0xb8053e2bc2319e73, 0xcb2da55210a4443d),
        new(0xc0ce85b8ac526640, 0x89dd62c46e92fa24), new(0xc90fdaa22168c234, 0xc4c6628b80dc1cd1),
    ];

    private static UInt128[] Factorials()
    {
        var table = new UInt128[36];
        table[0] = one;
        for (int k = 1; k < table.Length; k++)
            table[k] = table[k - 1] / (UInt128)k;
        return table;
    }

    /// <summary>π.</summary>
    internal static Wide Pi => Wide.Of(X87Constants.Pi);

    /// <summary>A sum as a number; one, which only an infinitely small argument gives, as a little less.</summary>
    private static Wide Sum(UInt128 value) => Wide.Normal(false, 0, value == one ? value - 1 : value);

    /// <summary>f(start) - z f(start + 2) + z² f(start + 4) …, f being reciprocal factorials.</summary>
    private static UInt128 Alternating(UInt128 z, int start)
    {
        UInt128 sum = factorials[start + 32];
        for (int k = start + 30; k >= start; k -= 2)
            sum = factorials[k] - Wide.MultiplyHigh(z, sum);
        return sum;
    }

    /// <summary>Of an argument of at most π / 4 in magnitude.</summary>
    internal static Wide Sine(in Wide r) => r * Sum(Alternating((r * r).Fraction, 1));

    /// <inheritdoc cref="Sine"/>
    internal static Wide Cosine(in Wide r) => Sum(Alternating((r * r).Fraction, 0));

    /// <inheritdoc cref="Sine"/>
    internal static Wide Tangent(in Wide r)
    {
        if (r.Exponent >= -24)
            return Sine(r) / Cosine(r);
        // r (1 + z / 3 + 2 z² / 15), which is never just r.
        UInt128 z = (r * r).Fraction, third = one / 3, tail = one / 15 * 2;
        return r * Sum(one + 1 + Wide.MultiplyHigh(z, third + Wide.MultiplyHigh(z, tail)));
    }

    /// <summary>2^x - 1 for -1 ≤ x ≤ 1.</summary>
    internal static Wide PowerOfTwoLessOne(in Wide x)
    {
        Wide y = x * Wide.Of(X87Constants.LnOf2);
        UInt128 z = y.Fraction, sum = factorials[33];
        for (int k = 32; k > 0; k--)
            sum = y.Negative ? factorials[k] - Wide.MultiplyHigh(z, sum) : factorials[k] + Wide.MultiplyHigh(z, sum);
        return y * Sum(sum);
    }

    /// <summary>log2(x) of a positive number.</summary>
    internal static Wide Log2(in Wide x)
    {
        UInt128 rootOfTwo = new(0xb504f333f9de6484, 0x597d89b3754abe9f);
        bool above = x.Significand >= rootOfTwo;
        var one = Wide.Of(1);
        var m = new Wide(false, above ? -1 : 0, x.Significand);
        return Wide.Of(x.Exponent + (above ? 1 : 0)) + Log2((m - one) / (m + one), default);
    }

    /// <summary>log2(1 + x) of a number between √½ - 1 and √2 - 1, or of any above -1.</summary>
    internal static Wide Log2OfOnePlus(in Wide x)
    {
        if (x.Exponent >= -1)
            return Log2(Wide.Of(1) + x);
        return Log2(x / (Wide.Of(2) + x), default);
    }

    /// <summary>log2((1 + s) / (1 - s)) = 2 / ln 2 × artanh(s).</summary>
    private static Wide Log2(in Wide s, in Wide zero)
    {
        if (s.IsZero)
            return zero;
        UInt128 z = (s * s).Fraction, sum = odds[27];
        for (int k = 26; k >= 0; k--)
            sum = odds[k] + Wide.MultiplyHigh(z, sum);
        var doubled = new Wide(s.Negative, s.Exponent + 1, s.Significand);
        return doubled * Wide.Normal(false, 0, sum) * Wide.Of(X87Constants.Log2OfE);
    }

    /// <summary>The angle of (x, y), both positive, in the first quadrant.</summary>
    internal static Wide Angle(in Wide y, in Wide x)
    {
        Wide ratio = y / x;
        if (ratio.Exponent < 0)
            return Arctangent(ratio);
        Wide rest = Arctangent(x / y);
        return Pi.Halved - rest;
    }

    /// <summary>Of a number of at most one (or a little above).</summary>
    private static Wide Arctangent(in Wide t)
    {
        int i = t.Exponent >= 0 ? 16 : (int)(((t.Fraction >> 123) + 1) >> 1);
        if (i == 0)
            return SmallArctangent(t);
        Wide c = Wide.Normal(false, 123, (UInt128)i);
        Wide u = (t - c) / (Wide.Of(1) + t * c);
        return Wide.Normal(false, -1, arctangents[i]) + (u.IsZero ? default : SmallArctangent(u));
    }

    private static Wide SmallArctangent(in Wide u)
    {
        UInt128 z = (u * u).Fraction, sum = odds[14];
        for (int k = 13; k >= 0; k--)
            sum = odds[k] - Wide.MultiplyHigh(z, sum);
        return u * Sum(sum);
    }
}
