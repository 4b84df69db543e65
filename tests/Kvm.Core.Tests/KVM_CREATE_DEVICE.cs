using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Core.Tests;

public unsafe class KVM_CREATE_DEVICE_
{
    private static KvmResult Create(TestHost t, int vm, uint type, out int fd, uint flags = 0)
    {
        var cd = new kvm_create_device { type = type, flags = flags };
        KvmResult r = t.P.Ioctl(vm, KVM_CREATE_DEVICE, (ulong)&cd);
        fd = (int)cd.fd;
        return r;
    }

    private static KvmResult Attr(TestHost t, int fd, uint request, uint group, ulong attr, ulong addr = 0)
    {
        var a = new kvm_device_attr { group = group, attr = attr, addr = addr };
        return t.P.Ioctl(fd, request, (ulong)&a);
    }

    [Fact]
    public void Only_VFIO_exists_and_only_once_per_VM()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        for (uint type = 0; type < 16; type++)
            Create(t, vm, type, out _, KVM_CREATE_DEVICE_TEST).Should().Be(type == 4 ? KvmResult.Ok : (KvmResult)Errno.ENODEV);
        Create(t, vm, uint.MaxValue, out _).Should().Be((KvmResult)Errno.ENODEV);
        Create(t, vm, 4, out int fd).Should().Be(KvmResult.Ok);
        t.P.Files.CloseOnExec(fd).Should().BeTrue();
        Create(t, vm, 4, out _).Should().Be((KvmResult)Errno.EBUSY);
        t.VmOf(vm).UsersCount.Should().Be(2);
        t.P.Close(fd);
        Create(t, vm, 4, out fd).Should().Be(KvmResult.Ok, "closing the device removes it");
        t.P.Close(vm);
        t.Kvm.UsageCount.Should().Be(1);
        t.P.Close(fd);
        t.AssertClean();
    }

    [Fact]
    public void Attributes_answer_as_the_kernels_VFIO_device()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        Create(t, vm, 4, out int fd);
        int file = vm;
        Attr(t, fd, KVM_HAS_DEVICE_ATTR, 1, 1).Should().Be(KvmResult.Ok);
        Attr(t, fd, KVM_HAS_DEVICE_ATTR, 1, 2).Should().Be(KvmResult.Ok);
        Attr(t, fd, KVM_HAS_DEVICE_ATTR, 1, 3).Should().Be((KvmResult)Errno.ENXIO);
        Attr(t, fd, KVM_HAS_DEVICE_ATTR, 2, 1).Should().Be((KvmResult)Errno.ENXIO);
        Attr(t, fd, KVM_GET_DEVICE_ATTR, 1, 1).Should().Be((KvmResult)Errno.EPERM);
        t.P.Ioctl(fd, KVM_GET_DEVICE_ATTR, 0).Should().Be((KvmResult)Errno.EPERM, "before the copy");
        t.P.Ioctl(fd, KVM_SET_DEVICE_ATTR, 0).Should().Be((KvmResult)Errno.EFAULT);
        Attr(t, fd, KVM_SET_DEVICE_ATTR, 1, 1, 8).Should().Be((KvmResult)Errno.EFAULT);
        Attr(t, fd, KVM_SET_DEVICE_ATTR, 1, 1, (ulong)&file).Should().Be((KvmResult)Errno.EINVAL, "not a VFIO file");
        Attr(t, fd, KVM_SET_DEVICE_ATTR, 1, 2, (ulong)&file).Should().Be((KvmResult)Errno.ENOENT);
        file = 999;
        Attr(t, fd, KVM_SET_DEVICE_ATTR, 1, 1, (ulong)&file).Should().Be((KvmResult)Errno.EBADF);
        t.P.Ioctl(fd, KVM_RUN).Should().Be((KvmResult)Errno.ENOTTY);
        t.P.Mmap(4096, 3, Fcntl.MAP_SHARED, fd).Should().Be((KvmResult)Errno.ENODEV);
        HostProcess child = t.P.Fork();
        child.Ioctl(fd, KVM_RUN).Should().Be((KvmResult)Errno.EIO);
        child.Exit();
        t.AssertClean();
    }

    [Theory]
    [InlineData("kzalloc:kvm_device", Errno.ENOMEM)]
    [InlineData("kzalloc:kvm_vfio", Errno.ENOMEM)]
    [InlineData("get_unused_fd", Errno.EMFILE)]
    [InlineData("anon_inode_getfile:kvm-vfio", Errno.ENOMEM)]
    public void Undoes_everything_when_it_fails(string point, Errno errno)
    {
        using var t = new TestHost();
        int vm = t.Vm();
        t.Host.Faults.Fail(point);
        Create(t, vm, 4, out _).Should().Be((KvmResult)errno);
        t.VmOf(vm).UsersCount.Should().Be(1);
        t.VmOf(vm).Devices.Should().BeEmpty();
        t.Host.Faults.Clear();
        Create(t, vm, 4, out _).Should().Be(KvmResult.Ok);
        t.AssertClean();
    }
}
