using Kvm.Conformance.Tests.HardwareLog.Intel;
using Kvm.Emulator;

namespace Kvm.Conformance.Tests.HardwareLog.Amd;

/// <summary>Writes down what the model's kernel does to the emulated processors, in the form of the recording, and keeps the VMCB of the first VMRUN.</summary>
internal sealed unsafe class SvmHardwareRecorder : IHardwareObserver
{
    private const uint tsc = 0x10;
    private readonly Lock gate = new();
    private List<HardwareOp> operations = [];

    /// <summary>The first 0x700 bytes of the VMCB at the first VMRUN; null before.</summary>
    public uint[]? FirstVmcb { get; private set; }

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
        // The recording leaves the time-stamp counter out, and the guest.
        if (index != tsc && cpu.NonRoot is null)
            Add(new HardwareOp(cpu.Index, "", write ? "WRMSR" : "RDMSR", index, faulted ? 0 : value, faulted));
    }

    public void ControlRegister(Processor cpu, int register, ulong oldValue, ulong newValue)
    {
    }

    public void Virtualization(Processor cpu, string mnemonic, ulong operand, ulong value, InstructionResult result)
    {
        if (mnemonic == "VMRUN" && FirstVmcb is null)
            FirstVmcb = new ReadOnlySpan<uint>((void*)operand, 0x700 / 4).ToArray();
        Add(new HardwareOp(cpu.Index, "", mnemonic, 0, operand, result.IsFault));
    }

    public void EntryCheckFailed(Processor cpu, string rule) => Add(new HardwareOp(cpu.Index, rule, "ENTRYCHECK", 0, 0));

    public void VmExit(Processor cpu, ulong reason, ulong qualification) => Add(new HardwareOp(cpu.Index, "", "VMEXIT", reason, qualification));

    private void Add(HardwareOp op)
    {
        lock (gate)
            operations.Add(op);
    }
}
