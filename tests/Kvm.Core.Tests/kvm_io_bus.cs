using Kvm.Abi;

namespace Kvm.Core.Tests;

public unsafe class kvm_io_bus_
{
    private sealed class Dev(string name, List<string> log, bool takes = true) : KvmIoDevice
    {
        public override KvmResult Write(KvmVcpu? vcpu, ulong address, int length, void* value)
        {
            log.Add($"{name} w {address:x} {length}");
            return takes ? 0 : Errno.EOPNOTSUPP;
        }

        public override KvmResult Read(KvmVcpu? vcpu, ulong address, int length, void* value)
        {
            log.Add($"{name} r {address:x} {length}");
            *(byte*)value = 0x5a;
            return takes ? 0 : Errno.EOPNOTSUPP;
        }

        public override void Destructor() => log.Add($"{name} gone");
    }

    private static void With(Action<KvmVm, List<string>> body)
    {
        using var t = new TestHost();
        int vm = t.Vm();
        KvmVm kvm = t.VmOf(vm);
        var log = new List<string>();
        t.InKernel(() =>
        {
            using var _ = kvm.SlotsLock.Enter();
            body(kvm, log);
        });
        t.AssertClean();
    }

    [Fact]
    public void An_access_reaches_the_device_that_contains_it() => With((kvm, log) =>
    {
        kvm.IoBusRegisterDev(KvmBus.Pio, 0x3f8, 8, new Dev("com1", log)).Should().Be(KvmResult.Ok);
        kvm.IoBusRegisterDev(KvmBus.Pio, 0x2f8, 8, new Dev("com2", log)).Should().Be(KvmResult.Ok);
        byte v = 0;
        kvm.IoBusWrite(null, KvmBus.Pio, 0x3f8, 1, &v).Should().Be(KvmResult.Ok);
        kvm.IoBusRead(null, KvmBus.Pio, 0x2ff, 1, &v).Should().Be(KvmResult.Ok);
        v.Should().Be(0x5a);
        kvm.IoBusWrite(null, KvmBus.Pio, 0x3ff, 2, &v).Should().Be((KvmResult)Errno.EOPNOTSUPP, "it reaches over the end");
        kvm.IoBusWrite(null, KvmBus.Pio, 0x3f7, 1, &v).Should().Be((KvmResult)Errno.EOPNOTSUPP);
        kvm.IoBusWrite(null, KvmBus.Mmio, 0x3f8, 1, &v).Should().Be((KvmResult)Errno.EOPNOTSUPP);
        log.Should().Equal("com1 w 3f8 1", "com2 r 2ff 1");
        kvm.IoBusGetDev(KvmBus.Pio, 0x3f9).Should().NotBeNull();
        kvm.IoBusGetDev(KvmBus.Pio, 0x400).Should().BeNull();
    });

    [Fact]
    public void All_overlapping_devices_are_tried_until_one_takes_it() => With((kvm, log) =>
    {
        kvm.IoBusRegisterDev(KvmBus.Mmio, 0x1000, 0x1000, new Dev("a", log, takes: false));
        kvm.IoBusRegisterDev(KvmBus.Mmio, 0x1000, 0x1000, new Dev("b", log));
        kvm.IoBusRegisterDev(KvmBus.Mmio, 0x1000, 0x1000, new Dev("c", log));
        byte v = 0;
        kvm.IoBusWrite(null, KvmBus.Mmio, 0x1800, 1, &v).Should().Be(KvmResult.Ok);
        log.Should().Equal("a w 1800 1", "b w 1800 1");
        log.Clear();
        kvm.IoBusWriteCookie(null, KvmBus.Mmio, 0x1800, 1, &v, 2).Should().Be((KvmResult)2);
        log.Should().Equal("c w 1800 1");
        kvm.IoBusWriteCookie(null, KvmBus.Mmio, 0x1800, 1, &v, 77).Should().Be((KvmResult)1, "a garbage cookie falls back to the search");
    });

    [Fact]
    public void A_device_of_length_0_matches_its_exact_address_with_any_length() => With((kvm, log) =>
    {
        kvm.IoBusRegisterDev(KvmBus.Mmio, 0x1000, 0, new Dev("any", log));
        byte* v = stackalloc byte[8];
        kvm.IoBusWrite(null, KvmBus.Mmio, 0x1000, 8, v).Should().Be(KvmResult.Ok);
        kvm.IoBusWrite(null, KvmBus.Mmio, 0x1001, 1, v).Should().Be((KvmResult)Errno.EOPNOTSUPP);
    });

    [Fact]
    public void Unregistering_takes_one_device_and_destruction_tells_the_rest() => With((kvm, log) =>
    {
        var a = new Dev("a", log);
        kvm.IoBusRegisterDev(KvmBus.Mmio, 0x1000, 8, a);
        kvm.IoBusRegisterDev(KvmBus.Mmio, 0x2000, 8, new Dev("b", log));
        kvm.IoBusUnregisterDev(KvmBus.Mmio, a).Should().Be(KvmResult.Ok);
        kvm.IoBusUnregisterDev(KvmBus.Mmio, a).Should().Be(KvmResult.Ok, "not there is no error");
        kvm.IoBusGetDev(KvmBus.Mmio, 0x1000).Should().BeNull();
        kvm.IoBusGetDev(KvmBus.Mmio, 0x2000).Should().NotBeNull();
        kvm.AddIoeventfd(KvmBus.Mmio, 1);
        kvm.Bus(KvmBus.Mmio)!.IoeventfdCount.Should().Be(1);
    });
}
