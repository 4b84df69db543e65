using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;

namespace Kvm.Arch.X86;

/// <remarks>The VM's interrupt controllers, their sources and who watches their masks.</remarks>
public partial class X86Vm
{
    internal const int KVM_IRQCHIP_NONE = 0, KVM_IRQCHIP_KERNEL = 1, KVM_IRQCHIP_SPLIT = 2;

    private volatile int _irqchipMode;
    private KvmIrqMaskNotifier[] _maskNotifiers = [];
    private ulong _irqSourcesBitmap = (1ul << KVM_USERSPACE_IRQ_SOURCE_ID) | (1ul << KVM_IRQFD_RESAMPLE_IRQ_SOURCE_ID);

    public KvmPic? Pic { get; internal set; }

    public KvmIoapic? Ioapic { get; internal set; }

    public KvmPit? Pit { get; internal set; }

    /// <summary>irqchip_mode: written last, when the routing table is there; under kvm->lock.</summary>
    internal int IrqchipMode
    {
        get => _irqchipMode;
        set => _irqchipMode = value;
    }

    /// <summary>irqchip_in_kernel: vCPUs have local APICs.</summary>
    public bool IrqchipInKernel => _irqchipMode != KVM_IRQCHIP_NONE;

    /// <summary>irqchip_split: the IOAPIC and the PICs are userspace's.</summary>
    public bool IrqchipSplit => _irqchipMode == KVM_IRQCHIP_SPLIT;

    /// <summary>irqchip_kernel, ioapic_in_kernel.</summary>
    public bool IoapicInKernel => _irqchipMode == KVM_IRQCHIP_KERNEL;

    /// <summary>pic_in_kernel.</summary>
    public bool PicInKernel => _irqchipMode == KVM_IRQCHIP_KERNEL;

    /// <summary>__kvm_irq_line_state: the level of a line that several sources share.</summary>
    internal static bool IrqLineState(ref ulong state, int sourceId, bool level)
    {
        if (level)
            state |= 1ul << sourceId;
        else
            state &= ~(1ul << sourceId);
        return state != 0;
    }

    /// <summary>kvm_request_irq_source_id: -EFAULT when all 64 are in use.</summary>
    [KernelFunction("kvm_request_irq_source_id", File = "arch/x86/kvm/irq_comm.c")]
    internal int RequestIrqSourceId()
    {
        using var _ = FunctionTrace.Enter("kvm_request_irq_source_id");
        using var held = IrqLock.Enter();
        int id = System.Numerics.BitOperations.TrailingZeroCount(~_irqSourcesBitmap);
        if (id >= 64)
        {
            Host.Log.Warn("kvm: exhaust allocatable IRQ sources!");
            return -EFAULT;
        }

        _irqSourcesBitmap |= 1ul << id;
        return id;
    }

    [KernelFunction("kvm_free_irq_source_id", File = "arch/x86/kvm/irq_comm.c")]
    internal void FreeIrqSourceId(int id)
    {
        using var _ = FunctionTrace.Enter("kvm_free_irq_source_id");
        using var held = IrqLock.Enter();
        _irqSourcesBitmap &= ~(1ul << id);
        if (!IoapicInKernel)
            return;
        Ioapic!.ClearAll(id);
        Pic!.ClearAll(id);
    }

    [KernelFunction("kvm_register_irq_mask_notifier", File = "arch/x86/kvm/irq_comm.c")]
    internal void RegisterIrqMaskNotifier(KvmIrqMaskNotifier notifier)
    {
        using var _ = FunctionTrace.Enter("kvm_register_irq_mask_notifier");
        using var held = IrqLock.Enter();
        Volatile.Write(ref _maskNotifiers, [notifier, .. _maskNotifiers]);
    }

    [KernelFunction("kvm_unregister_irq_mask_notifier", File = "arch/x86/kvm/irq_comm.c")]
    internal void UnregisterIrqMaskNotifier(KvmIrqMaskNotifier notifier)
    {
        using var _ = FunctionTrace.Enter("kvm_unregister_irq_mask_notifier");
        using (IrqLock.Enter())
            Volatile.Write(ref _maskNotifiers, [.. _maskNotifiers.Where(n => n != notifier)]);
        using (FunctionTrace.Enter("synchronize_srcu"))
            IrqSrcu.Synchronize();
    }

    [KernelFunction("kvm_fire_mask_notifiers", File = "arch/x86/kvm/irq_comm.c")]
    internal void FireMaskNotifiers(uint irqchip, uint pin, bool mask)
    {
        using var _ = FunctionTrace.Enter("kvm_fire_mask_notifiers");
        int index = IrqSrcu.ReadLock();
        int gsi = IrqMapChipPin(irqchip, pin);
        foreach (KvmIrqMaskNotifier notifier in Volatile.Read(ref _maskNotifiers))
        {
            if (gsi != -1 && notifier.Irq == gsi)
                notifier.MaskChanged(mask);
        }

        IrqSrcu.ReadUnlock(index);
    }
}
