namespace Kvm.Core;

/// <summary>struct kvm_irq_ack_notifier: is told when the guest has acknowledged a GSI's interrupt.</summary>
public abstract class KvmIrqAckNotifier
{
    /// <summary>The GSI it listens to.</summary>
    public uint Gsi { get; init; }

    /// <summary>The guest wrote EOI. Inside an IrqSrcu section; without the interrupt controller's lock.</summary>
    public abstract void IrqAcked();
}
