using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Core.Tests;

public unsafe class KVM_CREATE_VCPU_
{
    [Fact]
    [Trait("Seed", "S4-5")]
    [Trait("Seed", "S4-14")]
    [Trait("Seed", "S4-18")]
    [Trait("Seed", "S4-19")]
    public void Gives_a_close_on_exec_descriptor_named_after_the_id()
    {
        KVM_CREATE_VCPU.Should().Be(0xAE41);
        using var t = new TestHost();
        int vm = t.Vm();
        int fd = t.Vcpu(vm, 7);
        t.P.Files.CloseOnExec(fd).Should().BeTrue();
        t.InKernel(() =>
        {
            KvmFile f = t.P.Files.Get(fd)!;
            f.Name.Should().Be("anon_inode:kvm-vcpu:7");
            f.Flags.Should().Be(Fcntl.O_RDWR);
            f.Put();
        });
        t.VcpuOf(fd).VcpuId.Should().Be(7);
        t.AssertClean();
    }

    [Fact]
    [Trait("Seed", "S4-2")]
    public void The_legacy_profile_has_the_old_inode_name()
    {
        using var t = new TestHost(options: new HostOptions { CpuCount = 1, Profile = KernelProfile.Legacy });
        int fd = t.Vcpu(t.Vm());
        t.InKernel(() =>
        {
            KvmFile f = t.P.Files.Get(fd)!;
            f.Name.Should().Be("anon_inode:kvm-vcpu");
            f.Put();
        });
    }

    [Fact]
    [Trait("Seed", "S4-7")]
    [Trait("Seed", "S4-12")]
    [Trait("Seed", "S4-22")]
    public void The_id_must_be_below_the_maximum()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        t.P.Ioctl(vm, KVM_CREATE_VCPU, 4096).Should().Be((KvmResult)Errno.EINVAL);
        t.Arch.Count("vcpu_precreate").Should().Be(0, "before anything is done");
        t.P.Ioctl(vm, KVM_CREATE_VCPU, 4095).IsOk.Should().BeTrue();
        // The argument is an unsigned int: the upper half is cut off.
        t.P.Ioctl(vm, KVM_CREATE_VCPU, 1UL << 32).IsOk.Should().BeTrue();
        t.VmOf(vm).GetVcpuById(0).Should().NotBeNull();
        t.AssertClean();
    }

    [Fact]
    [Trait("Seed", "S4-6")]
    [Trait("Seed", "S4-9")]
    [Trait("Seed", "S4-28")]
    public void More_than_max_vcpus_are_refused_before_allocation()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        t.VmOf(vm).MaxVcpus.Should().Be(1024);
        t.VmOf(vm).MaxVcpus = 2;
        t.Vcpu(vm, 0);
        t.Vcpu(vm, 1);
        t.Arch.Calls.Clear();
        t.P.Ioctl(vm, KVM_CREATE_VCPU, 2).Should().Be((KvmResult)Errno.EINVAL);
        t.P.Ioctl(vm, KVM_CREATE_VCPU, 1).Should().Be((KvmResult)Errno.EINVAL, "the count is checked before the id");
        t.Arch.Calls.Should().BeEmpty();
        t.AssertClean();
    }

    [Fact]
    [Trait("Seed", "S4-9")]
    [Trait("Seed", "S4-22")]
    public void The_legacy_profile_has_255_of_both()
    {
        using var t = new TestHost(options: new HostOptions { CpuCount = 1, Profile = KernelProfile.Legacy });
        int vm = t.Vm();
        t.VmOf(vm).MaxVcpus.Should().Be(255);
        t.P.Ioctl(vm, KVM_CREATE_VCPU, 255).Should().Be((KvmResult)Errno.EINVAL);
        t.Vcpu(vm, 254);
        t.AssertClean();
    }

    [Fact]
    [Trait("Seed", "S4-29")]
    [Trait("Seed", "S4-38")]
    [Trait("Seed", "S4-39")]
    public void A_taken_id_is_found_after_full_construction()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        t.Vcpu(vm, 5);
        long pages = t.Host.Pages.InUse;
        t.Arch.Calls.Clear();
        t.P.Ioctl(vm, KVM_CREATE_VCPU, 5).Should().Be((KvmResult)Errno.EEXIST);
        t.Arch.Calls.Should().Equal("vcpu_precreate", "vcpu_create", "vcpu_destroy 5");
        t.Host.Pages.InUse.Should().Be(pages);
        t.VmOf(vm).CreatedVcpus.Should().Be(1);
        int second = t.Vcpu(vm, 2);
        t.VcpuOf(second).VcpuIdx.Should().Be(1, "the index is the order of creation, not the id");
        t.AssertClean();
    }

    /// <summary>Each label of the unwinding chain: the errno, counts and pages as before.</summary>
    [Theory]
    [InlineData("arch:vcpu_precreate", Errno.EINVAL, false)]
    [InlineData("kmem_cache_zalloc:kvm_vcpu", Errno.ENOMEM, false)]
    [InlineData("alloc_page:kvm_run", Errno.ENOMEM, false)]
    [InlineData("arch:vcpu_create", Errno.ENOMEM, false)]
    [InlineData("vmalloc:dirty_ring", Errno.ENOMEM, true)]
    [InlineData("alloc_page:dirty_ring", Errno.ENOMEM, true)]
    [InlineData("xa_reserve:vcpu_array", Errno.ENOMEM, true)]
    [InlineData("get_unused_fd", Errno.EMFILE, true)]
    [InlineData("anon_inode_getfile:kvm-vcpu:3", Errno.ENOMEM, true)]
    [Trait("Seed", "S4-23")]
    [Trait("Seed", "S4-25")]
    [Trait("Seed", "S4-30")]
    [Trait("Seed", "S4-32")]
    [Trait("Seed", "S4-36")]
    [Trait("Seed", "S4-37")]
    [Trait("Seed", "S4-75")]
    [Trait("Seed", "S4-77")]
    [Trait("Seed", "S4-115")]
    public void Undoes_everything_when_it_fails(string point, Errno errno, bool destroyed)
    {
        using var t = new TestHost();
        int vm = t.Vm();
        EnableRing(t, vm);
        t.Vcpu(vm, 0);
        long pages = t.Host.Pages.InUse;
        int users = t.VmOf(vm).UsersCount, files = t.P.Files.Count;
        t.Arch.Calls.Clear();
        t.Host.Faults.Fail(point);
        t.P.Ioctl(vm, KVM_CREATE_VCPU, 3).Should().Be((KvmResult)errno);
        t.Host.Faults.Hits.Should().Be(1);
        t.Host.Pages.InUse.Should().Be(pages);
        t.VmOf(vm).UsersCount.Should().Be(users);
        t.VmOf(vm).CreatedVcpus.Should().Be(1);
        t.VmOf(vm).OnlineVcpus.Should().Be(1);
        t.P.Files.Count.Should().Be(files);
        t.Arch.Count("vcpu_destroy 3").Should().Be(destroyed ? 1 : 0);
        t.VmOf(vm).Lock.IsLocked.Should().BeFalse();
        t.Host.Faults.Clear();
        t.Vcpu(vm, 3);
        t.AssertClean();
    }

    [Fact]
    [Trait("Seed", "S4-31")]
    public void Each_vCPU_descriptor_holds_the_VM()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        KvmVm kvm = t.VmOf(vm);
        kvm.UsersCount.Should().Be(1);
        int a = t.Vcpu(vm, 0), b = t.Vcpu(vm, 1);
        kvm.UsersCount.Should().Be(3);
        int dup = t.P.Dup(a).Value;
        kvm.UsersCount.Should().Be(3, "a dup shares the file");
        t.P.Close(vm);
        t.P.Close(a);
        t.Arch.Count("destroy_vm").Should().Be(0);
        t.P.Close(dup);
        kvm.UsersCount.Should().Be(1);
        t.P.Close(b);
        t.Arch.Count("destroy_vm").Should().Be(1);
        t.AssertClean();
    }

    [Fact]
    [Trait("Seed", "S4-33")]
    [Trait("Seed", "S4-34")]
    [Trait("Seed", "S4-35")]
    [Trait("Seed", "S4-116")]
    public void The_descriptor_works_before_the_vCPU_is_in_the_VM_and_the_pointer_before_the_count()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        KvmVm kvm = t.VmOf(vm);
        int fd = t.P.Files.Count;
        bool seen = false;
        var watcher = TestHost.Start(() =>
        {
            for (int i = 0; i < 5_000_000 && !seen; i++)
            {
                int n = kvm.OnlineVcpus;
                if (n == 0) continue;
                kvm.GetVcpu(n - 1).Should().NotBeNull();
                seen = true;
            }
        });
        t.Vcpu(vm, 0).Should().Be(fd);
        TestHost.Join(watcher);
        t.Arch.Calls.Should().ContainInOrder("vcpu_create", "vcpu_postcreate");
        t.AssertClean();
    }

    [Fact]
    public void Two_threads_with_one_id_make_one_vCPU()
    {
        using var t = new TestHost(cpus: 4);
        int vm = t.Vm();
        using var barrier = new Barrier(2);
        // Both have constructed their vCPU when the first takes the lock to publish it.
        t.Host.Faults.OnReached("alloc_page:kvm_run", _ => barrier.SignalAndWait(60_000));
        var results = new KvmResult[2];
        Thread[] threads = [.. Enumerable.Range(0, 2).Select(i => TestHost.Start(() => results[i] = t.P.Ioctl(vm, KVM_CREATE_VCPU, 1)))];
        TestHost.Join(threads);
        results.Count(r => r.IsOk).Should().Be(1);
        results.Count(r => r == (KvmResult)Errno.EEXIST).Should().Be(1);
        t.VmOf(vm).CreatedVcpus.Should().Be(1);
        t.AssertClean();
    }

    [Fact]
    [Trait("Seed", "S4-24")]
    [Trait("Seed", "S4-26")]
    public void Construction_runs_without_the_VMs_lock()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        bool? locked = null;
        t.Host.Faults.OnReached("arch:vcpu_create", _ => locked = t.VmOf(vm).Lock.IsLocked);
        t.Vcpu(vm);
        locked.Should().BeFalse();
        t.AssertClean();
    }

    [Fact]
    [Trait("Seed", "S4-74")]
    [Trait("Seed", "S4-76")]
    [Trait("Seed", "S4-78")]
    public void A_fresh_vCPU_has_the_generic_initial_state()
    {
        using var t = new TestHost();
        int fd = t.Vcpu(t.Vm(), 2);
        FakeVcpu v = t.VcpuOf(fd);
        v.Pid.Should().BeNull();
        v.InSpinLoop.Should().BeFalse();
        v.DyEligible.Should().BeFalse();
        v.Preempted.Should().BeFalse();
        v.Ready.Should().BeFalse();
        v.Mode.Should().Be(VcpuMode.OUTSIDE_GUEST_MODE);
        v.StatsId.Should().Be($"kvm-{t.P.Task.Pid}/vcpu-2");
        ((ulong)v.Run % 4096).Should().Be(0);
        new ReadOnlySpan<byte>(v.Run, 4096).IndexOfAnyExcept((byte)0).Should().Be(-1, "the page is zeroed");
    }

    [Fact]
    [Trait("Seed", "S4-20")]
    [Trait("Seed", "S4-21")]
    public void Lseek_succeeds_and_read_and_write_are_EINVAL()
    {
        using var t = new TestHost();
        int fd = t.Vcpu(t.Vm());
        t.P.Lseek(fd, 100, 0).Should().Be(KvmResult.Ok);
        t.P.Read(fd, 0, 1).Should().Be((KvmResult)Errno.EINVAL);
        t.P.Write(fd, 0, 1).Should().Be((KvmResult)Errno.EINVAL);
    }

    internal static void EnableRing(TestHost t, int vm, ulong bytes = 4096)
    {
        var cap = new kvm_enable_cap { cap = KVM_CAP_DIRTY_LOG_RING };
        cap.args[0] = bytes;
        t.P.Ioctl(vm, KVM_ENABLE_CAP, (ulong)&cap).Should().Be(KvmResult.Ok);
    }
}
