namespace Kvm.Emulator;

/// <summary>What an instruction works on when it is executed by value (<see cref="Processor.Execute"/>): operands in the order of the manual's operand list, then the registers it names implicitly.</summary>
/// <remarks>
/// A value is read as wide as its operand is and written as a register is: 8- and 16-bit results leave the rest of the value alone, 32-bit results clear the upper half.
/// An immediate operand is given sign-extended.
/// </remarks>
public struct DataOperands
{
    /// <summary>First, second and third operand, whether register, memory or immediate.</summary>
    public ulong Op0, Op1, Op2;
    public ulong Rax, Rcx, Rdx, Rbx;
    /// <summary>RFLAGS; the arithmetic flags and DF take part.</summary>
    public ulong Rflags;
}
