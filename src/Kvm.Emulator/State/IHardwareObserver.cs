namespace Kvm.Emulator;

/// <summary>
/// Sees what software does to a processor: every MSR and control-register access, VMX and SVM instruction, in order. Null-checked; costs one test when absent.
/// Called on the thread that occupies the processor.
/// </summary>
public interface IHardwareObserver
{
    /// <summary>RDMSR/WRMSR of <paramref name="index"/>; <paramref name="faulted"/> when it raised #GP.</summary>
    void Msr(Processor cpu, bool write, uint index, ulong value, bool faulted);
    /// <summary>MOV to CR0, CR3, CR4 (old and new value).</summary>
    void ControlRegister(Processor cpu, int register, ulong oldValue, ulong newValue);
    /// <summary>A VMX or SVM instruction by mnemonic (VMXON, VMWRITE, VMRUN…): operand = address or field encoding or INVEPT/INVVPID type, value = data read or written.</summary>
    void Virtualization(Processor cpu, string mnemonic, ulong operand, ulong value, InstructionResult result);
    /// <summary>A VM-entry (or VMRUN consistency) check failed: <paramref name="rule"/> is the text of the check.</summary>
    void EntryCheckFailed(Processor cpu, string rule);
    /// <summary>A VM exit (#VMEXIT) with its basic reason (exit code) and qualification (EXITINFO1).</summary>
    void VmExit(Processor cpu, ulong reason, ulong qualification);
}
