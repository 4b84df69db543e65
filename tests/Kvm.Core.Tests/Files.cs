using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Core.Tests;

public unsafe class file_descriptors_
{
    [Fact]
    public void Dev_kvm_is_there_with_a_vendor_module_only()
    {
        using var t = new TestHost(load: false);
        t.P.Open("/dev/kvm").Should().Be((KvmResult)Errno.ENOENT);
        t.Host.Modules.Insert(t.Vendor).Should().Be(KvmResult.Ok);
        MiscDevice d = t.Host.Devices.Find("/dev/kvm")!;
        (d.Major, d.Minor, d.Mode).Should().Be((10, 232, 0x180));
        int fd = t.P.Open("/dev/kvm").Value;
        t.Host.Modules.Remove("kvm_fake").Should().Be((KvmResult)Errno.EAGAIN, "an open file pins the module");
        t.P.Close(fd);
        t.Host.Modules.Remove("kvm_fake").Should().Be(KvmResult.Ok);
        t.P.Open("/dev/kvm").Should().Be((KvmResult)Errno.ENOENT);
    }

    [Theory]
    [InlineData(-1)]
    [InlineData(99)]
    [InlineData(int.MaxValue)]
    [InlineData(int.MinValue)]
    public void A_bad_descriptor_is_EBADF(int fd)
    {
        using var t = new TestHost();
        t.P.Ioctl(fd, KVM_CREATE_VM).Should().Be((KvmResult)Errno.EBADF);
        t.P.Close(fd).Should().Be((KvmResult)Errno.EBADF);
        t.P.Dup(fd).Should().Be((KvmResult)Errno.EBADF);
        t.P.Mmap(4096, 3, Fcntl.MAP_SHARED, fd).Should().Be((KvmResult)Errno.EBADF);
        t.P.Read(fd, 0, 0).Should().Be((KvmResult)Errno.EBADF);
        t.P.Write(fd, 0, 0).Should().Be((KvmResult)Errno.EBADF);
        t.P.Lseek(fd, 0, 0).Should().Be((KvmResult)Errno.EBADF);
        t.P.Pread(fd, 0, 0, 0).Should().Be((KvmResult)Errno.EBADF);
        t.AssertClean();
    }

    [Fact]
    public void Descriptors_are_the_lowest_free_ones()
    {
        using var t = new TestHost();
        int a = t.Vm(), b = t.Vm(), c = t.Vm();
        (b, c).Should().Be((a + 1, a + 2));
        t.P.Close(b);
        t.Vm().Should().Be(b);
        t.P.Close(a);
        t.P.Dup(c).Value.Should().Be(a);
        t.AssertClean();
    }

    [Fact]
    public void The_limit_of_the_process_is_EMFILE()
    {
        using var t = new TestHost();
        t.P.Files.Limit = 3;
        t.Vm();
        int vm = t.Vm();
        t.CreateVm().Should().Be((KvmResult)Errno.EMFILE);
        t.P.Dup(vm).Should().Be((KvmResult)Errno.EMFILE);
        t.P.Open("/dev/kvm").Should().Be((KvmResult)Errno.EMFILE);
        t.P.Ioctl(vm, KVM_CREATE_VCPU, 0).Should().Be((KvmResult)Errno.EMFILE);
        t.P.Ioctl(vm, KVM_GET_STATS_FD).Should().Be((KvmResult)Errno.EMFILE);
        t.AssertClean();
    }

    [Fact]
    public void The_limit_of_the_system_is_ENFILE()
    {
        using var t = new TestHost(options: new HostOptions { CpuCount = 1, FileMax = 2 });
        int vm = t.Vm();
        t.P.Ioctl(vm, KVM_CREATE_VCPU, 0).Should().Be((KvmResult)Errno.ENFILE);
        t.P.Open("/dev/kvm").Should().Be((KvmResult)Errno.ENFILE);
        t.P.Files.Count.Should().Be(2);
        t.VmOf(vm).UsersCount.Should().Be(1);
        t.AssertClean();
    }

    [Fact]
    public void A_close_during_a_call_keeps_the_file_alive_until_it_returns()
    {
        using var t = new TestHost(cpus: 2);
        int vm = t.Vm(), fd = t.Vcpu(vm);
        t.P.Close(vm);
        using var inside = new ManualResetEventSlim();
        using var go = new ManualResetEventSlim();
        t.Arch.Run = _ =>
        {
            inside.Set();
            go.Wait();
            return 0;
        };
        var run = TestHost.Start(() => t.P.Ioctl(fd, KVM_RUN).Should().Be(KvmResult.Ok));
        inside.Wait();
        t.P.Close(fd).Should().Be(KvmResult.Ok);
        t.Arch.Count("destroy_vm").Should().Be(0);
        t.P.Ioctl(fd, KVM_RUN).Should().Be((KvmResult)Errno.EBADF);
        go.Set();
        TestHost.Join(run);
        t.Arch.Count("destroy_vm").Should().Be(1);
        t.AssertClean();
    }

    [Fact]
    public void Closing_and_reusing_a_descriptor_under_load_never_mixes_files()
    {
        using var t = new TestHost(cpus: 2);
        bool stop = false;
        var caller = TestHost.Start(() =>
        {
            while (!Volatile.Read(ref stop))
            {
                KvmResult r = t.P.Ioctl(t.Dev + 1, KVM_GET_API_VERSION);
                (r == (KvmResult)Errno.EBADF || r == (KvmResult)12 || r == (KvmResult)Errno.ENOTTY).Should().BeTrue(r.ToString());
            }
        });
        for (int i = 0; i < 300; i++)
        {
            int fd = i % 2 == 0 ? t.Vm() : t.P.Open("/dev/kvm").Value;
            t.P.Close(fd);
        }

        Volatile.Write(ref stop, true);
        TestHost.Join(caller);
        t.AssertClean();
    }

    [Fact]
    public void Mmap_checks_its_arguments()
    {
        using var t = new TestHost();
        int vm = t.Vm(), vcpu = t.Vcpu(vm);
        t.P.Mmap(0, 3, Fcntl.MAP_SHARED, vcpu).Should().Be((KvmResult)Errno.EINVAL);
        t.P.Mmap(4096, 3, Fcntl.MAP_SHARED, vcpu, 1).Should().Be((KvmResult)Errno.EINVAL);
        t.P.Mmap(4096, 3, 0, vcpu).Should().Be((KvmResult)Errno.EINVAL);
        t.P.Mmap(4096, 3, Fcntl.MAP_SHARED, vm).Should().Be((KvmResult)Errno.ENODEV, "a VM can't be mapped");
        t.P.Mmap(4096, 3, Fcntl.MAP_SHARED, t.Dev).Should().Be((KvmResult)Errno.ENODEV);
        t.P.Munmap(1, 4096).Should().Be((KvmResult)Errno.EINVAL);
        t.P.Munmap(0x1000, 0).Should().Be((KvmResult)Errno.EINVAL);
        t.P.Munmap(0x10_0000_0000, 4096).Should().Be(KvmResult.Ok, "nothing there is no error");
        t.AssertClean();
    }

    [Fact]
    [Trait("Seed", "S4-76")]
    public void The_three_pages_of_a_vCPU_are_the_kernels_own()
    {
        using var t = new TestHost();
        int vm = t.Vm(), a = t.Vcpu(vm, 0), b = t.Vcpu(vm, 1);
        ulong size = (ulong)t.P.Ioctl(t.Dev, KVM_GET_VCPU_MMAP_SIZE).Raw;
        size.Should().Be(12288);
        byte* ma = (byte*)(ulong)t.P.Mmap(size, 3, Fcntl.MAP_SHARED, a).Raw;
        byte* mb = (byte*)(ulong)t.P.Mmap(size, 3, Fcntl.MAP_SHARED, b).Raw;
        FakeVcpu va = t.VcpuOf(a);
        va.Run->exit_reason = 77;
        ((kvm_run*)ma)->exit_reason.Should().Be(77);
        ((kvm_run*)ma)->immediate_exit = 1;
        va.Run->immediate_exit.Should().Be(1);
        ((kvm_run*)mb)->exit_reason.Should().Be(0);
        *(byte*)va.PioPage = 0x5a;
        ma[4096].Should().Be(0x5a);
        ma[8192] = 9;
        mb[8192].Should().Be(9, "the coalesced ring belongs to the VM");
        t.AssertClean();
    }

    [Fact]
    public void A_mapping_holds_its_file()
    {
        using var t = new TestHost();
        int vm = t.Vm(), fd = t.Vcpu(vm);
        ulong map = (ulong)t.P.Mmap(12288, 3, Fcntl.MAP_SHARED, fd).Raw;
        t.P.Close(fd);
        t.P.Close(vm);
        t.Arch.Count("destroy_vm").Should().Be(0);
        *(byte*)map = 1;
        t.P.Munmap(map + 4096, 4096).Should().Be(KvmResult.Ok, "a hole makes two mappings");
        t.P.Mm.Vmas.Should().HaveCount(2);
        t.P.Munmap(map, 4096);
        t.Arch.Count("destroy_vm").Should().Be(0);
        t.P.Munmap(map + 8192, 4096);
        t.Arch.Count("destroy_vm").Should().Be(1);
        t.AssertClean();
    }

    [Fact]
    [Trait("Seed", "S4-3")]
    [Trait("Seed", "S4-4")]
    [Trait("Seed", "S4-16")]
    [Trait("Seed", "S4-17")]
    public void Another_process_gets_EIO_for_every_call()
    {
        using var t = new TestHost();
        int vm = t.Vm(), vcpu = t.Vcpu(vm);
        HostProcess child = t.P.Fork();
        child.Ioctl(vm, KVM_CREATE_VCPU, 1).Should().Be((KvmResult)Errno.EIO);
        child.Ioctl(vm, 0x1234).Should().Be((KvmResult)Errno.EIO, "before the request is looked at");
        child.Ioctl(vcpu, KVM_RUN).Should().Be((KvmResult)Errno.EIO);
        child.Ioctl(vcpu, 0x1234).Should().Be((KvmResult)Errno.EIO);
        child.Ioctl(t.Dev, KVM_GET_API_VERSION).Should().Be((KvmResult)12, "the system descriptor is not bound");
        t.P.Close(vm);
        t.P.Close(vcpu);
        t.Arch.Count("destroy_vm").Should().Be(0, "the child has them too");
        child.Exit();
        t.Arch.Count("destroy_vm").Should().Be(1);
        t.AssertClean();
    }
}

public unsafe class system_ioctls_
{
    [Fact]
    public void Numbers_and_answers()
    {
        using var t = new TestHost();
        t.P.Ioctl(t.Dev, KVM_GET_API_VERSION).Should().Be((KvmResult)12);
        t.P.Ioctl(t.Dev, KVM_GET_API_VERSION, 1).Should().Be((KvmResult)Errno.EINVAL);
        t.P.Ioctl(t.Dev, KVM_GET_VCPU_MMAP_SIZE).Should().Be((KvmResult)12288);
        t.P.Ioctl(t.Dev, KVM_GET_VCPU_MMAP_SIZE, 1).Should().Be((KvmResult)Errno.EINVAL);
        foreach (uint r in new[] { KVM_TRACE_ENABLE, KVM_TRACE_PAUSE, KVM_TRACE_DISABLE })
            t.P.Ioctl(t.Dev, r).Should().Be((KvmResult)Errno.EOPNOTSUPP);
        t.P.Ioctl(t.Dev, KVM_RUN).Should().Be((KvmResult)Errno.EINVAL, "unknown on this descriptor");
        t.P.Ioctl(t.Dev, 0).Should().Be((KvmResult)Errno.EINVAL);
    }

    [Fact]
    [Trait("Seed", "S4-6")]
    public void CHECK_EXTENSION_never_fails()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        t.P.Ioctl(t.Dev, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY).Should().Be((KvmResult)1);
        t.P.Ioctl(t.Dev, KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS).Should().Be((KvmResult)32764);
        t.P.Ioctl(t.Dev, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO).Should().Be((KvmResult)2);
        t.P.Ioctl(t.Dev, KVM_CHECK_EXTENSION, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2).Should().Be((KvmResult)3);
        t.P.Ioctl(t.Dev, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE).Should().Be((KvmResult)2);
        t.P.Ioctl(t.Dev, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING).Should().Be((KvmResult)(1 << 20));
        t.P.Ioctl(t.Dev, KVM_CHECK_EXTENSION, 0x1234).Should().Be((KvmResult)1);
        t.P.Ioctl(vm, KVM_CHECK_EXTENSION, 0x1234).Should().Be((KvmResult)2, "the architecture sees the VM");
        t.P.Ioctl(vm, KVM_CHECK_EXTENSION, ulong.MaxValue).Should().Be(KvmResult.Ok);
    }

    [Fact]
    public void Unknown_requests_are_ENOTTY_on_a_VM_and_EINVAL_on_a_vCPU()
    {
        using var t = new TestHost();
        int vm = t.Vm(), vcpu = t.Vcpu(vm);
        t.P.Ioctl(vm, 0xAEFE).Should().Be((KvmResult)Errno.ENOTTY);
        t.P.Ioctl(vm, KVM_SET_USER_MEMORY_REGION ^ (1u << 16)).Should().Be((KvmResult)Errno.ENOTTY, "another size is another request");
        t.P.Ioctl(vm, KVM_SET_MEMORY_REGION).Should().Be((KvmResult)Errno.ENOTTY);
        t.P.Ioctl(vcpu, 0xAEFE).Should().Be((KvmResult)Errno.EINVAL);
        t.P.Ioctl(vcpu, 0x5401).Should().Be((KvmResult)Errno.EINVAL, "TCGETS");
    }

    [Fact]
    public void Tables_are_in_number_order_and_without_duplicates()
    {
        foreach (byte[] numbers in new[]
                 {
                     KvmDeviceOperations.Table.Rows.Select(r => r.Number).ToArray(),
                     [.. KvmVmOperations.Table.Rows.Select(r => r.Number)],
                     [.. KvmVcpuOperations.Table.Rows.Select(r => r.Number)],
                 })
        {
            numbers.Should().BeInAscendingOrder();
        }

        var t = new IoctlTable<int> { };
        t.Add(0xAE05, "b", (_, _) => 0);
        Action act = () => t.Add(0xAE04, "a", (_, _) => 0);
        act.Should().Throw<ArgumentException>();
        foreach (var row in KvmVmOperations.Table) IoctlNames.Of(row.Request).Should().Be(row.Name);
    }

    [Fact]
    public void A_dead_VM_answers_EIO()
    {
        using var t = new TestHost();
        int vm = t.Vm(), vcpu = t.Vcpu(vm);
        t.InKernel(() => t.VmOf(vm).BugOn(true, "something impossible").Should().BeTrue());
        t.P.Ioctl(vm, KVM_CHECK_EXTENSION, 1).Should().Be((KvmResult)Errno.EIO);
        t.P.Ioctl(vcpu, KVM_RUN).Should().Be((KvmResult)Errno.EIO);
        t.VcpuOf(vcpu).TestRequest(KvmRequest.KVM_REQ_VM_DEAD).Should().BeTrue();
        t.Host.Log.Lines.Should().Contain("something impossible");
        t.AssertClean();
    }
}
