namespace Kvm.Emulator;

/// <summary>How a privileged instruction executed for kernel code ended.</summary>
public enum InstructionOutcome : byte
{
    /// <summary>VMsucceed, or simply done.</summary>
    Success,
    /// <summary>VMfailInvalid: CF = 1.</summary>
    FailInvalid,
    /// <summary>VMfailValid: ZF = 1; the number is in the VM-instruction error field.</summary>
    FailValid,
    /// <summary>An exception: <see cref="InstructionResult.Fault"/>.</summary>
    Fault,
}

/// <summary>
/// The result of an instruction that kernel-mode C# code "executes" on a <see cref="Processor"/> (RDMSR, MOV CR4, VMXON, VMWRITE, VMRUN …).
/// The same code paths run when the instruction comes from an instruction stream, where the outcome becomes RFLAGS or an exception.
/// </summary>
/// <remarks>One register wide, because every exit passes several of them. Such instructions raise no page faults, so a fault's address is not kept.</remarks>
public readonly record struct InstructionResult
{
    // 7:0 outcome, 15:8 vector, 16 error code present, 63:32 error code
    private readonly ulong bits;

    private InstructionResult(ulong bits) => this.bits = bits;

    public static InstructionResult Success => default;
    public static InstructionResult FailInvalid => new((ulong)InstructionOutcome.FailInvalid);
    public static InstructionResult FailValid => new((ulong)InstructionOutcome.FailValid);
    public static InstructionResult Faulted(Fault fault) =>
        new((ulong)InstructionOutcome.Fault | (ulong)fault.Vector << 8 | (fault.HasErrorCode ? 1UL << 16 : 0) | (ulong)fault.ErrorCode << 32);

    public InstructionOutcome Outcome => (InstructionOutcome)(byte)bits;
    /// <summary>The exception; its address is 0.</summary>
    public Fault Fault => new((byte)(bits >> 8), (bits >> 16 & 1) != 0, (uint)(bits >> 32));
    public bool Ok => (byte)bits == 0;
    public bool IsFault => Outcome == InstructionOutcome.Fault;
    public bool CF => Outcome == InstructionOutcome.FailInvalid;
    public bool ZF => Outcome == InstructionOutcome.FailValid;

    public override string ToString() => IsFault ? $"{Outcome} {Fault}" : Outcome.ToString();
}
