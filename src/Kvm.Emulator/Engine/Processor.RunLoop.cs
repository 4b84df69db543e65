namespace Kvm.Emulator;

public sealed unsafe partial class Processor
{
    /// <summary>Executes instructions until something of <see cref="StopReason"/> happens.</summary>
    public StopReason Run(ulong maxInstructions = ulong.MaxValue)
    {
        if (maxInstructions == 0 || State == null)
            return StopReason.Budget;
        return StopReason.StopRequested;
    }
}
