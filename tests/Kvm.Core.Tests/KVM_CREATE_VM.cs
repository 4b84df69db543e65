using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Core.Tests;

public class KVM_CREATE_VM_
{
    [Fact]
    [Trait("Seed", "S4-1")]
    [Trait("Seed", "S4-2")]
    public void Gives_a_close_on_exec_descriptor_named_kvm_vm()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        t.P.Files.CloseOnExec(vm).Should().BeTrue();
        t.InKernel(() =>
        {
            KvmFile f = t.P.Files.Get(vm)!;
            f.Name.Should().Be("anon_inode:kvm-vm");
            f.Flags.Should().Be(Fcntl.O_RDWR);
            f.Put();
        });
        t.AssertClean();
    }

    [Fact]
    public void Refuses_a_machine_type() // kvm_arch_init_vm
    {
        using var t = new TestHost();
        t.P.Ioctl(t.Dev, KVM_CREATE_VM, 1).Should().Be((KvmResult)Errno.EINVAL);
        t.AssertClean();
    }

    /// <summary>Every label of kvm_dev_ioctl_create_vm and kvm_create_vm: the errno, and nothing left behind.</summary>
    [Theory]
    [InlineData("get_unused_fd", 1, Errno.EMFILE)]
    [InlineData("kvm_arch_alloc_vm", 1, Errno.ENOMEM)]
    [InlineData("arch:alloc_vm", 1, Errno.ENOMEM)]
    [InlineData("init_srcu_struct", 1, Errno.ENOMEM)]
    [InlineData("init_srcu_struct", 2, Errno.ENOMEM)]
    [InlineData("kzalloc:kvm_io_bus", 1, Errno.ENOMEM)]
    [InlineData("kzalloc:kvm_io_bus", 4, Errno.ENOMEM)]
    [InlineData("arch:init_vm", 1, Errno.ENOMEM)]
    [InlineData("mmu_notifier_register", 1, Errno.ENOMEM)]
    [InlineData("alloc_page:coalesced_mmio_ring", 1, Errno.ENOMEM)]
    [InlineData("debugfs:debugfs_stat_data", 1, Errno.ENOMEM)]
    [InlineData("debugfs:stat_data", 1, Errno.ENOMEM)]
    [InlineData("debugfs:stat_data", 60, Errno.ENOMEM)]
    [InlineData("arch:create_vm_debugfs", 1, Errno.ENOMEM)]
    [InlineData("arch:post_init_vm", 1, Errno.EAGAIN)]
    [InlineData("anon_inode_getfile:kvm-vm", 1, Errno.ENOMEM)]
    public void Undoes_everything_when_it_fails(string point, int nth, Errno errno)
    {
        using var t = new TestHost();
        int files = t.P.Files.Count;
        t.Host.Faults.Fail(point, nth);
        t.CreateVm().Should().Be((KvmResult)errno);
        t.Host.Faults.Hits.Should().Be(1);
        t.P.Files.Count.Should().Be(files);
        t.Host.Debugfs.List("kvm").Should().NotContain(p => p.Contains('-'));
        t.Vendor.RefCount.Should().Be(1, "only the open /dev/kvm is left");
        t.Host.Pages.InUse.Should().Be(0);
        t.Kvm.UsageCount.Should().Be(0);
        t.Arch.Enabled.Should().BeEmpty();
        t.Arch.Count("free_vm").Should().Be(t.Arch.Count("alloc_vm") - (point == "arch:alloc_vm" ? 1 : 0));
        t.P.Mm.NotifierCount.Should().Be(0);
        t.Host.Faults.Clear();
        t.Vm().Should().Be(files, "the descriptor was given back");
        t.AssertClean();
    }

    [Fact]
    public void A_failed_fd_check_comes_before_everything_else() // kvm_dev_ioctl_create_vm: get_unused_fd_flags first
    {
        using var t = new TestHost();
        t.P.Files.Limit = t.P.Files.Count;
        t.P.Ioctl(t.Dev, KVM_CREATE_VM, 99).Should().Be((KvmResult)Errno.EMFILE);
        t.Arch.Count("alloc_vm").Should().Be(0);
    }

    [Fact]
    public void The_systems_file_limit_gives_ENFILE_after_the_VM_was_made()
    {
        using var t = new TestHost(options: new HostOptions { CpuCount = 2, FileMax = 1 });
        t.CreateVm().Should().Be((KvmResult)Errno.ENFILE);
        t.Arch.Count("destroy_vm").Should().Be(1);
        t.AssertClean();
    }

    [Fact]
    public void A_fatal_signal_during_notifier_registration_gives_EINTR()
    {
        using var t = new TestHost();
        t.Host.Faults.OnReached("mmu_notifier_register", _ => HostTask.Current.Send(HostTask.SIGKILL));
        t.CreateVm().Should().Be((KvmResult)Errno.EINTR);
        t.P.Task.Killed.Should().BeTrue();
        t.AssertClean();
    }

    [Fact]
    public void Destruction_runs_in_the_kernels_order()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        t.SetRegion(vm, 0, 0, 0x1000, t.P.MapAnonymous(0x1000)).Should().Be(KvmResult.Ok);
        t.Vcpu(vm);
        t.Arch.Calls.Clear();
        foreach (int fd in t.P.Files.Open.Where(f => f != t.Dev)) t.P.Close(fd);
        t.Arch.Calls.Should().Equal("sync_events", "pre_destroy_vm", "flush_shadow_all", "destroy_vm", "vcpu_destroy 0", "free_memslot 0", "free_vm",
            "disable 0", "disable 1");
        t.AssertClean();
    }

    [Fact]
    public void Uevents_count_VMs()
    {
        using var t = new TestHost();
        var events = new List<string>();
        t.Kvm.Uevent += e => events.Add(string.Join(' ', e));
        int a = t.Vm();
        int b = t.Vm();
        t.P.Close(a);
        int pid = t.P.Task.Pid;
        events.Should().Equal(
            $"CREATED=1 COUNT=1 EVENT=create PID={pid} STATS_PATH=/kvm/{pid}-{a}",
            $"CREATED=2 COUNT=2 EVENT=create PID={pid} STATS_PATH=/kvm/{pid}-{b}",
            $"CREATED=2 COUNT=1 EVENT=destroy PID={pid} STATS_PATH=/kvm/{pid}-{a}");
    }

    [Fact]
    public void A_thousand_VMs_live_in_one_process_and_all_memory_comes_back()
    {
        using var t = new TestHost();
        for (int i = 0; i < 1000; i++) t.Vcpu(t.Vm());
        t.Kvm.UsageCount.Should().Be(1000);
        t.AssertClean();
    }

    [Fact]
    public void Exit_of_the_process_closes_everything()
    {
        using var t = new TestHost();
        t.Vcpu(t.Vm());
        t.P.Exit();
        t.Host.Pages.InUse.Should().Be(0);
        t.Kvm.UsageCount.Should().Be(0);
    }
}
