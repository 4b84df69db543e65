using System.Globalization;

namespace Kvm.Tool;

/// <summary>Sizes as people write them: 512M, 2G, 65536.</summary>
internal static class Sizes
{
    /// <returns>False when the text is no size, or one of 0 or beyond 2^52.</returns>
    public static bool TryParse(string text, out ulong bytes)
    {
        bytes = 0;
        if (text.Length == 0) return false;
        int shift = char.ToUpperInvariant(text[^1]) switch { 'K' => 10, 'M' => 20, 'G' => 30, _ => 0 };
        ReadOnlySpan<char> digits = shift == 0 ? text : text.AsSpan(0, text.Length - 1);
        if (!ulong.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out ulong number) || number == 0 || number > (1UL << 52) >> shift) return false;
        bytes = number << shift;
        return true;
    }
}
