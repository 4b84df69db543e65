namespace Kvm.Vmm;

/// <summary>What drives a processor's INTR pin when the interrupt controller is the VMM's.</summary>
public interface IInterruptSource
{
    /// <summary>INTR is high.</summary>
    bool Pending { get; }

    /// <summary>The INTA cycle: the vector to deliver.</summary>
    byte Acknowledge();

    /// <summary>INTR went high; from any thread.</summary>
    event Action? Raised;
}
