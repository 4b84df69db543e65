using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;

namespace Kvm.Core;

/// <remarks>Interrupt routing (virt/kvm/irqchip.c): GSIs to pins and messages. Readers are in <see cref="IrqSrcu"/> sections; changes hold <see cref="IrqLock"/>.</remarks>
public abstract unsafe partial class KvmVm
{
    /// <summary>Source of interrupts that user space raises.</summary>
    public const int KVM_USERSPACE_IRQ_SOURCE_ID = 0;

    /// <summary>Source of level interrupts of irqfds with a resample eventfd.</summary>
    public const int KVM_IRQFD_RESAMPLE_IRQ_SOURCE_ID = 1;

    private KvmIrqRoutingTable? _irqRouting;

    /// <summary>KVM_SET_GSI_ROUTING: -EINVAL without an interrupt controller, beyond 4096 entries or with flags; the entries are copied then.</summary>
    internal KvmResult IoctlSetGsiRouting(UserPtr<kvm_irq_routing> argp)
    {
        if (!argp.Read(out kvm_irq_routing routing)) return Errno.EFAULT;
        if (!Arch.CanSetIrqRouting(this)) return Errno.EINVAL;
        if (routing.nr > KvmLimits.KVM_MAX_IRQ_ROUTES || routing.flags != 0) return Errno.EINVAL;
        var entries = new kvm_irq_routing_entry[routing.nr];
        if (routing.nr != 0 && Host.Faults.ShouldFail("vmalloc", "irq_routing_entries")) return Errno.ENOMEM;
        if (!argp.Offset<kvm_irq_routing_entry>(8).Read(entries.AsSpan())) return Errno.EFAULT;
        return SetIrqRouting(entries);
    }

    /// <summary>
    /// kvm_set_irq_routing: replaces the whole table. -EINVAL for a GSI from 4096 on, a flag, two entries of one GSI that exclude each other, or what the
    /// architecture refuses; -ENOMEM.
    /// </summary>
    [KernelFunction("kvm_set_irq_routing", File = "virt/kvm/irqchip.c")]
    public KvmResult SetIrqRouting(ReadOnlySpan<kvm_irq_routing_entry> entries)
    {
        using var _ = FunctionTrace.Enter("kvm_set_irq_routing");
        uint last = 0;
        foreach (ref readonly kvm_irq_routing_entry ue in entries)
        {
            if (ue.gsi >= KvmLimits.KVM_MAX_IRQ_ROUTES) return Errno.EINVAL;
            last = Math.Max(last, ue.gsi);
        }

        if (Host.Faults.ShouldFail("kzalloc", "kvm_irq_routing_table")) return Errno.ENOMEM;
        var table = new KvmIrqRoutingTable((int)last + 1);
        foreach (ref readonly kvm_irq_routing_entry ue in entries)
        {
            if (Host.Faults.ShouldFail("kzalloc", "kvm_kernel_irq_routing_entry")) return Errno.ENOMEM;
            uint flags = ue.type == KVM_IRQ_ROUTING_MSI ? ue.flags & ~(uint)KVM_MSI_VALID_DEVID : ue.flags;
            if (flags != 0) return Errno.EINVAL;
            KvmResult r = SetupRoutingEntry(table, in ue);
            if (r.IsError) return r;
        }

        using (IrqLock.Enter())
        {
            Volatile.Write(ref _irqRouting, table);
            IrqRoutingUpdate();
            Arch.IrqRoutingUpdate(this);
        }

        Arch.PostIrqRoutingUpdate(this);
        using (FunctionTrace.Enter("synchronize_srcu_expedited")) IrqSrcu.Synchronize();
        return 0;
    }

    /// <summary>setup_routing_entry: a GSI goes to each chip at most once, and to nothing else besides a message.</summary>
    private KvmResult SetupRoutingEntry(KvmIrqRoutingTable table, in kvm_irq_routing_entry ue)
    {
        foreach (KvmKernelIrqRoutingEntry other in table.Of(ue.gsi))
            if (other.Type != KVM_IRQ_ROUTING_IRQCHIP || ue.type != KVM_IRQ_ROUTING_IRQCHIP || ue.u.irqchip.irqchip == other.Irqchip) return Errno.EINVAL;
        var entry = new KvmKernelIrqRoutingEntry { Gsi = ue.gsi, Type = ue.type };
        KvmResult r = Arch.SetRoutingEntry(this, entry, in ue);
        if (r.IsError) return r;
        if (entry.Type == KVM_IRQ_ROUTING_IRQCHIP) table.Chip(entry.Irqchip, entry.Pin) = (int)entry.Gsi;
        table.Add(entry);
        return 0;
    }

    [KernelFunction("kvm_free_irq_routing", File = "virt/kvm/irqchip.c")]
    internal void FreeIrqRouting()
    {
        using var _ = FunctionTrace.Enter("kvm_free_irq_routing");
        _irqRouting = null;
    }

    /// <summary>kvm_irq_map_gsi.</summary>
    [KernelFunction("kvm_irq_map_gsi", File = "virt/kvm/irqchip.c")]
    internal ReadOnlySpan<KvmKernelIrqRoutingEntry> IrqMapGsi(uint gsi)
    {
        FunctionTrace.Leaf("kvm_irq_map_gsi");
        return Volatile.Read(ref _irqRouting) is { } table ? table.Of(gsi) : default;
    }

    /// <summary>The routes of a GSI; inside an <see cref="IrqSrcu"/> section.</summary>
    public ReadOnlySpan<KvmKernelIrqRoutingEntry> RoutesOf(uint gsi) => Volatile.Read(ref _irqRouting) is { } table ? table.Of(gsi) : default;

    /// <summary>nr_rt_entries: one more than the highest GSI with a route.</summary>
    public uint NrIrqRoutes => Volatile.Read(ref _irqRouting) is { } table ? (uint)table.Count : 0;

    /// <summary>kvm_irq_map_chip_pin: -1 when nothing is routed there.</summary>
    [KernelFunction("kvm_irq_map_chip_pin", File = "virt/kvm/irqchip.c")]
    public int IrqMapChipPin(uint irqchip, uint pin)
    {
        FunctionTrace.Leaf("kvm_irq_map_chip_pin");
        return Volatile.Read(ref _irqRouting) is { } table ? table.Chip(irqchip, pin) : -1;
    }

    /// <summary>kvm_set_irq: below 0 the interrupt was ignored, 0 it was still pending, above 0 the number of CPUs that got it.</summary>
    [KernelFunction("kvm_set_irq", File = "virt/kvm/irqchip.c")]
    public int SetIrq(int sourceId, uint gsi, int level, bool lineStatus)
    {
        using var _ = FunctionTrace.Enter("kvm_set_irq");
        if (Tracepoints.Enabled) Tracepoints.Emit("kvm_set_irq", $"gsi {gsi} level {level} source {sourceId}");
        // Both controllers get it: the guest ignores the one that it does not use.
        int index = IrqSrcu.ReadLock();
        ReadOnlySpan<KvmKernelIrqRoutingEntry> entries = IrqMapGsi(gsi);
        IrqSrcu.ReadUnlock(index);
        int ret = -1;
        foreach (KvmKernelIrqRoutingEntry entry in entries)
        {
            int r = entry.Set(entry, this, sourceId, level, lineStatus);
            if (r >= 0) ret = r + Math.Max(ret, 0);
        }

        return ret;
    }
}
