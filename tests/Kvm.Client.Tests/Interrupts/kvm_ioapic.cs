using Kvm.Abi;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;
using static Kvm.Client.Tests.Interrupts.InterruptGuest;

namespace Kvm.Client.Tests.Interrupts;

public class kvm_ioapic
{
    public static TheoryData<string> All => Kernels.All;

    private static void Redirect(InterruptGuest g, int pin, ulong entry)
    {
        var chip = g.Vm.GetIrqchip((uint)KVM_IRQCHIP_IOAPIC);
        chip.chip.ioapic.redirtbl[pin].bits = entry;
        g.Vm.SetIrqchip(chip);
    }

    private static ulong Entry(InterruptGuest g, int pin) => g.Ioapic.redirtbl[pin].bits;

    private static uint Window(InterruptGuest g, uint index, uint? value = null)
    {
        g.Load(c =>
        {
            c.mov(eax, index);
            c.mov(__dword_ptr[0], eax);
            if (value is { } v)
            {
                c.mov(eax, v);
                c.mov(__dword_ptr[0x10], eax);
            }

            c.mov(eax, __dword_ptr[0x10]);
            c.@out(0x80, eax);
        }, IoapicBase);
        return g.Run();
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Registers_through_the_window(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        Window(g, 1).Should().Be(0x170011);
        Window(g, 0, 0xffffffff).Should().Be(0x0f000000);
        Window(g, 2).Should().Be(0x0f000000, "the arbitration ID is the ID");
        Window(g, 0x10).Should().Be(0x10000, "masked");
        Window(g, 0x10 + 46, 0xffffffff).Should().Be(0xffffafff, "delivery status and remote IRR are read only");
        Window(g, 0x10 + 47, 0x5a000000).Should().Be(0x5a000000);
        Window(g, 0x10 + 48, 1).Should().Be(0xffffffff, "there are 24 pins");
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Edges_are_delivered_once(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        g.Software(true);
        Redirect(g, 4, 0x38);
        g.Vm.IrqLineStatus(4, true).Should().BePositive();
        g.Irr(0x38).Should().BeTrue();
        (Entry(g, 4) & 0x4000).Should().Be(0, "edges have no remote IRR");
    }

    [Theory, MemberData(nameof(Kernels.Models), MemberType = typeof(Kernels))]
    public void Levels_wait_for_the_end_of_interrupt_and_come_again(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        g.Software(true);
        Redirect(g, 10, 0x8038);
        g.Handler(0x38, static c =>
        {
            c.mov(al, 0x38);
            c.@out(0x80, al);
            c.xor(eax, eax);
            c.mov(__dword_ptr[0xb0], eax);
            c.iret();
        });
        g.Load(static c =>
        {
            c.sti();
            c.nop();
            c.nop();
            c.nop();
            c.mov(al, 1);
            c.@out(0x80, al);
        }, ApicBase);
        g.Vm.IrqLine(10, true);
        g.Run().Should().Be(0x38);
        (Entry(g, 10) & 0x4000).Should().Be(0x4000);
        g.Isr(0x38).Should().BeTrue();
        g.Run().Should().Be(0x38, "the line is still high");
        g.Vm.IrqLine(10, false);
        g.Run().Should().Be(1);
        (Entry(g, 10) & 0x4000).Should().Be(0);
        g.Isr(0x38).Should().BeFalse();
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void A_masked_pin_remembers(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        g.Software(true);
        Redirect(g, 4, 0x10038);
        g.Vm.IrqLine(4, true);
        g.Irr(0x38).Should().BeFalse();
        (g.Ioapic.irr & 0x10).Should().Be(0x10);
    }
}
