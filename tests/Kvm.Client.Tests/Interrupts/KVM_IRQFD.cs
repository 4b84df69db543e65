using Kvm.Abi;
using static Kvm.Abi.Uapi;
using static Kvm.Client.Tests.Interrupts.InterruptGuest;

namespace Kvm.Client.Tests.Interrupts;

public class KVM_IRQFD
{
    public static TheoryData<string> All => Kernels.All;

    private static unsafe void Signal(InterruptGuest g, long fd)
    {
        ulong one = 1;
        g.System.Fd.Backend.Write((int)fd, (ulong)&one, 8).Should().Be(8);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void A_write_raises_the_GSI(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        long fd = g.System.Fd.Backend.Eventfd(0, 0);
        g.Vm.Irqfd((int)fd, 5);
        Fails(() => g.Vm.Irqfd((int)fd, 6)).Should().Be(Errno.EBUSY);
        Signal(g, fd);
        SpinWait.SpinUntil(() => g.Pic(0).irr == 0x20, 5000).Should().BeTrue();
        g.Vm.Irqfd((int)fd, 5, (uint)KVM_IRQFD_FLAG_DEASSIGN);
        g.Vm.Irqfd((int)fd, 6);
        Signal(g, fd);
        SpinWait.SpinUntil(() => g.Pic(0).irr == 0x60, 5000).Should().BeTrue();
        g.System.Fd.Backend.Close((int)fd);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Arguments(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        Fails(() => g.Vm.Irqfd(g.Vm.Fd.Number, 5)).Should().Be(Errno.EINVAL, "no eventfd");
        Fails(() => g.Vm.Irqfd(999, 5)).Should().Be(Errno.EBADF);
        Fails(() => g.Vm.Irqfd(999, 5, 4)).Should().Be(Errno.EINVAL, "an unknown flag");
        Fails(() => g.Vm.Irqfd(999, 5, (uint)KVM_IRQFD_FLAG_DEASSIGN)).Should().Be(Errno.EBADF);
        using var without = new InterruptGuest(kernel, irqchip: false);
        long fd = without.System.Fd.Backend.Eventfd(0, 0);
        Fails(() => without.Vm.Irqfd((int)fd, 5)).Should().Be(Errno.EINVAL, "no interrupt controllers");
        without.System.Fd.Backend.Close((int)fd);
    }
}
