using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Run;

public unsafe class PortIo
{
    [Fact]
    public void Out_exits_before_the_instruction_is_skipped_and_is_complete_at_the_next_run()
    {
        using var g = new Guest();
        g.Load([0xb0, 0x41, 0xe6, 0x10, 0xf4]); // mov al, 41h; out 10h, al; hlt
        g.RunToExit().Should().Be((uint)KVM_EXIT_IO);
        g.Run->io.direction.Should().Be((byte)KVM_EXIT_IO_OUT);
        g.Run->io.port.Should().Be(0x10);
        g.Run->io.size.Should().Be(1);
        g.Run->io.count.Should().Be(1u);
        (*((byte*)g.Run + g.Run->io.data_offset)).Should().Be(0x41);
        g.Regs.rip.Should().Be(0x1002);
        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        g.Regs.rip.Should().Be(0x1005);
    }
}
