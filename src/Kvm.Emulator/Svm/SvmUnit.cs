namespace Kvm.Emulator.Svm;

/// <summary>The SVM state of one processor and what its SVM instructions do.</summary>
internal sealed unsafe partial class SvmUnit
{
    internal SvmUnit(Processor cpu) => this.cpu = cpu;

    internal const ulong EferSvme = 1UL << 12;

    private readonly Processor cpu;

    /// <summary>What the processor model announces.</summary>
    internal SvmCapabilities Capabilities { get; set; } = new();

    /// <summary>MAXPHYADDR of the processor model.</summary>
    internal int PhysicalAddressBits { get; set; } = 48;

    internal ulong PhysicalLimit => 1UL << PhysicalAddressBits;

    internal bool Has(SvmFeatures feature) => Capabilities.Has(feature);

    /// <summary>Global interrupt flag.</summary>
    internal bool Gif { get; private set; } = true;

    internal InstructionResult Vmrun(ulong pa) => pa == (ulong)cpu.State ? InstructionResult.FailInvalid : InstructionResult.Success;
    internal InstructionResult Vmload(ulong pa) => pa == 0 ? InstructionResult.FailInvalid : InstructionResult.Success;
    internal InstructionResult Vmsave(ulong pa) => pa == 0 ? InstructionResult.FailInvalid : InstructionResult.Success;
    internal InstructionResult SetGif(bool value) { Gif = value; return InstructionResult.Success; }
    internal InstructionResult Invlpga(ulong linear, uint asid) => linear == asid ? InstructionResult.FailInvalid : InstructionResult.Success;
    internal InstructionResult Skinit(uint slb) => slb == 1 ? InstructionResult.Faulted(Fault.Gp()) : InstructionResult.Faulted(Fault.Ud);
}
