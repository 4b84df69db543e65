namespace Kvm.Emulator.Vector.X87;

/// <summary>The exception flags of the status word and masks of the control word.</summary>
[Flags]
internal enum X87Exceptions : ushort
{
    None = 0,
    Invalid = 1,
    Denormal = 2,
    ZeroDivide = 4,
    Overflow = 8,
    Underflow = 0x10,
    Precision = 0x20,
    /// <summary>With <see cref="Invalid"/>: the stack was empty or full. No mask of its own.</summary>
    StackFault = 0x40,
    /// <summary>Found before there is a result: unmasked, they leave operands and stack as they were.</summary>
    PreComputation = Invalid | Denormal | ZeroDivide,
    All = 0x3f,
}

/// <summary>The rounding control field.</summary>
internal enum RoundingMode : byte { Nearest, Down, Up, Zero }

/// <summary>What one operation needs of the control word, and the exceptions it has met so far.</summary>
internal struct FloatContext
{
    internal readonly RoundingMode Rounding;
    /// <summary>Significant bits of the results of addition, subtraction, multiplication, division and square root: 24, 53 or 64.</summary>
    internal readonly byte Precision;
    internal readonly X87Exceptions Masks;
    internal X87Exceptions Raised;
    /// <summary>The last rounding made the magnitude larger: C1.</summary>
    internal bool RoundedUp;

    internal FloatContext(ushort control)
    {
        Masks = (X87Exceptions)control & X87Exceptions.All;
        Rounding = (RoundingMode)(control >> 10 & 3);
        Precision = (control >> 8 & 3) switch { 0 => 24, 2 => 53, _ => 64 };
    }

    internal readonly bool Masked(X87Exceptions exception) => (exception & ~Masks) == 0;

    /// <summary>An exception that is unmasked and found before computing has been raised: there is no result.</summary>
    internal readonly bool Stopped => (Raised & ~Masks & X87Exceptions.PreComputation) != 0;

    /// <summary>The masked response to an invalid operation.</summary>
    internal Float80 Invalid()
    {
        Raised |= X87Exceptions.Invalid;
        return Float80.Indefinite;
    }

    /// <summary>Denormal operands are looked at last.</summary>
    internal void NoteDenormal(in Unpacked operand)
    {
        if (operand.Kind == FloatKind.Denormal)
            Raised |= X87Exceptions.Denormal;
    }
}
