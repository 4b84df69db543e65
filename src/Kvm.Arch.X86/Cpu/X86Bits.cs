using System.Runtime.CompilerServices;

namespace Kvm.Arch.X86;

/// <summary>Small bit arithmetic that the x86 code shares.</summary>
public static class X86Bits
{
    /// <summary>rsvd_bits: a mask of bits <paramref name="s"/>..<paramref name="e"/>, 0 when s &gt; e.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong RsvdBits(int s, int e)
    {
        if (e < s)
            return 0;
        return ((2ul << (e - s)) - 1) << s;
    }

    /// <summary>GENMASK_ULL.</summary>
    public static ulong Genmask(int h, int l) => RsvdBits(l, h);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong GetCanonical(ulong la, byte vaddrBits) => (ulong)(((long)la << (64 - vaddrBits)) >> (64 - vaddrBits));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool IsNoncanonical(ulong la, byte vaddrBits) => GetCanonical(la, vaddrBits) != la;
}
