using Kvm.Emulator;
using Kvm.Emulator.Vmx;

namespace Kvm.Arch.X86.Vmx.Tests;

/// <summary>Something that was done to a processor.</summary>
internal sealed record Instruction(int Cpu, string Mnemonic, ulong Operand, ulong Value, bool Ok)
{
    public VmcsField Field => (VmcsField)Operand;

    public override string ToString() => Mnemonic is "VMREAD" or "VMWRITE" ? $"cpu{Cpu} {Mnemonic} {Field} {Value:x}" : $"cpu{Cpu} {Mnemonic} {Operand:x} {Value:x}";
}

/// <summary>VMX instructions, CR4 and MSR writes of all processors, in order.</summary>
internal sealed class InstructionLog : IHardwareObserver
{
    private readonly Lock gate = new();
    private List<Instruction> log = [];

    public static InstructionLog On(IntelHost host)
    {
        var log = new InstructionLog();
        foreach (Processor cpu in host.Machine.Processors)
            cpu.Observer = log;
        return log;
    }

    public List<Instruction> Take()
    {
        lock (gate)
        {
            List<Instruction> taken = log;
            log = [];
            return taken;
        }
    }

    public IEnumerable<Instruction> Writes() => Take().Where(static i => i.Mnemonic == "VMWRITE");

    public void Msr(Processor cpu, bool write, uint index, ulong value, bool faulted) => Add(new Instruction(cpu.Index, write ? "WRMSR" : "RDMSR", index, value, !faulted));

    public void ControlRegister(Processor cpu, int register, ulong oldValue, ulong newValue) => Add(new Instruction(cpu.Index, "CR" + register, oldValue, newValue, true));

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
