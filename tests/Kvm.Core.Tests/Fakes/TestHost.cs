using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Core.Tests;

/// <summary>A host with the fake architecture; by default the vendor module is loaded and /dev/kvm is open.</summary>
internal sealed unsafe class TestHost : IDisposable
{
    public TestHost(int cpus = 2, bool load = true, HostOptions? options = null)
    {
        Host = new Host(options ?? new HostOptions { CpuCount = cpus, TimeSliceNs = 1_000_000 });
        Arch = new FakeArch(Host);
        Kvm = new KvmModule(Host, Arch);
        Vendor = new FakeVendor();
        Host.Modules.Insert(Kvm).Should().Be(KvmResult.Ok);
        if (!load) return;
        Host.Modules.Insert(Vendor).Should().Be(KvmResult.Ok);
        Dev = P.Open("/dev/kvm").Value;
    }

    public Host Host { get; }
    public FakeArch Arch { get; }
    public KvmModule Kvm { get; }
    public FakeVendor Vendor { get; }
    public HostProcess P => Host.Process;
    public int Dev { get; private set; } = -1;

    public KvmResult CreateVm() => P.Ioctl(Dev, KVM_CREATE_VM);

    public int Vm()
    {
        KvmResult r = CreateVm();
        r.IsOk.Should().BeTrue(r.ToString());
        return r.Value;
    }

    public int Vcpu(int vm, uint id = 0)
    {
        KvmResult r = P.Ioctl(vm, KVM_CREATE_VCPU, id);
        r.IsOk.Should().BeTrue(r.ToString());
        return r.Value;
    }

    public T Object<T>(int fd) where T : class
    {
        using var _ = Host.Enter(P.Task);
        KvmFile file = P.Files.Get(fd)!;
        var o = (T)file.PrivateData!;
        file.Put();
        return o;
    }

    public KvmVm VmOf(int fd) => Object<KvmVm>(fd);
    public FakeVcpu VcpuOf(int fd) => Object<FakeVcpu>(fd);

    public KvmResult SetRegion(int vm, uint slot, ulong gpa, ulong size, ulong hva, uint flags = 0)
    {
        var mem = new kvm_userspace_memory_region { slot = slot, flags = flags, guest_phys_addr = gpa, memory_size = size, userspace_addr = hva };
        return P.Ioctl(vm, KVM_SET_USER_MEMORY_REGION, (ulong)&mem);
    }

    /// <summary>Runs as the process inside the kernel.</summary>
    public void InKernel(Action action)
    {
        using var _ = Host.Enter(P.Task);
        action();
    }

    /// <summary>Closes everything and asserts that nothing is left.</summary>
    public void AssertClean()
    {
        foreach (int fd in P.Files.Open) P.Close(fd);
        foreach (Vma vma in P.Mm.Vmas.ToArray()) P.Munmap(vma.Start, vma.Length);
        Host.Pages.InUseByTag.Should().BeEmpty();
        Host.Pages.InUse.Should().Be(0);
        Host.Pages.VmallocInUse.Should().Be(0);
        Kvm.UsageCount.Should().Be(0);
        Arch.Enabled.Should().BeEmpty();
        Kvm.VmList.Should().BeEmpty();
        Host.OpenFileCount.Should().Be(0);
        Host.RunQueueLength.Should().Be(0);
        foreach (HostCpu cpu in Host.Cpus) cpu.Occupant.Should().BeNull();
        Vendor.RefCount.Should().Be(0);
    }

    public void Dispose() => Host.Dispose();

    public static Thread Start(Action action)
    {
        var t = new Thread(() => action()) { IsBackground = true };
        t.Start();
        return t;
    }

    public static void Await(Func<bool> condition, string what = "condition")
    {
        long end = Environment.TickCount64 + 60_000;
        while (!condition())
        {
            if (Environment.TickCount64 > end) throw new TimeoutException(what);
            Thread.Sleep(1);
        }
    }

    public static void Join(params Thread[] threads)
    {
        foreach (Thread t in threads) t.Join(60_000).Should().BeTrue("the thread must end");
    }
}
