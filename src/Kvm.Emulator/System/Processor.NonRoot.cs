namespace Kvm.Emulator;

public sealed unsafe partial class Processor
{
    /// <summary>
    /// The running guest was entered by C# kernel code (Vmlaunch, Vmresume, Vmrun), not by the instruction stream. When <see cref="NonRoot"/> becomes null
    /// (after ExecStatus.Switched, DeliverPending or ServiceEvents) while this is set, the loop leaves with StopReason.HostReached.
    /// Set and cleared by the C# entry methods.
    /// </summary>
    internal bool GuestEnteredFromKernel;
}
