using Kvm.Core.Tracing;
using Kvm.Emulator;
using Kvm.Emulator.Svm;
using Kvm.Emulator.Vmx;

namespace Kvm.Conformance.Tests.HardwareLog;

/// <summary>Writes down what the model's kernel does to the emulated processors, in the form of the recording, and what the VMCS or VMCB is at the first entry.</summary>
internal sealed unsafe class HardwareRecorder : IHardwareObserver
{
    private const uint tsc = 0x10;
    private const ulong cr4Vmxe = 1 << 13;
    private const int vmcbSize = 0x700;
    private readonly Lock gate = new();
    private List<HardwareOp> operations = [];
    private readonly ulong[] vmcbs = new ulong[16];
    private bool looking;

    /// <summary>Fields of the VMCS (by encoding) or words of the VMCB (by offset) at the first entry; null before it.</summary>
    public Dictionary<ulong, ulong>? FirstEntry { get; private set; }

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
            Add(cpu, write ? "WRMSR" : "RDMSR", index, faulted ? 0 : value, faulted);
    }

    public void ControlRegister(Processor cpu, int register, ulong oldValue, ulong newValue)
    {
        // The recording shows CR4 only where VMXE changes.
        if (register == 4 && ((oldValue ^ newValue) & cr4Vmxe) != 0)
            Add(cpu, "MOVCR4", 4, (newValue & cr4Vmxe) != 0 ? 1u : 0u);
    }

    public void Virtualization(Processor cpu, string mnemonic, ulong operand, ulong value, InstructionResult result)
    {
        if (looking)
            return;
        FinishExit(cpu);
        switch (mnemonic)
        {
            case "VMREAD" or "VMWRITE" or "INVEPT" or "INVVPID":
                Add(cpu, mnemonic, operand, value, result.IsFault);
                break;
            default:
                Add(cpu, mnemonic, 0, operand, result.IsFault);
                break;
        }

        if (mnemonic == "VMRUN")
        {
            vmcbs[cpu.Index] = operand;
            FirstEntry ??= Words(operand);
        }
        else if (mnemonic is "VMLAUNCH" && FirstEntry is null)
        {
            FirstEntry = Fields(cpu);
        }
    }

    public void EntryCheckFailed(Processor cpu, string rule) => Add(cpu, "ENTRYCHECK " + rule, 0, 0);

    public void VmExit(Processor cpu, ulong reason, ulong qualification)
    {
        Add(cpu, "VMEXIT", reason, qualification);
        if (vmcbs[cpu.Index] == 0)
            return;
        var vmcb = (Vmcb*)vmcbs[cpu.Index];
        operations[^1].Exit = [vmcb->Save.Rip, vmcb->Control.ExitInfo2, vmcb->Control.NextRip];
    }

    /// <summary>The VMCS has the rest of a VM exit only after it: it is read before the kernel's first instruction.</summary>
    private void FinishExit(Processor cpu)
    {
        HardwareOp? last;
        lock (gate)
            last = operations.LastOrDefault(o => o.Cpu == cpu.Index);
        if (last is not { Mnemonic: "VMEXIT", Exit.Length: 0 })
            return;
        looking = true;
        cpu.Vmread(VmcsField.GUEST_RIP, out ulong rip);
        cpu.Vmread(VmcsField.VM_EXIT_INTR_INFO, out ulong interruption);
        cpu.Vmread(VmcsField.VM_EXIT_INSTRUCTION_LEN, out ulong length);
        looking = false;
        last.Exit = [rip, interruption, length];
    }

    private Dictionary<ulong, ulong> Fields(Processor cpu)
    {
        looking = true;
        // Asking for a field that the processor lacks is an error that the VMCS remembers: this one first.
        cpu.Vmread(VmcsField.VM_INSTRUCTION_ERROR, out ulong error);
        Dictionary<ulong, ulong> fields = [];
        foreach (VmcsField field in Enum.GetValues<VmcsField>())
        {
            if (cpu.Vmread(field, out ulong value).Ok)
                fields[(ulong)field] = value;
        }

        fields[(ulong)VmcsField.VM_INSTRUCTION_ERROR] = error;
        looking = false;
        return fields;
    }

    private static Dictionary<ulong, ulong> Words(ulong vmcb)
    {
        Dictionary<ulong, ulong> words = [];
        for (ulong offset = 0; offset < vmcbSize; offset += 4)
            words[offset] = *(uint*)(vmcb + offset);
        return words;
    }

    private void Add(Processor cpu, string mnemonic, ulong operand, ulong value, bool faulted = false)
    {
        var op = new HardwareOp(cpu.Index, mnemonic, operand, value, faulted) { Functions = [.. FunctionTrace.OpenFunctions] };
        lock (gate)
            operations.Add(op);
    }
}
