using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Core.Tests;

/// <summary>Everything at once on few CPUs: whatever interleaves, the books balance in the end.</summary>
public unsafe class everything_at_once_
{
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Leaves_nothing_behind(int seed)
    {
        using var t = new TestHost(cpus: 3);
        foreach (HostCpu cpu in t.Host.Cpus) cpu.Hardware = new FakeHardware();
        bool stop = false;
        t.Arch.Runnable = _ => Random.Shared.Next(4) == 0;
        t.Arch.Run = v =>
        {
            v.Load();
            if (Random.Shared.Next(4) == 0) v.Halt();
            HostTask.Current.LocalIrqDisable();
            v.Mode = VcpuMode.IN_GUEST_MODE;
            HostCpu cpu = t.Host.CurrentCpu;
            for (int i = 0; i < 200 && !cpu.WorkPending && !v.RequestPending; i++) Thread.SpinWait(20);
            v.Mode = VcpuMode.OUTSIDE_GUEST_MODE;
            HostTask.Current.LocalIrqEnable();
            v.CheckRequest(KvmRequest.KVM_REQ_TLB_FLUSH);
            v.CheckRequest(KvmRequest.KVM_REQ_VM_DEAD);
            t.Host.CondResched();
            v.SrcuReadLock();
            v.GfnToMemslot(1);
            v.SrcuReadUnlock();
            v.Put();
            return HostTask.Current.SignalPending ? Errno.EINTR : 0;
        };
        Thread[] threads =
        [
            .. Enumerable.Range(0, 4).Select(i => TestHost.Start(() => Vmm(t, new Random(seed * 10 + i), ref stop))),
            TestHost.Start(() =>
            {
                while (!Volatile.Read(ref stop))
                {
                    t.Host.CpuDown(2);
                    t.Host.CpuUp(2);
                    Thread.Sleep(1);
                }
            }),
            TestHost.Start(() =>
            {
                while (!Volatile.Read(ref stop))
                {
                    using (t.Host.EnterKernel())
                        foreach (KvmVm vm in t.Kvm.VmList)
                        {
                            if (!vm.GetSafe()) continue;
                            vm.FlushRemoteTlbs();
                            foreach (KvmVcpu v in vm.Vcpus) v.Kick();
                            vm.Put();
                        }

                    Thread.Sleep(1);
                }
            }),
        ];
        Thread.Sleep(1200);
        Volatile.Write(ref stop, true);
        TestHost.Join(threads);
        t.Host.CpuUp(2);
        foreach (HostCpu cpu in t.Host.Cpus) cpu.Hardware = null;
        t.AssertClean();
    }

    private static void Vmm(TestHost t, Random random, ref bool stop)
    {
        var threads = new List<Thread>();
        while (!Volatile.Read(ref stop))
        {
            int vm = t.Vm();
            ulong ram = t.P.MapAnonymous(64 * 4096);
            t.SetRegion(vm, 0, 0, 32 * 4096, ram).Should().Be(KvmResult.Ok);
            int[] vcpus = [.. Enumerable.Range(0, 1 + random.Next(3)).Select(i => t.Vcpu(vm, (uint)i))];
            foreach (int fd in vcpus)
            {
                FakeVcpu vcpu = t.VcpuOf(fd);
                threads.Add(TestHost.Start(() =>
                {
                    for (int i = 0; i < 20; i++)
                    {
                        KvmResult r = t.P.Ioctl(fd, KVM_RUN);
                        (r.IsOk || r.Errno is Errno.EINTR or Errno.EBADF).Should().BeTrue(r.ToString());
                    }
                }));
                if (random.Next(2) == 0) vcpu.Signal(10);
            }

            for (uint i = 1; i < 6; i++)
            {
                t.SetRegion(vm, i, 0x100000 * i, 4096, ram, random.Next(2) == 0 ? (uint)KVM_MEM_LOG_DIRTY_PAGES : 0).Should().Be(KvmResult.Ok);
                if (random.Next(2) == 0) t.SetRegion(vm, i, 0, 0, 0).Should().Be(KvmResult.Ok);
            }

            t.P.Munmap(ram, 64 * 4096).Should().Be(KvmResult.Ok);
            foreach (int fd in vcpus)
            {
                t.VcpuOf(fd).Signal(12);
                if (random.Next(2) == 0) Thread.Yield();
            }

            // A thread that halts with nobody to wake it is woken by its signal.
            foreach (Thread thread in threads)
            {
                while (!thread.Join(5))
                    foreach (int fd in vcpus) t.VcpuOf(fd).Signal(10);
            }

            threads.Clear();
            t.P.Close(vm);
            foreach (int fd in vcpus) t.P.Close(fd);
        }
    }
}
