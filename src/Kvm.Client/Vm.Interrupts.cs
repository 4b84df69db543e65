using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Client;

/// <content>Interrupt controllers, routing, eventfds.</content>
public sealed unsafe partial class Vm
{
    /// <summary>KVM_CREATE_IRQCHIP: PIC, IOAPIC and LAPICs in the kernel; before the first vCPU.</summary>
    public void CreateIrqchip() => Fd.Ioctl(KVM_CREATE_IRQCHIP, 0);

    /// <summary>KVM_CAP_SPLIT_IRQCHIP: LAPICs in the kernel, everything else the caller's; before the first vCPU.</summary>
    /// <param name="ioapicPins">GSIs below this are the I/O APIC's: their routes say which ends of interrupts the caller wants to hear of.</param>
    public void CreateSplitIrqchip(uint ioapicPins = 24) => EnableCap(KVM_CAP_SPLIT_IRQCHIP, ioapicPins);

    /// <summary>KVM_CREATE_PIT2; needs the irqchip.</summary>
    public void CreatePit2(uint flags = 0) => Fd.Set(KVM_CREATE_PIT2, new kvm_pit_config { flags = flags });

    /// <summary>The in-kernel interval timer. ENXIO without <see cref="CreatePit2"/>.</summary>
    public kvm_pit_state2 Pit2
    {
        get => Fd.Get<kvm_pit_state2>(KVM_GET_PIT2);
        set => Fd.Set(KVM_SET_PIT2, value);
    }

    /// <summary>KVM_REINJECT_CONTROL: whether ticks that the guest was too slow for come later.</summary>
    public void SetPitReinject(bool reinject) => Fd.Set(KVM_REINJECT_CONTROL, new kvm_reinject_control { pit_reinject = reinject ? (byte)1 : (byte)0 });

    /// <summary>KVM_GET_IRQCHIP.</summary>
    /// <param name="chip"><c>KVM_IRQCHIP_PIC_MASTER</c>, <c>KVM_IRQCHIP_PIC_SLAVE</c> or <c>KVM_IRQCHIP_IOAPIC</c>.</param>
    public kvm_irqchip GetIrqchip(uint chip)
    {
        var irqchip = new kvm_irqchip { chip_id = chip };
        Fd.Exchange(KVM_GET_IRQCHIP, ref irqchip);
        return irqchip;
    }

    /// <summary>KVM_SET_IRQCHIP; <c>chip_id</c> says which. ENXIO without <see cref="CreateIrqchip"/>.</summary>
    public void SetIrqchip(in kvm_irqchip irqchip) => Fd.Set(KVM_SET_IRQCHIP, irqchip);

    /// <summary>KVM_IRQ_LINE: drives a GSI to a level.</summary>
    public void IrqLine(uint gsi, bool level) => Fd.Set(KVM_IRQ_LINE, Level(gsi, level));

    /// <summary>KVM_IRQ_LINE_STATUS.</summary>
    /// <returns>Below 0: ignored; 0: coalesced with one pending; above 0: delivered to that many CPUs.</returns>
    public int IrqLineStatus(uint gsi, bool level)
    {
        kvm_irq_level line = Level(gsi, level);
        Fd.Exchange(KVM_IRQ_LINE_STATUS, ref line);
        return line.status;
    }

    /// <summary>The last table of <see cref="SetGsiRouting"/>, which the kernel can't be asked for; null before the first.</summary>
    public IReadOnlyList<kvm_irq_routing_entry>? GsiRouting { get; private set; }

    /// <summary>KVM_SET_GSI_ROUTING: replaces the whole table.</summary>
    public void SetGsiRouting(ReadOnlySpan<kvm_irq_routing_entry> entries)
    {
        using var argument = new VariableArgument<kvm_irq_routing, kvm_irq_routing_entry>(entries.Length, sizeof(kvm_irq_routing));
        argument.Header.nr = (uint)entries.Length;
        entries.CopyTo(argument.Elements);
        Fd.Ioctl(KVM_SET_GSI_ROUTING, argument.Address);
        GsiRouting = entries.ToArray();
    }

    /// <summary>KVM_SIGNAL_MSI.</summary>
    /// <returns>Above 0: delivered; 0: blocked by the guest.</returns>
    public int SignalMsi(ulong address, uint data) =>
        (int)Fd.Set(KVM_SIGNAL_MSI, new kvm_msi { address_lo = (uint)address, address_hi = (uint)(address >> 32), data = data });

    /// <summary>KVM_IRQFD: writing the eventfd raises the GSI.</summary>
    public void Irqfd(int eventfd, uint gsi, uint flags = 0, int resampleEventfd = -1) =>
        Fd.Set(KVM_IRQFD, new kvm_irqfd { fd = (uint)eventfd, gsi = gsi, flags = flags, resamplefd = (uint)Math.Max(resampleEventfd, 0) });

    /// <summary>KVM_IOEVENTFD: a guest write there signals the eventfd instead of exiting.</summary>
    public void IoEventfd(int eventfd, ulong address, uint length, uint flags = 0, ulong dataMatch = 0) =>
        Fd.Set(KVM_IOEVENTFD, new kvm_ioeventfd { fd = eventfd, addr = address, len = length, flags = flags, datamatch = dataMatch });

    /// <summary>KVM_REGISTER_COALESCED_MMIO: writes to these <paramref name="size"/> bytes are queued in the ring page instead of exiting one by one.</summary>
    public void RegisterCoalescedMmio(ulong address, uint size, bool pio = false) => Fd.Set(KVM_REGISTER_COALESCED_MMIO, Zone(address, size, pio));

    /// <summary>KVM_UNREGISTER_COALESCED_MMIO.</summary>
    public void UnregisterCoalescedMmio(ulong address, uint size, bool pio = false) => Fd.Set(KVM_UNREGISTER_COALESCED_MMIO, Zone(address, size, pio));

    private static kvm_irq_level Level(uint gsi, bool level) => new() { irq = gsi, level = level ? 1u : 0u };

    private static kvm_coalesced_mmio_zone Zone(ulong address, uint size, bool pio) => new() { addr = address, size = size, pio = pio ? 1u : 0u };
}
