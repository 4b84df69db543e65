using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Vector.Float;

/// <summary>RC of MXCSR, and bits 1:0 of the immediates that carry a rounding mode.</summary>
internal enum Rounding : uint { Nearest = 0, Down = 1, Up = 2, TowardZero = 3 }

/// <summary>What MXCSR says to a computation, and the exceptions that it raises.</summary>
/// <remarks>
/// Results are those of masked exceptions; who delivers unmasked ones discards them. But
/// the masks matter to the flags themselves: an unmasked underflow is raised by a tiny result that is exact too, and with an unmasked underflow or overflow the
/// precision exception is judged as if the exponent had no bounds (SDM vol 1, "Numeric Overflow Exception", "Numeric Underflow Exception"; as silicon does).
/// </remarks>
internal struct FloatContext
{
    internal const uint Invalid = 1, Denormal = 2, ZeroDivide = 4, Overflow = 8, Underflow = 0x10, Precision = 0x20;
    private const uint daz = 0x40, underflowMask = 0x800, overflowMask = 0x400, ftz = 0x8000, controls = 0xffc0, defaults = 0x1f80;

    private readonly uint mxcsr;
    /// <summary>Exceptions raised so far.</summary>
    internal uint Flags;
    internal Rounding Rounding;

    internal FloatContext(uint mxcsr)
    {
        this.mxcsr = mxcsr;
        Rounding = (Rounding)(mxcsr >> 13 & 3);
    }

    /// <summary>Denormal operands are zeros.</summary>
    internal readonly bool DenormalsAreZeros => (mxcsr & daz) != 0;
    /// <summary>Tiny results become zeros; only as long as underflow is masked.</summary>
    internal readonly bool FlushesToZero => (mxcsr & (ftz | underflowMask)) == (ftz | underflowMask);
    internal readonly bool UnderflowMasked => (mxcsr & underflowMask) != 0;
    internal readonly bool OverflowMasked => (mxcsr & overflowMask) != 0;

    /// <summary>
    /// The host's arithmetic gives the architectural result where all values are normal numbers: all defaults, and the one exception that such an
    /// operation can raise has been raised before.
    /// </summary>
    internal readonly bool Native
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => (mxcsr & (controls | Precision)) == (defaults | Precision);
    }

    internal void Raise(uint flags) => Flags |= flags;

    /// <summary>
    /// All elements have been computed. True: an unmasked exception was raised. If operands were to blame (invalid, denormal, divide by zero) there are no results,
    /// and no exceptions of them: what <paramref name="earlier"/> steps raised stays.
    /// </summary>
    internal bool Traps(uint earlier = 0)
    {
        uint unmasked = (Flags & ~earlier) & ~(mxcsr >> 7);
        if ((unmasked & (Invalid | Denormal | ZeroDivide)) != 0)
            Flags &= earlier | Invalid | Denormal | ZeroDivide;
        return unmasked != 0;
    }
}
