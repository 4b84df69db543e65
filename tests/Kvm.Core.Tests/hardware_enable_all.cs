using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Core.Tests;

public class hardware_enable_all_
{
    [Fact]
    [Trait("Seed", "S0-2")]
    public void No_CPU_is_enabled_by_loading_the_modules()
    {
        using var t = new TestHost();
        t.Arch.Enabled.Should().BeEmpty();
        t.Kvm.UsageCount.Should().Be(0);
    }

    [Fact]
    [Trait("Seed", "S0-3")]
    [Trait("Seed", "S0-7")]
    [Trait("Seed", "S0-8")]
    [Trait("Seed", "S0-16")]
    public void The_first_VM_enables_every_online_CPU_once_and_waits_for_all()
    {
        using var t = new TestHost(cpus: 5);
        t.Host.CpuDown(3).Should().Be(KvmResult.Ok);
        t.Vm();
        t.Arch.Calls.Where(c => c.StartsWith("enable", StringComparison.Ordinal)).Should().BeEquivalentTo(["enable 0", "enable 1", "enable 2", "enable 4"]);
        t.Kvm.CpusHardwareEnabled!.ToString().Should().Be("0-2,4");
    }

    [Fact]
    [Trait("Seed", "S0-4")]
    [Trait("Seed", "S0-5")]
    [Trait("Seed", "S0-6")]
    public void It_runs_inside_kvm_create_vm_after_kvm_arch_init_vm()
    {
        using var t = new TestHost();
        t.Arch.Calls.Clear();
        var session = Tracing.FunctionTrace.Start(t.Host);
        t.Vm();
        session.Dispose();
        t.Arch.Calls.TakeWhile(c => !c.StartsWith("enable", StringComparison.Ordinal)).Last().Should().Be("init_vm");
        var root = session.Groups.SelectMany(g => g.Roots).First(n => n.Name == "kvm_dev_ioctl");
        root.Children.Select(c => c.Name).Should().ContainInOrder("get_unused_fd_flags", "__vmalloc", "kvm_eventfd_init", "init_srcu_struct", "init_srcu_struct",
            "on_each_cpu_cond_mask", "__mmu_notifier_register", "kvm_coalesced_mmio_init", "debugfs_create_dir", "debugfs_create_file", "preempt_notifier_inc",
            "anon_inode_getfile", "kvm_uevent_notify_change.part.0", "fd_install");
    }

    [Fact]
    [Trait("Seed", "S0-11")]
    [Trait("Seed", "S0-13")]
    [Trait("Seed", "S0-14")]
    [Trait("Seed", "S0-20")]
    [Trait("Seed", "S0-21")]
    public void Further_VMs_only_count()
    {
        using var t = new TestHost();
        t.Kvm.UsageCount.Should().Be(0);
        int a = t.Vm();
        t.Arch.Calls.Clear();
        int b = t.Vm();
        t.Kvm.UsageCount.Should().Be(2);
        t.Arch.Calls.Should().NotContain(c => c.StartsWith("enable", StringComparison.Ordinal));
        t.P.Close(a);
        t.Kvm.UsageCount.Should().Be(1);
        t.Arch.Enabled.Should().HaveCount(2, "the last VM switches it off, not the first");
        t.P.Close(b);
        t.Arch.Enabled.Should().BeEmpty();
        t.AssertClean();
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(3)]
    [Trait("Seed", "S0-15")]
    [Trait("Seed", "S0-17")]
    [Trait("Seed", "S0-18")]
    [Trait("Seed", "S0-19")]
    [Trait("Seed", "S0-23")]
    [Trait("Seed", "S0-32")]
    public void One_failing_CPU_gives_EBUSY_and_undoes_the_others(int broken)
    {
        using var t = new TestHost(cpus: 4);
        t.Arch.BrokenCpus.Add(broken);
        t.CreateVm().Should().Be((KvmResult)Errno.EBUSY);
        t.Host.Log.Lines.Should().ContainSingle(l => l == $"kvm: enabling virtualization on CPU{broken} failed");
        t.Kvm.UsageCount.Should().Be(0);
        t.Kvm.CpusHardwareEnabled!.IsEmpty.Should().BeTrue();
        t.Arch.Enabled.Should().BeEmpty();
        t.Arch.Count($"disable {broken}").Should().Be(0, "a CPU that was not enabled is not disabled");
        t.Arch.BrokenCpus.Clear();
        t.Vm(); // the failure counter starts at 0 again
        t.Arch.Enabled.Should().HaveCount(4);
        t.AssertClean();
    }

    [Fact]
    [Trait("Seed", "S0-12")]
    public void Callers_wait_for_each_other_under_a_spinlock()
    {
        using var t = new TestHost(cpus: 4);
        using var inside = new ManualResetEventSlim();
        using var go = new ManualResetEventSlim();
        int other = -1;
        t.Host.Faults.OnReached("arch:enable 0", _ =>
        {
            HostTask.Current.PreemptCount.Should().BePositive("no sleeping inside");
            inside.Set();
            go.Wait();
        });
        var first = TestHost.Start(() => t.Vm());
        inside.Wait(60_000).Should().BeTrue();
        var second = TestHost.Start(() => other = t.Vm());
        TestHost.Await(() => t.Arch.Count("init_vm") == 2);
        Thread.Sleep(20);
        other.Should().Be(-1, "the count lock is held");
        go.Set();
        TestHost.Join(first, second);
        other.Should().BeGreaterThan(0);
        t.Kvm.UsageCount.Should().Be(2);
        t.Arch.Calls.Count(c => c.StartsWith("enable", StringComparison.Ordinal)).Should().Be(4);
        t.AssertClean();
    }

    [Fact]
    [Trait("Seed", "S0-22")]
    public void A_CPU_that_comes_online_is_enabled_only_while_VMs_live()
    {
        using var t = new TestHost(cpus: 3);
        t.Host.CpuDown(1);
        t.Host.CpuUp(1);
        t.Arch.Calls.Should().NotContain("enable 1");
        int vm = t.Vm();
        t.Host.CpuDown(1).Should().Be(KvmResult.Ok);
        t.Arch.Count("disable 1").Should().Be(1);
        t.Arch.Enabled.Keys.Should().BeEquivalentTo([0, 2]);
        t.Host.CpuUp(1).Should().Be(KvmResult.Ok);
        t.Arch.Enabled.Keys.Should().BeEquivalentTo([0, 1, 2]);
        t.P.Close(vm);
        t.Arch.Enabled.Should().BeEmpty();
        t.AssertClean();
    }

    [Fact]
    public void A_CPU_that_fails_when_it_comes_online_is_only_logged() // kvm_starting_cpu returns 0
    {
        using var t = new TestHost(cpus: 2);
        int vm = t.Vm();
        t.Host.CpuDown(1);
        t.Arch.BrokenCpus.Add(1);
        t.Host.CpuUp(1).Should().Be(KvmResult.Ok);
        t.Host.Log.Lines.Should().Contain("kvm: enabling virtualization on CPU1 failed");
        t.Kvm.CpusHardwareEnabled!.Test(1).Should().BeFalse();
        t.P.Close(vm);
        t.Arch.Count("disable 1").Should().Be(1, "only when it went offline");
    }

    [Fact]
    public void Suspend_disables_and_resume_enables()
    {
        using var t = new TestHost(cpus: 3);
        int vm = t.Vm();
        int asleep = -1;
        t.Host.SuspendResume(() => asleep = t.Arch.Enabled.Count).Should().Be(KvmResult.Ok);
        asleep.Should().Be(0);
        t.Arch.Enabled.Should().HaveCount(3);
        t.Host.OnlineCpuCount.Should().Be(3);
        t.P.Close(vm);
        t.AssertClean();
    }

    [Fact]
    public void Reboot_disables_everywhere_and_says_so()
    {
        using var t = new TestHost();
        t.Vm();
        t.Host.Reboot();
        t.Arch.Enabled.Should().BeEmpty();
        t.Kvm.Rebooting.Should().BeTrue();
        t.Host.Log.Lines.Should().Contain("kvm: exiting hardware virtualization");
        t.AssertClean();
    }
}
