using Kvm.Abi;
using static Kvm.Abi.Uapi;
using static Kvm.Client.Tests.Interrupts.InterruptGuest;

namespace Kvm.Client.Tests.Interrupts;

public class KVM_SIGNAL_MSI
{
    public static TheoryData<string> All => Kernels.All;

    [SkippableTheory, MemberData(nameof(All))]
    public void Needs_a_local_APIC_that_is_on(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        g.Vm.SignalMsi(ApicBase, 0x40).Should().Be(0, "the APIC is disabled by software");
        g.Software(true);
        g.Vm.SignalMsi(ApicBase, 0x40).Should().Be(1);
        g.Irr(0x40).Should().BeTrue();
        g.Vm.SignalMsi(ApicBase | 0x1000, 0x41).Should().Be(0, "there is no APIC 1");
        var flags = new kvm_msi { flags = 2 };
        Fails(() => g.Vm.Ioctl(Uapi.KVM_SIGNAL_MSI, ref flags)).Should().Be(Errno.EINVAL);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Reaches_logical_destinations_and_the_lowest_priority(string kernel)
    {
        using var g = new InterruptGuest(kernel, vcpus: 3);
        for (int i = 0; i < 3; i++)
        {
            g.Software(true, i);
            g.Apic(0xd0, 1u << (24 + i), i);
        }

        g.Vm.SignalMsi(ApicBase | 4 | 6 << 12, 0x50).Should().Be(2);
        new[] { 0, 1, 2 }.Select(i => g.Irr(0x50, i)).Should().Equal(false, true, true);
        g.Vm.SignalMsi(ApicBase | 0xff << 12, 0x51).Should().Be(3, "a broadcast");
        g.Vm.SignalMsi(ApicBase | 8 | 4 | 6 << 12, 0x152).Should().Be(1, "the lowest priority takes it alone");
        new[] { 0, 1, 2 }.Count(i => g.Irr(0x52, i)).Should().Be(1);
    }
}
