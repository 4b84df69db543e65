namespace Kvm.Arch.X86;

/// <summary>struct kvm_irq_mask_notifier: is told when the guest masks or unmasks a GSI at its interrupt controller.</summary>
public abstract class KvmIrqMaskNotifier
{
    public int Irq { get; init; }

    /// <summary>With the controller's lock held.</summary>
    public abstract void MaskChanged(bool masked);
}
