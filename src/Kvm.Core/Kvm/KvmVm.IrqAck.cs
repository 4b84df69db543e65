using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <remarks>Notifiers of acknowledged interrupts (virt/kvm/eventfd.c).</remarks>
public abstract unsafe partial class KvmVm
{
    private KvmIrqAckNotifier[] _irqAckNotifiers = [];

    /// <summary>kvm_irq_has_notifier.</summary>
    [KernelFunction("kvm_irq_has_notifier", File = "virt/kvm/eventfd.c")]
    public bool IrqHasNotifier(uint irqchip, uint pin)
    {
        using var _ = FunctionTrace.Enter("kvm_irq_has_notifier");
        int index = IrqSrcu.ReadLock();
        int gsi = IrqMapChipPin(irqchip, pin);
        bool found = false;
        foreach (KvmIrqAckNotifier notifier in Volatile.Read(ref _irqAckNotifiers))
            found |= gsi != -1 && notifier.Gsi == (uint)gsi;
        IrqSrcu.ReadUnlock(index);
        return found;
    }

    /// <summary>kvm_notify_acked_irq: the guest acknowledged an interrupt of that pin.</summary>
    [KernelFunction("kvm_notify_acked_irq", File = "virt/kvm/eventfd.c")]
    public void NotifyAckedIrq(uint irqchip, uint pin)
    {
        using var _ = FunctionTrace.Enter("kvm_notify_acked_irq");
        if (Tracepoints.Enabled) Tracepoints.Emit("kvm_ack_irq", $"irqchip {IrqchipName(irqchip)} pin {pin}");
        int index = IrqSrcu.ReadLock();
        int gsi = IrqMapChipPin(irqchip, pin);
        if (gsi != -1) NotifyAckedGsi((uint)gsi);
        IrqSrcu.ReadUnlock(index);
    }

    private static string IrqchipName(uint chip) => chip switch { 0 => "PIC master", 1 => "PIC slave", _ => "IOAPIC" };

    /// <summary>kvm_notify_acked_gsi; inside an <see cref="IrqSrcu"/> section.</summary>
    [KernelFunction("kvm_notify_acked_gsi", File = "virt/kvm/eventfd.c")]
    public void NotifyAckedGsi(uint gsi)
    {
        using var _ = FunctionTrace.Enter("kvm_notify_acked_gsi");
        foreach (KvmIrqAckNotifier notifier in Volatile.Read(ref _irqAckNotifiers))
            if (notifier.Gsi == gsi) notifier.IrqAcked();
    }

    /// <summary>kvm_register_irq_ack_notifier.</summary>
    [KernelFunction("kvm_register_irq_ack_notifier", File = "virt/kvm/eventfd.c")]
    public void RegisterIrqAckNotifier(KvmIrqAckNotifier notifier)
    {
        using var _ = FunctionTrace.Enter("kvm_register_irq_ack_notifier");
        using (IrqLock.Enter()) Volatile.Write(ref _irqAckNotifiers, [notifier, .. _irqAckNotifiers]);
        Arch.PostIrqAckNotifierListUpdate(this);
    }

    /// <summary>kvm_unregister_irq_ack_notifier: it is not called any more when this returns. Not from inside an <see cref="IrqSrcu"/> section.</summary>
    [KernelFunction("kvm_unregister_irq_ack_notifier", File = "virt/kvm/eventfd.c")]
    public void UnregisterIrqAckNotifier(KvmIrqAckNotifier notifier)
    {
        using var _ = FunctionTrace.Enter("kvm_unregister_irq_ack_notifier");
        using (IrqLock.Enter()) Volatile.Write(ref _irqAckNotifiers, [.. _irqAckNotifiers.Where(n => n != notifier)]);
        using (FunctionTrace.Enter("synchronize_srcu")) IrqSrcu.Synchronize();
        Arch.PostIrqAckNotifierListUpdate(this);
    }
}
