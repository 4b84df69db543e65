using System.Globalization;

namespace Kvm.Tool;

/// <summary>A number of bytes as people write it: 512M, 2G, 65536.</summary>
internal readonly record struct MemorySize(ulong Bytes)
{
    /// <summary>The least and the most that a guest can have: the PC's boot code needs room, guest-physical addresses have 52 bits.</summary>
    private const ulong Least = 4UL << 20, Most = 1UL << 51;

    /// <returns>Null and the reason when the text is no size of a guest's RAM.</returns>
    public static MemorySize? Parse(string text, out string error)
    {
        error = "";
        if (!TryParse(text, out ulong bytes)) error = "not a memory size; write a number with K, M, G or T, such as 512M or 2G";
        else if (bytes < Least) error = "too little; a guest needs at least 4M";
        else if (bytes > Most) error = "too much; a guest can have at most 2048T";
        else if (bytes % 4096 != 0) error = "not whole pages of 4K";
        return error.Length == 0 ? new MemorySize(bytes) : null;
    }

    /// <returns>False when the text is no size, or one of 0 or beyond 2^52.</returns>
    public static bool TryParse(string text, out ulong bytes)
    {
        bytes = 0;
        if (text.Length == 0) return false;
        int shift = char.ToUpperInvariant(text[^1]) switch { 'K' => 10, 'M' => 20, 'G' => 30, 'T' => 40, _ => 0 };
        ReadOnlySpan<char> digits = shift == 0 ? text : text.AsSpan(0, text.Length - 1);
        if (!ulong.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out ulong number) || number == 0 || number > (1UL << 52) >> shift) return false;
        bytes = number << shift;
        return true;
    }

    /// <summary>With the largest unit that leaves a whole number.</summary>
    public override string ToString()
    {
        (int shift, string unit) = Bytes == 0 ? (0, "") : ulong.TrailingZeroCount(Bytes) switch
        {
            >= 40 => (40, "T"),
            >= 30 => (30, "G"),
            >= 20 => (20, "M"),
            >= 10 => (10, "K"),
            _ => (0, ""),
        };
        return string.Create(CultureInfo.InvariantCulture, $"{Bytes >> shift}{unit}");
    }
}
