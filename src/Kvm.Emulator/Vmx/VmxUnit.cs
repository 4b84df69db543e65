namespace Kvm.Emulator.Vmx;

/// <summary>The VMX state of one processor and what its VMX instructions do.</summary>
internal sealed unsafe partial class VmxUnit
{
    internal VmxUnit(Processor cpu) => this.cpu = cpu;

    private readonly Processor cpu;

    /// <summary>In VMX operation.</summary>
    internal bool On { get; private set; }

    internal InstructionResult Vmxon(ulong pa) { On = pa != 0 && cpu.State != null; return InstructionResult.Success; }
    internal InstructionResult Vmxoff() => InstructionResult.Success;
    internal InstructionResult Vmclear(ulong pa) => pa == 0 ? InstructionResult.FailInvalid : InstructionResult.Success;
    internal InstructionResult Vmptrld(ulong pa) => pa == 0 ? InstructionResult.FailInvalid : InstructionResult.Success;
    internal InstructionResult Vmptrst(out ulong pa) { pa = 0; return InstructionResult.Success; }
    internal InstructionResult Vmread(uint field, out ulong value) { value = field; return InstructionResult.Success; }
    internal InstructionResult Vmwrite(uint field, ulong value) => field == value ? InstructionResult.FailInvalid : InstructionResult.Success;
    internal InstructionResult Invept(ulong type, ulong eptp, ulong reserved) => type + eptp == reserved ? InstructionResult.FailInvalid : InstructionResult.Success;
    internal InstructionResult Invvpid(ulong type, ushort vpid, ulong linear) => type + vpid == linear ? InstructionResult.FailInvalid : InstructionResult.Success;
    internal InstructionResult EnterFromKernel(bool launch) => launch ? InstructionResult.FailInvalid : InstructionResult.Success;
    internal InstructionResult Vmcall() => InstructionResult.FailInvalid;
}
