using Kvm.Emulator;

namespace Kvm.Arch.X86.Svm.Tests;

/// <summary>Something that the host kernel did to a processor, or an exit of its guest.</summary>
internal sealed record Instruction(int Cpu, string Mnemonic, ulong Operand, ulong Value, bool Ok)
{
    public override string ToString() => Mnemonic is "RDMSR" or "WRMSR" or "VMEXIT" ? $"{Mnemonic} {Operand:x}" : Mnemonic;
}

/// <summary>SVM instructions, MSR accesses of the host and exits of all processors, in order.</summary>
internal sealed class HardwareLog : IHardwareObserver
{
    private readonly Lock gate = new();
    private List<Instruction> log = [];

    /// <summary>Everything since the last call.</summary>
    public List<Instruction> Take()
    {
        lock (gate)
        {
            List<Instruction> taken = log;
            log = [];
            return taken;
        }
    }

    public void Msr(Processor cpu, bool write, uint index, ulong value, bool faulted)
    {
        if (cpu.NonRoot is null)
            Add(new Instruction(cpu.Index, write ? "WRMSR" : "RDMSR", index, value, !faulted));
    }

    public void ControlRegister(Processor cpu, int register, ulong oldValue, ulong newValue)
    {
    }

    public void Virtualization(Processor cpu, string mnemonic, ulong operand, ulong value, InstructionResult result) =>
        Add(new Instruction(cpu.Index, mnemonic, operand, value, result.Ok));

    public void EntryCheckFailed(Processor cpu, string rule) => Add(new Instruction(cpu.Index, "CHECK " + rule, 0, 0, false));

    public void VmExit(Processor cpu, ulong reason, ulong qualification) => Add(new Instruction(cpu.Index, "VMEXIT", reason, qualification, true));

    private void Add(Instruction instruction)
    {
        lock (gate)
            log.Add(instruction);
    }
}
