using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Core.Tests;

public unsafe class KVM_REGISTER_COALESCED_MMIO_
{
    private static KvmResult Zone(TestHost t, int vm, uint request, ulong addr, uint size, uint pio = 0)
    {
        var z = new kvm_coalesced_mmio_zone { addr = addr, size = size, pio = pio };
        return t.P.Ioctl(vm, request, (ulong)&z);
    }

    private static KvmResult Write(TestHost t, int vm, ulong addr, int len, ulong value, KvmBus bus = KvmBus.Mmio)
    {
        KvmResult r = 0;
        t.InKernel(() =>
        {
            ulong v = value;
            int i = t.VmOf(vm).Srcu.ReadLock();
            r = t.VmOf(vm).IoBusWrite(null, bus, addr, len, &v);
            t.VmOf(vm).Srcu.ReadUnlock(i);
        });
        return r;
    }

    [Fact]
    public void Writes_inside_a_zone_land_in_the_ring_that_user_space_maps()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        int vcpu = t.Vcpu(vm);
        Zone(t, vm, KVM_REGISTER_COALESCED_MMIO, 0xa0000, 0x100).Should().Be(KvmResult.Ok);
        Zone(t, vm, KVM_REGISTER_COALESCED_MMIO, 0x70, 2, pio: 1).Should().Be(KvmResult.Ok);
        var ring = (kvm_coalesced_mmio_ring*)(ulong)t.P.Mmap(4096, 3, Fcntl.MAP_SHARED, vcpu, 2 * 4096).Raw;
        Write(t, vm, 0xa0010, 4, 0x11223344).Should().Be(KvmResult.Ok);
        Write(t, vm, 0x70, 1, 0x8f, KvmBus.Pio).Should().Be(KvmResult.Ok);
        Write(t, vm, 0xa00fe, 4, 0).Should().Be((KvmResult)Errno.EOPNOTSUPP, "not fully inside");
        Write(t, vm, 0x9ffff, 1, 0).Should().Be((KvmResult)Errno.EOPNOTSUPP);
        Write(t, vm, 0x70, 1, 0).Should().Be((KvmResult)Errno.EOPNOTSUPP, "the other bus");
        ring->first.Should().Be(0);
        ring->last.Should().Be(2);
        kvm_coalesced_mmio* e = kvm_coalesced_mmio_ring.coalesced_mmio(ring);
        (e[0].phys_addr, e[0].len, e[0].pio).Should().Be((0xa0010UL, 4u, 0u));
        (*(uint*)((byte*)&e[0] + 16)).Should().Be(0x11223344);
        (e[1].phys_addr, e[1].len, e[1].pio).Should().Be((0x70UL, 1u, 1u));
        t.AssertClean();
    }

    [Fact]
    public void A_full_ring_and_a_wild_index_are_refused()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        Zone(t, vm, KVM_REGISTER_COALESCED_MMIO, 0, 0x1000).Should().Be(KvmResult.Ok);
        var ring = (kvm_coalesced_mmio_ring*)t.VmOf(vm).CoalescedMmio.RingPage;
        KvmCoalescedMmio.Max.Should().Be(170);
        // (first - last - 1) % 170 is computed in 32 unsigned bits, and 2^32 % 170 is 86: from an empty ring at 0 the room ends after 85 entries.
        for (int i = 0; i < 85; i++) Write(t, vm, 8, 8, (ulong)i).Should().Be(KvmResult.Ok);
        Write(t, vm, 8, 8, 0).Should().Be((KvmResult)Errno.EOPNOTSUPP);
        ring->first = 1;
        Write(t, vm, 8, 8, 0).Should().Be(KvmResult.Ok);
        ring->last.Should().Be(86);
        (ring->first, ring->last) = (100, 99);
        Write(t, vm, 8, 8, 0).Should().Be((KvmResult)Errno.EOPNOTSUPP, "one entry stays free");
        (ring->first, ring->last) = (100, 169);
        Write(t, vm, 8, 8, 0).Should().Be(KvmResult.Ok);
        ring->last.Should().Be(0, "the ring wraps");
        ring->last = 170;
        Write(t, vm, 8, 8, 0).Should().Be((KvmResult)Errno.EOPNOTSUPP);
        ring->last = uint.MaxValue;
        Write(t, vm, 8, 8, 0).Should().Be((KvmResult)Errno.EOPNOTSUPP);
        t.AssertClean();
    }

    [Fact]
    public void UNREGISTER_drops_the_zones_that_contain_the_range_and_never_fails()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        Zone(t, vm, KVM_REGISTER_COALESCED_MMIO, 0x1000, 0x100);
        Zone(t, vm, KVM_REGISTER_COALESCED_MMIO, 0x2000, 0x100);
        Zone(t, vm, KVM_UNREGISTER_COALESCED_MMIO, 0x9000, 1).Should().Be(KvmResult.Ok);
        t.VmOf(vm).CoalescedMmio.ZoneCount.Should().Be(2);
        Zone(t, vm, KVM_UNREGISTER_COALESCED_MMIO, 0x1010, 0x10, pio: 1).Should().Be(KvmResult.Ok);
        t.VmOf(vm).CoalescedMmio.ZoneCount.Should().Be(2);
        Zone(t, vm, KVM_UNREGISTER_COALESCED_MMIO, 0x1000, 0x100).Should().Be(KvmResult.Ok);
        t.VmOf(vm).CoalescedMmio.ZoneCount.Should().Be(1);
        Write(t, vm, 0x1000, 4, 0).Should().Be((KvmResult)Errno.EOPNOTSUPP);
        Write(t, vm, 0x2000, 4, 0).Should().Be(KvmResult.Ok);
        t.AssertClean();
    }

    [Theory]
    [InlineData(KVM_REGISTER_COALESCED_MMIO)]
    [InlineData(KVM_UNREGISTER_COALESCED_MMIO)]
    public void Pio_must_be_0_or_1(uint request)
    {
        using var t = new TestHost();
        int vm = t.Vm();
        Zone(t, vm, request, 0, 1, pio: 2).Should().Be((KvmResult)Errno.EINVAL);
        Zone(t, vm, request, 0, 1, pio: 1).Should().Be(KvmResult.Ok);
    }

    [Fact]
    public void The_thousand_and_first_device_is_ENOSPC()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        for (uint i = 0; i < 1000; i++) Zone(t, vm, KVM_REGISTER_COALESCED_MMIO, i * 16, 16).Should().Be(KvmResult.Ok);
        Zone(t, vm, KVM_REGISTER_COALESCED_MMIO, 1u << 20, 16).Should().Be((KvmResult)Errno.ENOSPC);
        Zone(t, vm, KVM_REGISTER_COALESCED_MMIO, 0, 16, pio: 1).Should().Be(KvmResult.Ok, "each bus has its own limit");
        Write(t, vm, 500 * 16 + 8, 8, 1).Should().Be(KvmResult.Ok);
        t.AssertClean();
    }

    [Theory]
    [InlineData("kzalloc:kvm_coalesced_mmio_dev")]
    [InlineData("kmalloc:kvm_io_bus")]
    public void Allocation_failures_are_ENOMEM(string point)
    {
        using var t = new TestHost();
        int vm = t.Vm();
        t.Host.Faults.Fail(point);
        Zone(t, vm, KVM_REGISTER_COALESCED_MMIO, 0, 16).Should().Be((KvmResult)Errno.ENOMEM);
        t.VmOf(vm).CoalescedMmio.ZoneCount.Should().Be(0);
        t.AssertClean();
    }

    [Fact]
    public void A_failed_shrink_removes_the_whole_bus()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        Zone(t, vm, KVM_REGISTER_COALESCED_MMIO, 0x1000, 0x100);
        Zone(t, vm, KVM_REGISTER_COALESCED_MMIO, 0x2000, 0x100);
        t.Host.Faults.Fail("kmalloc:kvm_io_bus");
        Zone(t, vm, KVM_UNREGISTER_COALESCED_MMIO, 0x1000, 0x100).Should().Be(KvmResult.Ok);
        t.VmOf(vm).CoalescedMmio.ZoneCount.Should().Be(0);
        t.Host.Log.Lines.Should().Contain("kvm: failed to shrink bus, removing it completely");
        Write(t, vm, 0x2000, 4, 0).Should().Be((KvmResult)Errno.ENOMEM);
        Zone(t, vm, KVM_REGISTER_COALESCED_MMIO, 0, 16).Should().Be((KvmResult)Errno.ENOMEM);
        t.AssertClean();
    }
}
