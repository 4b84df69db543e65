using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Run;

public unsafe class PortIo
{
    [Theory]
    [InlineData("amd")]
    [InlineData("intel")]
    public void Out_exits_before_the_instruction_is_skipped_and_is_complete_at_the_next_run(string vendor)
    {
        using var g = new Guest(vendor);
        g.Load([0xb0, 0x41, 0xe6, 0x10, 0xf4]); // mov al, 41h; out 10h, al; hlt
        g.RunToExit().Should().Be((uint)KVM_EXIT_IO);
        g.Run->io.direction.Should().Be((byte)KVM_EXIT_IO_OUT);
        g.Run->io.port.Should().Be(0x10);
        g.Run->io.size.Should().Be(1);
        g.Run->io.count.Should().Be(1u);
        g.IoData[0].Should().Be(0x41);
        g.Regs.rip.Should().Be(0x1002);
        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        g.Regs.rip.Should().Be(0x1005);
    }

    [Theory]
    [InlineData("amd")]
    [InlineData("intel")]
    public void Completion_is_dropped_when_userspace_moves_rip(string vendor)
    {
        using var g = new Guest(vendor);
        g.Load([0xe6, 0x10, 0x90, 0xf4]);
        g.RunToExit().Should().Be((uint)KVM_EXIT_IO);
        Abi.kvm_regs r = g.Regs;
        r.rip = 0x1003;
        g.Regs = r;
        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        g.Regs.rip.Should().Be(0x1004);
    }

    [Theory]
    [InlineData("amd")]
    [InlineData("intel")]
    public void Out_to_port_7e_is_skipped_at_once(string vendor)
    {
        using var g = new Guest(vendor);
        g.Load([0xe6, 0x7e, 0xf4]);
        g.RunToExit().Should().Be((uint)KVM_EXIT_IO);
        g.Regs.rip.Should().Be(0x1002);
        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
    }

    [Theory]
    [InlineData("amd")]
    [InlineData("intel")]
    public void In_takes_userspaces_bytes_and_keeps_the_rest_of_rax(string vendor)
    {
        using var g = new Guest(vendor);
        g.Load([0x66, 0xb8, 0x78, 0x56, 0x34, 0x12, 0xba, 0xf8, 0x03, 0xec, 0xf4]); // mov eax, 12345678h; mov dx, 3f8h; in al, dx
        g.RunToExit().Should().Be((uint)KVM_EXIT_IO);
        g.Run->io.direction.Should().Be((byte)KVM_EXIT_IO_IN);
        g.Run->io.port.Should().Be(0x3f8);
        g.IoData[0] = 0x99;
        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        g.Regs.rax.Should().Be(0x12345699);
    }

    [Theory]
    [InlineData("amd")]
    [InlineData("intel")]
    public void The_data_page_of_an_in_is_zero_before_userspace_answers(string vendor)
    {
        using var g = new Guest(vendor);
        g.Load([0xe7, 0x10, 0xe5, 0x10, 0xf4]); // out 10h, ax; in ax, 10h
        g.RunToExit();
        g.IoData[0] = 0xff;
        g.RunToExit().Should().Be((uint)KVM_EXIT_IO);
        g.Run->io.size.Should().Be(2);
        g.IoData[0].Should().Be(0);
        g.IoData[1].Should().Be(0);
    }

    [Theory]
    [InlineData("amd")]
    [InlineData("intel")]
    public void Rep_outs_exits_once_per_element(string vendor)
    {
        using var g = new Guest(vendor);
        "abc"u8.CopyTo(new Span<byte>(g.Memory + 0x2000, 3));
        g.Load([0xbe, 0x00, 0x20, 0xb9, 0x03, 0x00, 0xba, 0x10, 0x00, 0xf3, 0x6e, 0xf4]);
        foreach (byte expected in "abc"u8)
        {
            g.RunToExit().Should().Be((uint)KVM_EXIT_IO);
            g.Run->io.count.Should().Be(1u);
            g.IoData[0].Should().Be(expected);
        }

        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        g.Regs.rsi.Should().Be(0x2003);
        g.Regs.rcx.Should().Be(0);
    }

    [Theory]
    [InlineData("amd")]
    [InlineData("intel")]
    public void Rep_ins_asks_for_all_elements_of_a_page_at_once(string vendor)
    {
        using var g = new Guest(vendor);
        g.Load([0xbf, 0xf8, 0x2f, 0xb9, 0x08, 0x00, 0xba, 0x10, 0x00, 0xf3, 0x6d, 0xf4]); // di 2ff8h, 8 words
        g.RunToExit().Should().Be((uint)KVM_EXIT_IO);
        g.Run->io.count.Should().Be(8u);
        for (int i = 0; i < 16; i++)
            g.IoData[i] = (byte)(i + 1);
        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        g.Memory[0x2ff8].Should().Be(1);
        g.Memory[0x2fff].Should().Be(8);
        g.Memory[0x3007].Should().Be(16);
    }
}
