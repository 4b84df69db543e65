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
public readonly record struct InstructionResult(InstructionOutcome Outcome, Fault Fault = default)
{
    public static InstructionResult Success => default;
    public static InstructionResult FailInvalid => new(InstructionOutcome.FailInvalid);
    public static InstructionResult FailValid => new(InstructionOutcome.FailValid);
    public static InstructionResult Faulted(Fault fault) => new(InstructionOutcome.Fault, fault);

    public bool Ok => Outcome == InstructionOutcome.Success;
    public bool IsFault => Outcome == InstructionOutcome.Fault;
    public bool CF => Outcome == InstructionOutcome.FailInvalid;
    public bool ZF => Outcome == InstructionOutcome.FailValid;
}
