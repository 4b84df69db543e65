using Kvm.Emulator;

namespace Kvm.Conformance.Tests.HardwareLog.Intel;

/// <summary>Writes down what the model's kernel does to the emulated processors, in the form of the recording.</summary>
internal sealed class HardwareRecorder : IHardwareObserver
{
    private const uint tsc = 0x10;
    private const ulong cr4Vmxe = 1 << 13;
    private readonly Lock gate = new();
    private List<HardwareOp> operations = [];

    /// <summary>Everything since the last call.</summary>
    public List<HardwareOp> Take()
    {
        lock (gate)
        {
            List<HardwareOp> taken = operations;
            operations = [];
            return taken;
        }
    }

    public void Msr(Processor cpu, bool write, uint index, ulong value, bool faulted)
    {
        // The recording leaves the time-stamp counter out, and what a guest does to MSRs that are its own.
        if (index != tsc && cpu.NonRoot is null)
            Add(new HardwareOp(cpu.Index, "", write ? "WRMSR" : "RDMSR", index, faulted ? 0 : value, faulted));
    }

    public void ControlRegister(Processor cpu, int register, ulong oldValue, ulong newValue)
    {
        // The recording shows CR4 only where VMXE changes.
        if (register == 4 && ((oldValue ^ newValue) & cr4Vmxe) != 0)
            Add(new HardwareOp(cpu.Index, "", "MOVCR4", 4, (newValue & cr4Vmxe) != 0 ? 1u : 0u));
    }

    public void Virtualization(Processor cpu, string mnemonic, ulong operand, ulong value, InstructionResult result)
    {
        switch (mnemonic)
        {
            case "VMREAD" or "VMWRITE":
                Add(new HardwareOp(cpu.Index, "", mnemonic, operand, value, result.IsFault));
                break;
            case "INVEPT" or "INVVPID":
                Add(new HardwareOp(cpu.Index, "", mnemonic, operand, value, result.IsFault));
                break;
            default:
                Add(new HardwareOp(cpu.Index, "", mnemonic, 0, operand, result.IsFault));
                break;
        }
    }

    public void EntryCheckFailed(Processor cpu, string rule) => Add(new HardwareOp(cpu.Index, rule, "ENTRYCHECK", 0, 0));

    public void VmExit(Processor cpu, ulong reason, ulong qualification) => Add(new HardwareOp(cpu.Index, "", "VMEXIT", reason, qualification));

    private void Add(HardwareOp op)
    {
        lock (gate)
            operations.Add(op);
    }
}
