using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Core.Tests;

public unsafe class KVM_IOEVENTFD_
{
    private const uint Match = KVM_IOEVENTFD_FLAG_DATAMATCH;
    private const uint Pio = KVM_IOEVENTFD_FLAG_PIO;
    private const uint Off = KVM_IOEVENTFD_FLAG_DEASSIGN;

    private static KvmResult Set(TestHost t, int vm, int fd, ulong addr, uint len, uint flags = 0, ulong data = 0)
    {
        var a = new kvm_ioeventfd { fd = fd, addr = addr, len = len, flags = flags, datamatch = data };
        return t.P.Ioctl(vm, KVM_IOEVENTFD, (ulong)&a);
    }

    private static bool Write(TestHost t, int vm, KvmBus bus, ulong addr, int len, ulong value)
    {
        KvmResult r = 0;
        t.InKernel(() =>
        {
            ulong v = value;
            r = t.VmOf(vm).IoBusWrite(null, bus, addr, len, &v);
        });
        return r.IsOk;
    }

    private static ulong Take(TestHost t, int fd)
    {
        ulong v = 0;
        KvmResult r = t.P.Read(fd, (ulong)&v, 8);
        return r == (KvmResult)8 ? v : 0;
    }

    [Fact]
    public void A_matching_write_signals_and_others_pass()
    {
        using var t = new TestHost();
        int vm = t.Vm(), e = t.P.Eventfd(0, 0x800).Value;
        Set(t, vm, e, 0x500, 2, Pio | Match, 7).Should().Be(KvmResult.Ok);
        Write(t, vm, KvmBus.Pio, 0x500, 2, 7).Should().BeTrue();
        Write(t, vm, KvmBus.Pio, 0x500, 2, 0x10007).Should().BeTrue("two bytes are compared");
        Take(t, e).Should().Be(2);
        Write(t, vm, KvmBus.Pio, 0x500, 2, 8).Should().BeFalse();
        Write(t, vm, KvmBus.Pio, 0x500, 1, 7).Should().BeFalse();
        Write(t, vm, KvmBus.Pio, 0x501, 1, 7).Should().BeFalse();
        Write(t, vm, KvmBus.Mmio, 0x500, 2, 7).Should().BeFalse();
        t.P.Read(e, 0, 8).Should().Be((KvmResult)Errno.EAGAIN);
        Set(t, vm, e, 0x500, 2, Pio | Match | Off, 8).Should().Be((KvmResult)Errno.ENOENT);
        Set(t, vm, e, 0x500, 2, Pio | Match | Off, 7).Should().Be(KvmResult.Ok);
        Write(t, vm, KvmBus.Pio, 0x500, 2, 7).Should().BeFalse();
        t.AssertClean();
    }

    [Fact]
    public void Without_a_length_MMIO_is_on_the_fast_bus_too()
    {
        using var t = new TestHost();
        int vm = t.Vm(), e = t.P.Eventfd().Value;
        Set(t, vm, e, 0xfe000000, 0).Should().Be(KvmResult.Ok);
        Write(t, vm, KvmBus.FastMmio, 0xfe000000, 0, 0).Should().BeTrue();
        Write(t, vm, KvmBus.Mmio, 0xfe000000, 4, 0).Should().BeTrue();
        Take(t, e).Should().Be(2);
        t.VmOf(vm).Bus(KvmBus.FastMmio)!.IoeventfdCount.Should().Be(1);
        Set(t, vm, e, 0xfe000000, 0, Off).Should().Be(KvmResult.Ok);
        t.VmOf(vm).Bus(KvmBus.FastMmio)!.Count.Should().Be(0);
        t.VmOf(vm).Bus(KvmBus.Mmio)!.Count.Should().Be(0);
        t.AssertClean();
    }

    [Theory]
    [InlineData(0x1000, 3, 0, Errno.EINVAL)]
    [InlineData(0x1000, 16, 0, Errno.EINVAL)]
    [InlineData(0xffff_ffff_ffff_ffff, 1, 0, Errno.EINVAL)] // wraps
    [InlineData(0x1000, 4, 32, Errno.EINVAL)] // unknown flag
    [InlineData(0x1000, 0, (int)Match, Errno.EINVAL)]
    public void Malformed_requests_are_refused_before_the_descriptor_is_looked_at(ulong addr, uint len, uint flags, Errno errno)
    {
        using var t = new TestHost();
        Set(t, t.Vm(), 999, addr, len, flags).Should().Be((KvmResult)errno);
    }

    [Fact]
    public void Descriptors_and_collisions_are_checked()
    {
        using var t = new TestHost();
        int vm = t.Vm(), a = t.P.Eventfd().Value, b = t.P.Eventfd().Value;
        Set(t, vm, 999, 0x1000, 4).Should().Be((KvmResult)Errno.EBADF);
        Set(t, vm, vm, 0x1000, 4).Should().Be((KvmResult)Errno.EINVAL);
        Set(t, vm, 999, 0x1000, 4, Off).Should().Be((KvmResult)Errno.EBADF);
        Set(t, vm, a, 0x1000, 4, Match, 1).Should().Be(KvmResult.Ok);
        Set(t, vm, b, 0x1000, 4, Match, 1).Should().Be((KvmResult)Errno.EEXIST);
        Set(t, vm, b, 0x1000, 4, Match, 2).Should().Be(KvmResult.Ok);
        Set(t, vm, b, 0x1000, 4).Should().Be((KvmResult)Errno.EEXIST, "a wildcard collides with any value");
        Set(t, vm, b, 0x1000, 2).Should().Be(KvmResult.Ok, "another length does not");
        Set(t, vm, b, 0x1000, 0).Should().Be((KvmResult)Errno.EEXIST, "no length collides with any");
        t.VmOf(vm).Bus(KvmBus.FastMmio)!.Count.Should().Be(0);
        Set(t, vm, b, 0x1000, 0, Pio).Should().Be(KvmResult.Ok, "another bus");
        t.P.Ioctl(vm, KVM_IOEVENTFD, 0).Should().Be((KvmResult)Errno.EFAULT);
        t.AssertClean();
    }

    [Fact]
    public void They_do_not_count_towards_the_limit_of_a_bus()
    {
        using var t = new TestHost();
        int vm = t.Vm(), e = t.P.Eventfd().Value;
        for (ulong i = 0; i < 1200; i++) Set(t, vm, e, 0x1000 + i * 8, 4).Should().Be(KvmResult.Ok);
        t.AssertClean();
    }

    [Fact]
    public void A_half_done_registration_is_undone()
    {
        using var t = new TestHost();
        int vm = t.Vm(), e = t.P.Eventfd().Value;
        t.Host.Faults.Fail("kmalloc:kvm_io_bus", nth: 2);
        Set(t, vm, e, 0x1000, 0).Should().Be((KvmResult)Errno.ENOMEM);
        t.VmOf(vm).Bus(KvmBus.Mmio)!.Count.Should().Be(0);
        t.Host.Faults.Fail("kzalloc:_ioeventfd");
        Set(t, vm, e, 0x1000, 4).Should().Be((KvmResult)Errno.ENOMEM);
        t.AssertClean();
    }

    [Fact]
    public void Interrupt_calls_of_a_VM_without_interrupt_controller()
    {
        using var t = new TestHost();
        int vm = t.Vm(), e = t.P.Eventfd().Value;
        foreach (uint r in new[] { KVM_IRQ_LINE, KVM_IRQ_LINE_STATUS, KVM_SET_GSI_ROUTING, KVM_IRQFD, KVM_SIGNAL_MSI })
            t.P.Ioctl(vm, r, 0).Should().Be((KvmResult)Errno.EFAULT);
        var level = default(kvm_irq_level);
        t.P.Ioctl(vm, KVM_IRQ_LINE, ref level).Should().Be((KvmResult)Errno.ENXIO);
        t.P.Ioctl(vm, KVM_IRQ_LINE_STATUS, ref level).Should().Be((KvmResult)Errno.ENXIO);
        var routing = new kvm_irq_routing { nr = 9999 };
        t.P.Ioctl(vm, KVM_SET_GSI_ROUTING, ref routing).Should().Be((KvmResult)Errno.EINVAL);
        var msi = default(kvm_msi);
        t.P.Ioctl(vm, KVM_SIGNAL_MSI, ref msi).Should().Be((KvmResult)Errno.EINVAL);
        var irqfd = new kvm_irqfd { fd = 999, flags = 4 };
        t.P.Ioctl(vm, KVM_IRQFD, ref irqfd).Should().Be((KvmResult)Errno.EINVAL);
        irqfd.flags = 0;
        t.P.Ioctl(vm, KVM_IRQFD, ref irqfd).Should().Be((KvmResult)Errno.EINVAL, "not allowed, before the descriptor is looked at");
        irqfd.flags = 1;
        t.P.Ioctl(vm, KVM_IRQFD, ref irqfd).Should().Be((KvmResult)Errno.EBADF);
        irqfd.fd = (uint)vm;
        t.P.Ioctl(vm, KVM_IRQFD, ref irqfd).Should().Be((KvmResult)Errno.EINVAL);
        irqfd.fd = (uint)e;
        t.P.Ioctl(vm, KVM_IRQFD, ref irqfd).Should().Be(KvmResult.Ok, "nothing bound is no error");
    }
}

public unsafe class eventfd_
{
    [Fact]
    public void Counts_and_is_polled()
    {
        using var t = new TestHost();
        int e = t.P.Eventfd(3, 0x800).Value;
        t.P.Poll(e).Should().Be((KvmResult)5);
        ulong v = 0;
        t.P.Read(e, (ulong)&v, 7).Should().Be((KvmResult)Errno.EINVAL);
        t.P.Read(e, (ulong)&v, 8).Should().Be((KvmResult)8);
        v.Should().Be(3);
        t.P.Read(e, (ulong)&v, 8).Should().Be((KvmResult)Errno.EAGAIN);
        t.P.Poll(e).Should().Be((KvmResult)4);
        v = ulong.MaxValue;
        t.P.Write(e, (ulong)&v, 8).Should().Be((KvmResult)Errno.EINVAL);
        v = ulong.MaxValue - 1;
        t.P.Write(e, (ulong)&v, 8).Should().Be((KvmResult)8);
        t.P.Poll(e).Should().Be((KvmResult)1, "full: not writable");
        v = 1;
        t.P.Write(e, (ulong)&v, 8).Should().Be((KvmResult)Errno.EAGAIN);
        t.P.Eventfd(0, 2).Should().Be((KvmResult)Errno.EINVAL);
        t.P.Poll(99).Should().Be((KvmResult)Errno.EBADF);
    }

    [Fact]
    public void A_semaphore_gives_one_at_a_time()
    {
        using var t = new TestHost();
        int e = t.P.Eventfd(2, 1 | 0x800).Value;
        ulong v = 0;
        t.P.Read(e, (ulong)&v, 8);
        v.Should().Be(1);
        t.P.Read(e, (ulong)&v, 8).Should().Be((KvmResult)8);
        t.P.Read(e, (ulong)&v, 8).Should().Be((KvmResult)Errno.EAGAIN);
    }

    [Fact]
    public void A_reader_sleeps_without_a_CPU_until_a_write_or_a_signal()
    {
        using var t = new TestHost(cpus: 1);
        int e = t.P.Eventfd().Value;
        ulong got = 0;
        KvmResult r = 0;
        HostTask? task = null;
        void Reader()
        {
            ulong v = 0;
            task = t.P.Task;
            r = t.P.Read(e, (ulong)&v, 8);
            got = v;
        }

        var a = TestHost.Start(Reader);
        Thread.Sleep(10);
        ulong one = 5;
        t.P.Write(e, (ulong)&one, 8).Should().Be((KvmResult)8);
        TestHost.Join(a);
        (r, got).Should().Be(((KvmResult)8, 5UL));
        var b = TestHost.Start(Reader);
        TestHost.Await(() => task is { State: TaskState.Interruptible, Cpu: null });
        task!.Send(10);
        TestHost.Join(b);
        r.Should().Be((KvmResult)Errno.EINTR);
        t.AssertClean();
    }
}
