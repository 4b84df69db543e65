using Kvm.Abi;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;
using static Kvm.Client.Tests.Interrupts.InterruptGuest;

namespace Kvm.Client.Tests.Interrupts;

public class i8254
{
    public static TheoryData<string> All => Kernels.All;

    [SkippableTheory, MemberData(nameof(All))]
    public void KVM_CREATE_PIT2_once(string kernel)
    {
        using var g = new InterruptGuest(kernel, pit: true);
        Fails(() => g.Vm.CreatePit2()).Should().Be(Errno.EEXIST);
        Fails(() => g.Vm.Ioctl(KVM_CREATE_PIT)).Should().Be(Errno.EEXIST);
        g.Vm.SetPitReinject(true);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void KVM_REINJECT_CONTROL_needs_one(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        Fails(() => g.Vm.SetPitReinject(false)).Should().Be(Errno.ENXIO);
        g.Vm.Ioctl(KVM_CREATE_PIT).Should().Be(0);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void A_latched_count_is_read_in_two_halves(string kernel)
    {
        using var g = new InterruptGuest(kernel, pit: true);
        // mode 0 does not wrap before 55 ms
        byte[] read = g.Ports((0x43, 0xb0), (0x42, 0xff), (0x42, 0xff), (0x43, 0x80), (0x42, null), (0x42, null), (0x43, 0xe8), (0x42, null));
        (read[0] | read[1] << 8).Should().BeGreaterThan(0);
        (read[2] & 0x3f).Should().Be(0x30, "status: both halves, mode 0");
        g.Pit(2).mode.Should().Be(0);
        g.Pit(2).count.Should().Be(0xffff);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void A_count_of_0_is_65536(string kernel)
    {
        using var g = new InterruptGuest(kernel, pit: true);
        g.Ports((0x43, 0x34), (0x40, 0), (0x40, 0));
        g.Pit(0).count.Should().Be(0x10000);
        g.Pit(0).rw_mode.Should().Be(3);
        g.Pit(0).mode.Should().Be(2);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void The_speaker_port_has_gate_and_data(string kernel)
    {
        using var g = new InterruptGuest(kernel, pit: true);
        byte[] read = g.Ports((0x61, 3), (0x61, null), (0x61, 0), (0x61, null));
        (read[0] & 3).Should().Be(3);
        (read[1] & 3).Should().Be(0);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Ticks_reach_a_halted_guest(string kernel)
    {
        using var g = new InterruptGuest(kernel, pit: true);
        g.InitializePics();
        g.Handler(0x20, static c =>
        {
            c.inc(bl);
            c.mov(al, 0x20);
            c.@out(0x20, al);
            c.iret();
        });
        g.Load(static c =>
        {
            var again = c.CreateLabel();
            c.xor(bx, bx);
            c.mov(al, 0x34);
            c.@out(0x43, al);
            c.mov(al, 0x10);
            c.@out(0x40, al);
            c.@out(0x40, al);
            c.sti();
            c.Label(ref again);
            c.hlt();
            c.cmp(bl, 5);
            c.jb(again);
            c.mov(al, bl);
            c.@out(0x80, al);
        });
        g.Run().Should().BeGreaterThanOrEqualTo(5);
    }
}
