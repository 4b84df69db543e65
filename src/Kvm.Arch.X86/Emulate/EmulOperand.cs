namespace Kvm.Arch.X86;

/// <summary>One operand of an emulated instruction, its value and where it lives.</summary>
/// <remarks>struct operand, kvm_emulate.h.</remarks>
internal struct EmulOperand
{
    internal enum Kind
    {
        None,
        Reg,
        Mem,

        /// <summary>A run of elements in <see cref="X86EmulateContext.IoData"/>.</summary>
        MemStr,
        Imm,
        Xmm,
        Mm,
        Sreg,
        Cr,
        Dr,
    }

    internal Kind Type;
    internal int Bytes;
    internal uint Count;

    /// <summary>Register number; for byte registers <see cref="HighByte"/> selects AH CH DH BH.</summary>
    internal int Reg;
    internal bool HighByte;

    /// <summary>Segment and offset of memory.</summary>
    internal int Seg;
    internal ulong Ea;
    internal ulong Val;
    internal ulong ValHigh;
    internal ulong OrigVal;
    internal ulong OrigValHigh;

    /// <summary>Offset of the data in the I/O read-ahead buffer (<see cref="Kind.MemStr"/>).</summary>
    internal int DataOffset;
}
