using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;

namespace Kvm.Core.Tests;

public class printk_
{
    [Fact]
    public void Records_have_levels_and_times_and_old_ones_fall_out()
    {
        using var h = new Host(new HostOptions { LogRecords = 16 });
        h.Log.Info("one\ntwo\n");
        h.Log.Err("three");
        h.Log.Records.Select(r => (r.Level, r.Text)).Should().Equal((LogLevel.Info, "one"), (LogLevel.Info, "two"), (LogLevel.Err, "three"));
        h.Log.Dmesg().Should().MatchRegex(@"\[ +\d+\.\d{6}\] three\n$");
        for (int i = 0; i < 20; i++) h.Log.Info("x" + i);
        h.Log.Records.Should().HaveCount(16);
        h.Log.Lines.First().Should().Be("x4");
        h.Log.Clear();
        h.Log.Records.Should().BeEmpty();
    }

    [Fact]
    public void Once_prints_once()
    {
        using var h = new Host();
        h.Log.Once(LogLevel.Warning, "w").Should().BeTrue();
        h.Log.Once(LogLevel.Warning, "w").Should().BeFalse();
        h.Log.WarnOnce(false, "k", "no").Should().BeFalse();
        h.Log.WarnOnce(true, "k", "yes").Should().BeTrue();
        h.Log.WarnOnce(true, "k", "yes").Should().BeTrue();
        h.Log.Lines.Should().Equal("w", "------------[ cut here ]------------", "yes");
    }
}

public class fault_injection_
{
    [Fact]
    public void Rules_count_uses_of_a_kind_or_of_one_tag()
    {
        var f = new FaultInjection();
        f.ShouldFail("a").Should().BeFalse();
        f.Fail("a", nth: 2, times: 2);
        new[] { f.ShouldFail("a", "x"), f.ShouldFail("a", "y"), f.ShouldFail("a"), f.ShouldFail("a") }.Should().Equal(false, true, true, false);
        f.Clear();
        f.Fail("a:x");
        f.ShouldFail("a", "y").Should().BeFalse();
        f.ShouldFail("a", "x").Should().BeTrue();
        f.ShouldFail("a", "x").Should().BeFalse();
        f.FailAlways("b");
        f.ShouldFail("b").Should().BeTrue();
        f.ShouldFail("b").Should().BeTrue();
        f.Hits.Should().Be(3);
    }

    [Fact]
    public void Points_can_be_counted_and_observed()
    {
        using var t = new TestHost();
        t.Host.Faults.StartCounting();
        string? reached = null;
        t.Host.Faults.OnReached("alloc_page:kvm_run", p => reached = p);
        t.Vcpu(t.Vm());
        reached.Should().Be("alloc_page:kvm_run");
        t.Host.Faults.Counts.Should().Contain("kmem_cache_zalloc:kvm_vcpu", 1).And.Contain("init_srcu_struct", 2).And.Contain("get_unused_fd", 2);
        t.Host.Faults.OnReached("alloc_page:kvm_run", null);
        t.Host.Faults.Clear();
    }

    /// <summary>Whatever point fails at whatever use, creation either works or leaves nothing behind.</summary>
    [Fact]
    public void Every_point_of_a_VMs_life_can_fail_at_every_use()
    {
        IReadOnlyDictionary<string, long> counts;
        using (var t = new TestHost())
        {
            t.Host.Faults.StartCounting();
            Life(t, out _);
            counts = t.Host.Faults.Counts;
        }

        int failures = 0;
        foreach (var (point, uses) in counts)
        {
            foreach (long nth in new HashSet<long> { 1, (uses + 1) / 2, uses })
            {
                using var t = new TestHost();
                t.Host.Faults.Fail(point, nth);
                Life(t, out bool failed);
                t.Host.Faults.Hits.Should().Be(1, point);
                if (failed) failures++;
                t.Host.Faults.Clear();
                t.AssertClean();
            }
        }

        counts.Should().HaveCountGreaterThan(25);
        failures.Should().BeGreaterThan(25);
    }

    private static void Life(TestHost t, out bool failed)
    {
        failed = true;
        KvmResult vm = t.CreateVm();
        if (vm.IsError) return;
        KvmResult vcpu = t.P.Ioctl(vm.Value, KVM_CREATE_VCPU, 1);
        if (vcpu.IsError) return;
        if (t.SetRegion(vm.Value, 0, 0, 0x4000, t.P.MapAnonymous(0x4000), KVM_MEM_LOG_DIRTY_PAGES).IsError) return;
        if (t.SetRegion(vm.Value, 0, 0x10000, 0x4000, t.VmOf(vm.Value).Memslots().ById(0)!.UserspaceAddr, KVM_MEM_LOG_DIRTY_PAGES).IsError) return;
        if (t.SetRegion(vm.Value, 0, 0, 0, 0).IsError) return;
        if (t.P.Ioctl(vcpu.Value, KVM_GET_STATS_FD).IsError) return;
        failed = t.P.Ioctl(vcpu.Value, KVM_RUN).IsError;
    }
}

public class function_trace_
{
    [Fact]
    public void Prints_trees_with_modules_counts_and_CPUs()
    {
        using var t = new TestHost(cpus: 2);
        t.P.Task.SetAffinity(0);
        using FunctionTraceSession s = FunctionTrace.Start(t.Host);
        t.Vm();
        s.Dispose();
        string text = s.Format();
        text.Should().StartWith($"[task vmm-{t.P.Task.Pid}]\nkvm_dev_ioctl [kvm] {{      <- cpu0\n  get_unused_fd_flags\n");
        text.Should().Contain("  init_srcu_struct   x2\n");
        text.Should().Contain("  on_each_cpu_cond_mask {\n    smp_call_function_many_cond {\n      hardware_enable_nolock [kvm]\n    }\n  }\n");
        text.Should().Contain("  debugfs_create_file {   x60\n    kmem_cache_alloc\n  }\n");
        text.Should().Contain("  kvm_coalesced_mmio_init [kvm] {\n    __alloc_pages\n  }\n");
        text.Should().EndWith("\n[task idle cpu1]\nhardware_enable_nolock [kvm]      <- cpu1\n");
    }

    [Fact]
    public void Records_one_host_only_and_nothing_when_off()
    {
        using var a = new TestHost();
        using var b = new TestHost();
        using FunctionTraceSession s = FunctionTrace.Start(a.Host);
        b.Vm();
        s.Groups.Should().BeEmpty();
        a.Vm();
        s.Groups.Should().NotBeEmpty();
        s.Dispose();
        int n = s.Flatten().Count();
        a.Vm();
        s.Flatten().Count().Should().Be(n);
    }

    [Fact]
    public void Hotplug_shows_in_the_stopper_and_on_the_idle_CPU()
    {
        using var t = new TestHost();
        t.Vm();
        using FunctionTraceSession s = FunctionTrace.Start(t.Host);
        t.Host.CpuDown(1);
        t.Host.CpuUp(1);
        s.Dispose();
        string text = s.Format();
        text.Should().MatchRegex(@"\[task migration/1-\d+\]\nkvm_dying_cpu \[kvm\] \{      <- cpu1\n  hardware_disable_nolock \[kvm\]\n\}\n");
        text.Should().Contain("[task idle cpu1]\nkvm_starting_cpu [kvm] {      <- cpu1\n  hardware_enable_nolock [kvm]\n}\n");
    }

    [Fact]
    public void A_memory_region_call_has_the_recorded_order()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        using FunctionTraceSession s = FunctionTrace.Start(t.Host);
        t.SetRegion(vm, 0, 0, 0x1000, 0x1000);
        s.Dispose();
        FunctionTraceNode set = s.Flatten().Single(n => n.Name == "kvm_set_memslot");
        set.Children.Select(c => c.Name).Where(n => n.StartsWith("kvm", StringComparison.Ordinal))
            .Should().Equal("kvm_replace_memslot", "kvm_swap_active_memslots", "kvm_replace_memslot");
    }

    [Fact]
    public void Online_states_run_in_the_hotplug_threads()
    {
        using var h = new Host(new HostOptions { CpuCount = 2 });
        var log = new List<string>();
        h.CpuHotplugSetup("clk", c => Note("up", c), c => Note("down", c), out IDisposable? state).Should().Be(KvmResult.Ok);
        h.CpuDown(1);
        h.CpuUp(1);
        state!.Dispose();
        log.Should().Equal("up 0 cpuhp/0", "up 1 cpuhp/1", "down 1 cpuhp/1", "up 1 cpuhp/1", "down 0 cpuhp/0", "down 1 cpuhp/1");

        KvmResult Note(string what, HostCpu c)
        {
            HostTask.Current.IrqDepth.Should().Be(0);
            h.CurrentCpu.Should().BeSameAs(c);
            log.Add($"{what} {c.Id} {HostTask.Current.Name}");
            return 0;
        }
    }
}

public class tracepoints_
{
    [Fact]
    public void Reach_listeners_with_the_kernels_text()
    {
        using var t = new TestHost();
        int fd = t.Vcpu(t.Vm());
        unsafe { t.VcpuOf(fd).Run->exit_reason = 5; }
        var seen = new List<string>();
        HostTask me = t.P.Task;
        void Handler(in TracepointRecord r)
        {
            if (r.Task == me) seen.Add($"{r.Name}: {r.Text}");
        }

        Tracepoints.Event += Handler;
        try
        {
            Tracepoints.Enabled.Should().BeTrue();
            t.P.Ioctl(fd, KVM_RUN);
            t.Arch.Run = _ => Errno.EINTR;
            t.P.Ioctl(fd, KVM_RUN);
            t.Arch.Run = _ => Errno.EFAULT;
            t.P.Ioctl(fd, KVM_RUN);
        }
        finally
        {
            Tracepoints.Event -= Handler;
        }

        seen.Should().Equal("kvm_userspace_exit: reason KVM_EXIT_HLT (5)", "kvm_userspace_exit: reason restart (4)", "kvm_userspace_exit: reason error (14)");
    }
}

public class KvmResult_
{
    [Fact]
    public void Follows_the_kernels_convention()
    {
        KvmResult ok = 5, fail = Errno.EBUSY, big = unchecked((long)0x7f12_3456_7000), edge = -4095, beyond = -4096;
        (ok.IsOk, ok.Value, ok.Errno).Should().Be((true, 5, (Errno)0));
        (fail.IsError, fail.Raw, fail.Errno).Should().Be((true, -16L, Errno.EBUSY));
        big.IsError.Should().BeFalse();
        edge.IsError.Should().BeTrue();
        beyond.IsError.Should().BeFalse("an address near the top is no error");
        fail.ToString().Should().Be("-EBUSY");
        ok.ToString().Should().Be("5");
        KvmResult.Error(Errno.EIO).Should().Be((KvmResult)Errno.EIO);
    }
}
