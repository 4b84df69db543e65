using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;

namespace Kvm.Core.Tests;

public class kvm_init_
{
    [Fact]
    [Trait("Seed", "S1-11")]
    [Trait("Seed", "S1-16")]
    public void Sets_up_the_hardware_then_checks_every_online_CPU()
    {
        using var t = new TestHost(cpus: 4, load: false);
        t.Host.CpuDown(2);
        t.Host.Modules.Insert(t.Vendor).Should().Be(KvmResult.Ok);
        t.Arch.Calls.Should().Equal("init", "hardware_setup", "compat 0", "compat 1", "compat 3");
    }

    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    [Trait("Seed", "S1-12")]
    [Trait("Seed", "S1-16")]
    public void A_CPU_that_differs_refuses_the_module(int odd)
    {
        using var t = new TestHost(cpus: 4, load: false);
        t.Arch.OddCpus.Add(odd);
        t.Host.Modules.Insert(t.Vendor).Should().Be((KvmResult)Errno.EIO);
        t.Arch.Calls.TakeLast(2).Should().Equal("hardware_unsetup", "exit");
        t.Arch.Count($"compat {odd}").Should().Be(1);
        t.Arch.Calls.Should().NotContain($"compat {odd + 1}", "the first refusal ends it");
        t.P.Open("/dev/kvm").Should().Be((KvmResult)Errno.ENOENT);
        t.Host.Modules.Loaded.Select(m => m.Name).Should().Equal("kvm");
        t.Kvm.RefCount.Should().Be(0);
    }

    /// <summary>Every label of kvm_init.</summary>
    [Theory]
    [InlineData("arch:init", Errno.EEXIST, false)]
    [InlineData("alloc_workqueue", Errno.ENOMEM, false)]
    [InlineData("zalloc_cpumask_var", Errno.ENOMEM, false)]
    [InlineData("arch:hardware_setup", Errno.EIO, false)]
    [InlineData("cpuhp_setup_state", Errno.ENOMEM, true)]
    [InlineData("kmem_cache_create:kvm_vcpu", Errno.ENOMEM, true)]
    [InlineData("alloc_cpumask_var:cpu_kick_mask", Errno.ENOMEM, true)]
    [InlineData("kmem_cache_create:kvm_async_pf", Errno.ENOMEM, true)]
    [InlineData("kvm_vfio_ops_init", Errno.EEXIST, true)]
    [InlineData("misc_register", Errno.ENOMEM, true)]
    public void Undoes_everything_when_it_fails(string point, Errno errno, bool wasSetUp)
    {
        using var t = new TestHost(load: false);
        t.Host.Faults.Fail(point);
        t.Host.Modules.Insert(t.Vendor).Should().Be((KvmResult)errno);
        t.Host.Faults.Hits.Should().Be(1);
        t.Arch.Count("hardware_unsetup").Should().Be(wasSetUp ? 1 : 0);
        t.Arch.Count("exit").Should().Be(point == "arch:init" ? 0 : 1);
        t.Host.Devices.All.Should().BeEmpty();
        t.Host.Debugfs.Exists("kvm").Should().BeFalse();
        t.Kvm.CpusHardwareEnabled.Should().BeNull();
        t.Kvm.RefCount.Should().Be(0);
        t.Host.CpuDown(1);
        t.Host.CpuUp(1).Should().Be(KvmResult.Ok);
        t.Host.Faults.Clear();
        t.Host.Modules.Insert(t.Vendor).Should().Be(KvmResult.Ok, "it can be tried again");
    }

    [Fact]
    public void A_failed_device_registration_says_so()
    {
        using var t = new TestHost(load: false);
        t.Host.Faults.Fail("misc_register");
        t.Host.Modules.Insert(t.Vendor);
        t.Host.Log.Lines.Should().Contain("kvm: misc device register failed");
    }

    [Fact]
    public void Kvm_exit_visits_every_CPU_and_unloads()
    {
        using var t = new TestHost(load: false);
        t.Host.Modules.Insert(t.Vendor);
        using FunctionTraceSession trace = FunctionTrace.Start(t.Host);
        t.Host.Modules.Remove("kvm_fake").Should().Be(KvmResult.Ok);
        trace.Dispose();
        trace.Flatten().Count(n => n.Name == "hardware_disable_nolock").Should().Be(2);
        t.Arch.Calls.TakeLast(2).Should().Equal("hardware_unsetup", "exit");
        t.Arch.Calls.Should().NotContain(c => c.StartsWith("disable", StringComparison.Ordinal), "nothing was enabled");
        t.Host.Modules.Remove("kvm").Should().Be(KvmResult.Ok);
    }
}

public class modules_
{
    [Fact]
    public void References_keep_modules_loaded()
    {
        using var t = new TestHost();
        t.Host.Modules.Insert(new FakeVendor()).Should().Be((KvmResult)Errno.EEXIST);
        t.Host.Modules.Remove("kvm").Should().Be((KvmResult)Errno.EAGAIN, "the vendor module needs it");
        t.Host.Modules.Remove("nothing").Should().Be((KvmResult)Errno.ENOENT);
        int vm = t.Vm();
        t.P.Close(t.Dev);
        t.Host.Modules.Remove("kvm_fake").Should().Be((KvmResult)Errno.EAGAIN, "a VM is open");
        t.P.Close(vm);
        t.Host.Modules.Remove("kvm_fake").Should().Be(KvmResult.Ok);
        t.Host.Modules.Remove("kvm").Should().Be(KvmResult.Ok);
        t.Host.Modules.Insert(new FakeVendor()).Should().Be((KvmResult)Errno.ENOENT, "kvm is gone");
        t.AssertClean();
    }

    [Fact]
    public void Parameters_parse_as_the_kernel_parses_them()
    {
        using var t = new TestHost(load: false);
        t.Host.Modules.Insert(t.Vendor, "speed=0x10 flag=foo nonsense=3").Should().Be(KvmResult.Ok);
        t.Vendor.Speed.Should().Be(16);
        t.Vendor.Flag.Should().BeFalse("a bool looks at its first letter: f");
        t.Host.Log.Lines.Should().Contain("kvm_fake: unknown parameter 'nonsense' ignored");
        t.Vendor.Parameters.Find("flag")!.Text.Should().Be("N");
        t.Vendor.Parameters.Find("speed")!.Text.Should().Be("16");
        t.Vendor.Parameters.Write("speed", "1").Should().Be((KvmResult)Errno.EACCES, "0444");
        t.Vendor.Parameters.Write("flag", "Y\n").Should().Be(KvmResult.Ok);
        t.Vendor.Flag.Should().BeTrue();
        t.Vendor.Parameters.Write("flag", "x").Should().Be((KvmResult)Errno.EINVAL);
        t.Vendor.Parameters.Write("no", "x").Should().Be((KvmResult)Errno.ENOENT);
        t.Kvm.Parameters.Write("halt_poll_ns", "0").Should().Be(KvmResult.Ok);
        t.Kvm.HaltPollNs.Should().Be(0);
    }

    [Theory]
    [InlineData("speed=-3", -3)]
    [InlineData("speed=010", 8)]
    [InlineData("speed=2147483647", int.MaxValue)]
    public void Integers_have_bases(string text, int value)
    {
        using var t = new TestHost(load: false);
        t.Host.Modules.Insert(t.Vendor, text).Should().Be(KvmResult.Ok);
        t.Vendor.Speed.Should().Be(value);
    }

    [Theory]
    [InlineData("speed=foo", Errno.EINVAL)]
    [InlineData("speed=", Errno.EINVAL)]
    [InlineData("speed", Errno.EINVAL)]
    [InlineData("speed=08", Errno.EINVAL)]
    [InlineData("speed=2147483648", Errno.ERANGE)]
    [InlineData("flag=x", Errno.EINVAL)]
    public void Bad_values_refuse_the_module(string text, Errno errno)
    {
        using var t = new TestHost(load: false);
        t.Host.Modules.Insert(t.Vendor, text).Should().Be((KvmResult)errno);
        t.Arch.Calls.Should().BeEmpty();
        t.Host.Log.Lines.Last().Should().StartWith("kvm_fake: `").And.Contain("invalid for parameter");
    }
}

public unsafe class KVM_GET_STATS_FD_
{
    [Fact]
    public void A_VM_has_15_statistics_and_a_vCPU_45()
    {
        using var t = new TestHost();
        int vm = t.Vm(), vcpu = t.Vcpu(vm, 9);
        KvmVm kvm = t.VmOf(vm);
        kvm.Stat.MmuUnsync = 5;
        kvm.Stat.MaxMmuPageHashCollisions = 7;
        t.VcpuOf(vcpu).Stat.NotifyWindowExits = 3;
        t.VcpuOf(vcpu).Stat.HaltExits = 4;
        var (id, names, values) = ReadAll(t, vm);
        id.Should().Be($"kvm-{t.P.Task.Pid}");
        names.Should().HaveCount(15);
        values["mmu_unsync"].Should().Be(5);
        values["max_mmu_page_hash_collisions"].Should().Be(7);
        (id, names, values) = ReadAll(t, vcpu);
        id.Should().Be($"kvm-{t.P.Task.Pid}/vcpu-9");
        names.Should().HaveCount(45);
        values["notify_window_exits"].Should().Be(3);
        values["halt_exits"].Should().Be(4);
        values["guest_mode"].Should().Be(0);
        t.AssertClean();
    }

    private static (string Id, List<string> Names, Dictionary<string, ulong> Values) ReadAll(TestHost t, int fd)
    {
        int stats = t.P.Ioctl(fd, KVM_GET_STATS_FD).Value;
        var h = default(kvm_stats_header);
        t.P.Read(stats, (ulong)&h, (ulong)sizeof(kvm_stats_header)).Should().Be((KvmResult)24);
        (h.name_size, h.id_offset, h.desc_offset, h.data_offset).Should().Be((48u, 24u, 72u, 72 + h.num_desc * 64));
        byte* buffer = stackalloc byte[8192];
        int n = t.P.Pread(stats, (ulong)buffer, 8192, 0).Value;
        n.Should().BeGreaterThan((int)h.data_offset);
        string id = System.Runtime.InteropServices.Marshal.PtrToStringAnsi((nint)buffer + 24)!;
        var names = new List<string>();
        var values = new Dictionary<string, ulong>();
        for (int i = 0; i < h.num_desc; i++)
        {
            byte* d = buffer + h.desc_offset + i * 64;
            string name = System.Runtime.InteropServices.Marshal.PtrToStringAnsi((nint)d + 16)!;
            names.Add(name);
            values[name] = *(ulong*)(buffer + h.data_offset + ((kvm_stats_desc*)d)->offset);
        }

        t.P.Pread(stats, (ulong)buffer, 8192, n).Should().Be(KvmResult.Ok, "the end");
        t.P.Pread(stats, 8, 8, 0).Should().Be((KvmResult)Errno.EFAULT);
        t.P.Write(stats, (ulong)buffer, 1).Should().Be((KvmResult)Errno.EBADF, "read-only");
        return (id, names, values);
    }

    [Fact]
    public void The_descriptor_holds_the_VM()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        int stats = t.P.Ioctl(vm, KVM_GET_STATS_FD).Value;
        t.P.Close(vm);
        t.Kvm.UsageCount.Should().Be(1);
        t.P.Close(stats);
        t.AssertClean();
    }

    [Fact]
    public void Debugfs_shows_and_clears_sums()
    {
        using var t = new TestHost();
        int vm = t.Vm(), other = t.Vm();
        int vcpu = t.Vcpu(vm);
        t.VmOf(vm).Stat.MmuPteWrite = 2;
        t.VmOf(other).Stat.MmuPteWrite = 3;
        string dir = $"kvm/{t.P.Task.Pid}-{vm}";
        t.Host.Debugfs.Read("kvm/mmu_pte_write").Should().Be("5\n");
        t.Host.Debugfs.Read(dir + "/mmu_pte_write").Should().Be("2\n");
        t.Host.Debugfs.Mode("kvm/mmu_pte_write").Should().Be(0x1a4);
        t.Host.Debugfs.Mode("kvm/pages_4k").Should().Be(0x124);
        t.Host.Debugfs.Write("kvm/pages_4k", "0").Should().Be((KvmResult)Errno.EACCES);
        t.Host.Debugfs.Write(dir + "/mmu_pte_write", "1").Should().Be((KvmResult)Errno.EINVAL);
        t.Host.Debugfs.Write(dir + "/mmu_pte_write", "0\n").IsOk.Should().BeTrue();
        t.Host.Debugfs.Read("kvm/mmu_pte_write").Should().Be("3\n");
        t.Host.Debugfs.Read(dir + "/vcpu0/pid").Should().Be("0\n");
        t.P.Ioctl(vcpu, KVM_RUN);
        t.Host.Debugfs.Read(dir + "/vcpu0/pid").Should().Be(t.P.Task.Pid + "\n");
        t.AssertClean();
        t.Host.Debugfs.Exists(dir).Should().BeFalse();
    }

    [Fact]
    public void A_VM_without_a_debugfs_directory_works()
    {
        using var t = new TestHost();
        t.Host.Faults.Fail("debugfs_create_dir");
        int vm = t.Vm();
        t.VmOf(vm).DebugfsDirectory.Should().BeNull();
        t.Vcpu(vm);
        t.AssertClean();
    }
}
