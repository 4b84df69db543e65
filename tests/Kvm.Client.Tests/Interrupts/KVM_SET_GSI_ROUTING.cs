using Kvm.Abi;
using static Kvm.Abi.Uapi;
using static Kvm.Client.Tests.Interrupts.InterruptGuest;

namespace Kvm.Client.Tests.Interrupts;

public class KVM_SET_GSI_ROUTING
{
    public static TheoryData<string> All => Kernels.All;

    private static kvm_irq_routing_entry Chip(uint gsi, uint chip, uint pin)
    {
        var e = new kvm_irq_routing_entry { gsi = gsi, type = (uint)KVM_IRQ_ROUTING_IRQCHIP };
        e.u.irqchip = new kvm_irq_routing_irqchip { irqchip = chip, pin = pin };
        return e;
    }

    private static kvm_irq_routing_entry Msi(uint gsi, uint address = ApicBase, uint data = 0x40, uint flags = 0, uint high = 0)
    {
        var e = new kvm_irq_routing_entry { gsi = gsi, type = (uint)KVM_IRQ_ROUTING_MSI, flags = flags };
        e.u.msi = new kvm_irq_routing_msi { address_lo = address, address_hi = high, data = data };
        return e;
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Needs_interrupt_controllers(string kernel)
    {
        using var g = new InterruptGuest(kernel, irqchip: false);
        Fails(() => g.Vm.SetGsiRouting([Msi(0)])).Should().Be(Errno.EINVAL);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Takes_4096_entries_and_no_more(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        g.Vm.SetGsiRouting([.. Enumerable.Range(0, 4096).Select(static i => Msi((uint)i))]);
        Fails(() => g.Vm.SetGsiRouting(new kvm_irq_routing_entry[4097])).Should().Be(Errno.EINVAL);
        g.Vm.SetGsiRouting([]);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Entries_are_within_the_chips(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        foreach (kvm_irq_routing_entry good in new[] { Chip(4095, 0, 0), Chip(0, 0, 7), Chip(0, 1, 7), Chip(0, 2, 0), Chip(0, 2, 23), Msi(4095), Msi(0, flags: (uint)KVM_MSI_VALID_DEVID) })
            g.Vm.SetGsiRouting([good]);
        foreach (kvm_irq_routing_entry bad in new[]
        {
            Chip(4096, 0, 0), Chip(0, 0, 8), Chip(0, 1, 8), Chip(0, 2, 24), Chip(0, 3, 0), Msi(0, flags: 2),
            Chip(0, 0, 0) with { flags = 1 }, Chip(0, 0, 0) with { type = 0 }, Chip(0, 0, 0) with { type = 77 },
        })
            Fails(() => g.Vm.SetGsiRouting([bad])).Should().Be(Errno.EINVAL, $"gsi {bad.gsi} type {bad.type} flags {bad.flags}");
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void A_GSI_has_one_pin_of_each_chip_or_one_message(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        g.Vm.SetGsiRouting([Chip(5, 0, 5), Chip(5, 2, 5)]);
        g.Vm.SetGsiRouting([Chip(5, 0, 5), Chip(6, 0, 5)]);
        Fails(() => g.Vm.SetGsiRouting([Chip(5, 2, 5), Chip(5, 2, 6)])).Should().Be(Errno.EINVAL);
        Fails(() => g.Vm.SetGsiRouting([Msi(5), Msi(5)])).Should().Be(Errno.EINVAL);
        Fails(() => g.Vm.SetGsiRouting([Chip(5, 0, 5), Msi(5)])).Should().Be(Errno.EINVAL);
        Fails(() => g.Vm.SetGsiRouting([Msi(5), Chip(5, 0, 5)])).Should().Be(Errno.EINVAL);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Replaces_the_table(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        g.Vm.SetGsiRouting([Chip(0x20, 1, 3)]);
        g.Vm.IrqLine(3, true);
        g.Pic(0).irr.Should().Be(0);
        g.Vm.IrqLine(0x20, true);
        g.Pic(1).irr.Should().Be(8);
        g.Vm.IrqLineStatus(3, true).Should().Be(-1, "no route, nobody takes it");
    }

    /// <summary>With 32-bit destinations the high address holds bits 31:8 and nothing else.</summary>
    [SkippableTheory, MemberData(nameof(All))]
    public void High_addresses_need_32_bit_APIC_ids(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        g.Vm.SetGsiRouting([Msi(0, high: 1)]);
        g.Vm.EnableCap(KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS);
        Fails(() => g.Vm.SetGsiRouting([Msi(0, high: 1)])).Should().Be(Errno.EINVAL);
        g.Vm.SetGsiRouting([Msi(0, high: 0x100)]);
        Fails(() => g.Vm.EnableCap(KVM_CAP_X2APIC_API, 4)).Should().Be(Errno.EINVAL);
    }
}
