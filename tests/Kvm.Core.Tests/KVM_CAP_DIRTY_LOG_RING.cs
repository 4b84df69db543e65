using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Core.Tests;

public unsafe class KVM_CAP_DIRTY_LOG_RING_
{
    private static KvmResult Enable(TestHost t, int vm, ulong bytes)
    {
        var cap = new kvm_enable_cap { cap = KVM_CAP_DIRTY_LOG_RING };
        cap.args[0] = bytes;
        return t.P.Ioctl(vm, KVM_ENABLE_CAP, (ulong)&cap);
    }

    [Theory]
    [InlineData(4096, 0)]
    [InlineData(1 << 20, 0)]
    [InlineData(0, 22)]
    [InlineData(4095, 22)]
    [InlineData(6144, 22)] // no power of two
    [InlineData(2048, 22)] // less than a page
    [InlineData(1 << 21, 7)]
    public void Checks_the_size(ulong bytes, int errno)
    {
        using var t = new TestHost();
        Enable(t, t.Vm(), bytes).Should().Be((KvmResult)(-errno));
    }

    [Fact]
    public void The_size_must_exceed_the_reserved_entries()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        t.Arch.PmlEntries = 512; // 64 + 512 entries of 16 bytes
        Enable(t, vm, 8192).Should().Be((KvmResult)Errno.EINVAL);
        Enable(t, vm, 16384).Should().Be(KvmResult.Ok);
    }

    [Fact]
    public void Can_be_set_once_and_before_the_first_vCPU()
    {
        using var t = new TestHost();
        int a = t.Vm(), b = t.Vm();
        Enable(t, a, 4096).Should().Be(KvmResult.Ok);
        Enable(t, a, 4096).Should().Be((KvmResult)Errno.EINVAL);
        t.Vcpu(b);
        Enable(t, b, 4096).Should().Be((KvmResult)Errno.EINVAL);
        t.P.Ioctl(b, KVM_RESET_DIRTY_RINGS).Should().Be((KvmResult)Errno.EINVAL);
    }

    [Fact]
    public void Pages_go_through_the_ring_to_user_space_and_back()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        Enable(t, vm, 4096).Should().Be(KvmResult.Ok);
        int fd = t.Vcpu(vm);
        t.SetRegion(vm, 2, 0x100000, 200 * 4096, t.P.MapAnonymous(200 * 4096), KVM_MEM_LOG_DIRTY_PAGES).Should().Be(KvmResult.Ok);
        t.Host.Pages.VmallocInUse.Should().Be(0, "a ring replaces the bitmap");
        ulong map = (ulong)t.P.Mmap(4096, 3, Fcntl.MAP_SHARED, fd, 64 * 4096).Raw;
        var ring = (kvm_dirty_gfn*)map;
        ulong[] dirty = [3, 4, 2, 150, 151];
        t.Arch.Run = v =>
        {
            v.Load();
            foreach (ulong g in dirty) v.MarkPageDirty(0x100 + g);
            v.Put();
            return 0;
        };
        t.P.Ioctl(fd, KVM_RUN);
        for (int i = 0; i < dirty.Length; i++)
        {
            ring[i].flags.Should().Be(KVM_DIRTY_GFN_F_DIRTY);
            ring[i].slot.Should().Be(2);
            ring[i].offset.Should().Be(dirty[i]);
        }

        t.VcpuOf(fd).DirtyRing!.Used.Should().Be(5);
        t.P.Ioctl(vm, KVM_RESET_DIRTY_RINGS).Should().Be(KvmResult.Ok, "nothing was harvested");
        for (int i = 0; i < 4; i++) ring[i].flags |= KVM_DIRTY_GFN_F_RESET;
        t.Arch.Calls.Clear();
        t.P.Ioctl(vm, KVM_RESET_DIRTY_RINGS).Should().Be((KvmResult)4);
        t.Arch.Calls.Should().Equal("protect 2 7", "protect 96 1");
        ring[0].flags.Should().Be(0);
        t.VcpuOf(fd).DirtyRing!.Used.Should().Be(1);
        var log = new kvm_dirty_log { slot = 2 };
        t.P.Ioctl(vm, KVM_GET_DIRTY_LOG, (ulong)&log).Should().Be((KvmResult)Errno.ENXIO);
        var clear = new kvm_clear_dirty_log { slot = 9999 };
        t.P.Ioctl(vm, KVM_CLEAR_DIRTY_LOG, (ulong)&clear).Should().Be((KvmResult)Errno.ENXIO);
        t.AssertClean();
    }

    [Fact]
    public void Its_pages_are_mapped_shared_and_not_executable()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        Enable(t, vm, 8192).Should().Be(KvmResult.Ok);
        int fd = t.Vcpu(vm);
        t.P.Mmap(4096, 3, Fcntl.MAP_PRIVATE, fd, 64 * 4096).Should().Be((KvmResult)Errno.EINVAL);
        t.P.Mmap(4096, 7, Fcntl.MAP_SHARED, fd, 65 * 4096).Should().Be((KvmResult)Errno.EINVAL);
        t.P.Mmap(65 * 4096, 3, Fcntl.MAP_PRIVATE, fd).Should().Be((KvmResult)Errno.EINVAL, "the last page is in the ring");
        t.P.Mmap(64 * 4096, 3, Fcntl.MAP_PRIVATE, fd).IsOk.Should().BeTrue();
        t.P.Mmap(4096, 3, Fcntl.MAP_PRIVATE, fd, 66 * 4096).IsOk.Should().BeTrue("behind the ring");
        t.P.Mmap(8192, 3, Fcntl.MAP_SHARED, fd, 64 * 4096).IsOk.Should().BeTrue();
        t.AssertClean();
    }
}
