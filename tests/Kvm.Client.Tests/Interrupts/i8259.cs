using Kvm.Abi;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;
using static Kvm.Client.Tests.Interrupts.InterruptGuest;

namespace Kvm.Client.Tests.Interrupts;

public class i8259
{
    public static TheoryData<string> All => Kernels.All;

    [SkippableTheory, MemberData(nameof(All))]
    public void Edges_count_once_until_the_line_falls(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        g.InitializePics();
        g.Vm.IrqLineStatus(5, true).Should().Be(1);
        g.Vm.IrqLineStatus(5, true).Should().Be(1, "no new edge");
        g.Vm.IrqLine(5, false);
        g.Pic(0).irr.Should().Be(0x20, "an edge stays");
        g.Pic(0).last_irr.Should().Be(0);
        g.Vm.IrqLineStatus(5, true).Should().Be(0, "one is pending: coalesced");
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void A_level_is_there_while_the_line_is_high(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        g.InitializePics();
        g.Ports((0x4d0, 0xff), (0x4d1, 0xff), (0x4d0, null), (0x4d1, null)).Should().Equal([0xf8, 0xde], "the timer, the keyboard, the cascade, the clock and the FPU are edges");
        g.Vm.IrqLine(5, true);
        g.Pic(0).irr.Should().Be(0x20);
        g.Vm.IrqLine(5, false);
        g.Pic(0).irr.Should().Be(0);
    }

    /// <summary>Of Linux 6.1: bit 7 is not set, and the interrupt ends with it.</summary>
    [Theory, MemberData(nameof(Kernels.Models), MemberType = typeof(Kernels))]
    public void The_poll_command_acknowledges(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        g.InitializePics();
        g.Ports((0x20, 0x0c), (0x20, null)).Should().Equal([0x07], "nothing is there");
        g.Vm.IrqLine(5, true);
        g.Vm.IrqLine(3, true);
        g.Ports((0x20, 0x0c), (0x20, null)).Should().Equal(0x03);
        g.Pic(0).isr.Should().Be(0);
        g.Pic(0).irr.Should().Be(0x20);
        g.Ports((0x20, 0x0c), (0x20, null), (0x20, 0x0c), (0x20, null)).Should().Equal(0x05, 0x07);
    }

    [Theory, MemberData(nameof(Kernels.Models), MemberType = typeof(Kernels))]
    public void A_specific_end_with_rotation_makes_the_level_the_lowest(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        g.InitializePics();
        kvm_irqchip chip = g.Vm.GetIrqchip((uint)KVM_IRQCHIP_PIC_MASTER);
        chip.chip.pic.isr = 8;
        g.Vm.SetIrqchip(chip);
        g.Ports((0x20, 0xe3));
        g.Pic(0).isr.Should().Be(0);
        g.Pic(0).priority_add.Should().Be(4);
        g.Vm.IrqLine(1, true);
        g.Vm.IrqLine(5, true);
        g.Ports((0x20, 0x0c), (0x20, null)).Should().Equal([0x05], "4 is first now, 3 last");
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Ports_show_the_registers_that_OCW3_chose(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        g.InitializePics();
        g.Vm.IrqLine(12, true);
        g.Ports((0x21, 0xfb), (0xa1, 0xef), (0x21, null), (0xa1, null), (0x20, 0x0a), (0x20, null), (0xa0, 0x0a), (0xa0, null), (0xa0, 0x0b), (0xa0, null))
            .Should().Equal(0xfb, 0xef, 0x04, 0x10, 0x00);
    }

    /// <summary>The slave's interrupt is acknowledged in both; ends are the guest's business.</summary>
    [Theory, MemberData(nameof(Kernels.Models), MemberType = typeof(Kernels))]
    public void Guests_get_the_vector_of_the_highest_interrupt(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        g.InitializePics();
        foreach (byte vector in new byte[] { 0x2c, 0x25 })
        {
            g.Handler(vector, c =>
            {
                c.mov(al, vector);
                c.@out(0x80, al);
                c.mov(al, 0x20);
                c.@out(0xa0, al);
                c.@out(0x20, al);
                c.iret();
            });
        }

        g.Vm.IrqLine(5, true);
        g.Vm.IrqLine(12, true);
        g.Load(static c =>
        {
            c.sti();
            c.nop();
            c.nop();
            c.mov(al, 1);
            c.@out(0x80, al);
        });
        g.Run().Should().Be(0x2c);
        g.Pic(0).isr.Should().Be(4);
        g.Pic(1).isr.Should().Be(0x10);
        g.Run().Should().Be(0x25);
        g.Run().Should().Be(1);
        g.Pic(0).isr.Should().Be(0);
        g.Pic(1).isr.Should().Be(0);
    }

    [Theory, MemberData(nameof(Kernels.Models), MemberType = typeof(Kernels))]
    public void With_automatic_end_nothing_is_in_service(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        g.InitializePics(icw4: 3);
        g.Pic(0).auto_eoi.Should().Be(1);
        g.Handler(0x25, static c =>
        {
            c.mov(al, 0x25);
            c.@out(0x80, al);
        });
        g.Vm.IrqLine(5, true);
        g.Load(static c =>
        {
            c.sti();
            c.nop();
            c.nop();
        });
        g.Run().Should().Be(0x25);
        g.Pic(0).isr.Should().Be(0);
    }
}
