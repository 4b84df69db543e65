namespace Kvm.Emulator;

/// <summary>One emulated processor: registers, MSRs, memory management, VMX and SVM, and the loop that executes instructions.</summary>
public sealed unsafe partial class Processor
{
    /// <summary>The state block, at a fixed native address for the processor's life.</summary>
    public CpuState* State { get; private set; }
}
