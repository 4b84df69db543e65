using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Core.Tests;

public class schedule_
{
    [Fact]
    public void A_system_call_occupies_a_CPU_and_leaves_it()
    {
        using var t = new TestHost(cpus: 2);
        HostCpu? cpu = null;
        t.Arch.Run = v =>
        {
            cpu = t.Host.CurrentCpu;
            cpu.Occupant.Should().BeSameAs(t.P.Task);
            return 0;
        };
        int fd = t.Vcpu(t.Vm());
        t.P.Ioctl(fd, KVM_RUN);
        cpu.Should().NotBeNull();
        cpu!.Occupant.Should().BeNull();
        Action outside = () => _ = t.Host.CurrentCpu;
        outside.Should().Throw<InvalidOperationException>();
    }

    [Fact]
    public void A_thread_prefers_its_last_CPU_and_obeys_its_affinity()
    {
        using var t = new TestHost(cpus: 4);
        int fd = t.Vcpu(t.Vm());
        FakeVcpu v = t.VcpuOf(fd);
        t.Arch.Run = vc =>
        {
            vc.Load();
            vc.Put();
            return 0;
        };
        t.P.Task.SetAffinity(3);
        for (int i = 0; i < 3; i++) t.P.Ioctl(fd, KVM_RUN);
        t.P.Task.SetAffinity(1, 2);
        t.P.Ioctl(fd, KVM_RUN);
        t.P.Task.SetAffinity((CpuMask?)null);
        t.P.Ioctl(fd, KVM_RUN);
        v.Loads.Skip(1).Should().Equal(3, 3, 3, 1, 1);
        t.AssertClean();
    }

    [Fact]
    public void More_threads_than_CPUs_take_turns()
    {
        using var t = new TestHost(cpus: 1);
        int vm = t.Vm();
        int[] fds = [.. Enumerable.Range(0, 4).Select(i => t.Vcpu(vm, (uint)i))];
        int running = 0, most = 0;
        var rounds = new int[4];
        t.Arch.Run = v =>
        {
            v.Load();
            for (int i = 0; i < 20; i++)
            {
                most = Math.Max(most, Interlocked.Increment(ref running));
                rounds[v.VcpuId]++;
                Thread.Sleep(1);
                Interlocked.Decrement(ref running);
                t.Host.CondResched();
            }

            v.Put();
            return 0;
        };
        TestHost.Join([.. fds.Select(fd => TestHost.Start(() => t.P.Ioctl(fd, KVM_RUN).Should().Be(KvmResult.Ok)))]);
        most.Should().Be(1, "one CPU runs one thread");
        rounds.Should().OnlyContain(r => r == 20);
        fds.Sum(fd => t.VcpuOf(fd).Loads.Count).Should().BeGreaterThan(8, "vCPUs were preempted: loaded again after kvm_sched_out");
        t.AssertClean();
    }

    [Fact]
    public void A_waiting_thread_makes_a_guest_leave_after_its_time_slice()
    {
        using var t = new TestHost(cpus: 1);
        var hw = new FakeHardware();
        t.Host.Cpus[0].Hardware = hw;
        int vm = t.Vm(), a = t.Vcpu(vm, 0);
        bool preempted = false;
        using var inGuest = new ManualResetEventSlim();
        t.Arch.Run = v =>
        {
            v.Load();
            HostTask.Current.LocalIrqDisable();
            inGuest.Set();
            // "Guest mode": nothing but an interrupt ends it.
            while (!hw.InterruptPending) Thread.Sleep(1);
            HostTask.Current.LocalIrqEnable();
            t.Host.NeedResched.Should().BeTrue();
            t.Host.CondResched();
            preempted = v.Loads.Count > 2;
            v.Put();
            return 0;
        };
        var guest = TestHost.Start(() => t.P.Ioctl(a, KVM_RUN));
        inGuest.Wait();
        t.P.Ioctl(t.Dev, KVM_GET_API_VERSION).Should().Be((KvmResult)12, "it got the CPU in the end");
        TestHost.Join(guest);
        preempted.Should().BeTrue();
        t.AssertClean();
    }

    [Fact]
    public void Sched_out_says_whether_the_vCPU_was_preempted_or_slept()
    {
        using var t = new TestHost(cpus: 2);
        int fd = t.Vcpu(t.Vm());
        var seen = new List<(bool, bool)>();
        t.Arch.Run = v =>
        {
            v.Load();
            IPreemptNotifier n = v;
            n.SchedOut(true);
            seen.Add((v.Preempted, v.Ready));
            t.Kvm.GetRunningVcpu().Should().BeNull();
            n.SchedIn(t.Host.CurrentCpu);
            seen.Add((v.Preempted, v.Ready));
            t.Kvm.GetRunningVcpu().Should().BeSameAs(v);
            n.SchedOut(false);
            seen.Add((v.Preempted, v.Ready));
            n.SchedIn(t.Host.CurrentCpu);
            v.Put();
            t.Kvm.GetRunningVcpu().Should().BeNull();
            return 0;
        };
        t.P.Ioctl(fd, KVM_RUN);
        seen.Should().Equal((true, true), (false, false), (false, false));
    }

    [Fact]
    public void Changing_the_affinity_moves_a_running_thread()
    {
        using var t = new TestHost(cpus: 2);
        int fd = t.Vcpu(t.Vm());
        using var ready = new ManualResetEventSlim();
        HostTask? task = null;
        t.Arch.Run = v =>
        {
            v.Load();
            task = HostTask.Current;
            ready.Set();
            TestHost.Await(() => t.Host.CondResched() || v.Cpu == 1);
            v.Cpu.Should().Be(1);
            v.Put();
            return 0;
        };
        var run = TestHost.Start(() =>
        {
            t.P.Task.SetAffinity(0);
            t.P.Ioctl(fd, KVM_RUN).Should().Be(KvmResult.Ok);
        });
        ready.Wait();
        task!.SetAffinity(1);
        TestHost.Join(run);
        t.VcpuOf(fd).Loads.Last().Should().Be(1);
        t.AssertClean();
    }

    [Fact]
    public void Sleeping_in_atomic_context_is_our_own_bug()
    {
        using var t = new TestHost();
        var spin = new RawSpinLock();
        var mutex = new KernelMutex();
        var other = new HostTask(t.Host, null, 1, "x");
        t.InKernel(() =>
        {
            using var _ = spin.Enter();
            HostTask.Current.SetState(TaskState.Uninterruptible);
            Action act = () => HostTask.Current.Schedule();
            act.Should().Throw<InvalidOperationException>().WithMessage("*scheduling while atomic*");
            HostTask.Current.SetState(TaskState.Running);
            Action again = spin.Lock;
            again.Should().Throw<InvalidOperationException>().WithMessage("*recursion*");
        });
    }

    [Fact]
    public void A_storm_of_short_calls_on_few_CPUs_loses_nothing()
    {
        using var t = new TestHost(cpus: 2);
        TestHost.Join([.. Enumerable.Range(0, 8).Select(_ => TestHost.Start(() =>
        {
            for (int n = 0; n < 2000; n++) t.P.Ioctl(t.Dev, KVM_GET_API_VERSION).Should().Be((KvmResult)12);
        }))]);
        t.AssertClean();
    }
}

public class mutex_
{
    [Fact]
    public void A_contended_lock_leaves_the_CPU()
    {
        using var h = new Host(new HostOptions { CpuCount = 1 });
        var mutex = new KernelMutex();
        HostProcess p = h.CreateProcess("p");
        bool got = false;
        using (h.Enter(p.Task))
        {
            mutex.Lock();
            var t = TestHost.Start(() =>
            {
                using var _ = h.Enter(p.Task);
                mutex.Lock();
                got = true;
                mutex.Unlock();
            });
            // The only CPU: the other can run only when this thread sleeps.
            HostTask.Current.SetState(TaskState.Uninterruptible);
            HostTask.Current.Schedule(TimeSpan.FromMilliseconds(100));
            mutex.Waiters.Should().Be(1);
            got.Should().BeFalse();
            mutex.Unlock();
            HostTask.Current.SetState(TaskState.Uninterruptible);
            HostTask.Current.Schedule(TimeSpan.FromMilliseconds(100));
            TestHost.Await(() => got);
            mutex.IsLocked.Should().BeFalse();
        }
    }

    [Fact]
    public void Killable_gives_up_on_SIGKILL_only()
    {
        using var h = new Host(new HostOptions { CpuCount = 2 });
        var mutex = new KernelMutex();
        HostProcess p = h.CreateProcess("p");
        HostTask? waiter = null;
        bool? result = null;
        using (h.Enter(p.Task))
        {
            mutex.Lock();
            var t = TestHost.Start(() =>
            {
                waiter = p.Task;
                using var _ = h.Enter(waiter);
                result = mutex.LockKillable();
            });
            TestHost.Await(() => mutex.Waiters == 1);
            waiter!.Send(10);
            Thread.Sleep(20);
            result.Should().BeNull("a normal signal does not interrupt it");
            waiter.Send(HostTask.SIGKILL);
            TestHost.Join(t);
            result.Should().BeFalse();
            mutex.Unlock();
        }

        waiter!.Killed.Should().BeTrue();
    }

    [Fact]
    public void Excludes_under_load()
    {
        using var h = new Host(new HostOptions { CpuCount = 3 });
        var mutex = new KernelMutex();
        int value = 0, inside = 0;
        TestHost.Join([.. Enumerable.Range(0, 6).Select(i => TestHost.Start(() =>
        {
            HostProcess p = h.CreateProcess("t");
            for (int n = 0; n < 500; n++)
            {
                using var _ = h.Enter(p.Task);
                using var __ = mutex.Enter();
                Interlocked.Increment(ref inside).Should().Be(1);
                value++;
                Interlocked.Decrement(ref inside);
            }
        }))]);
        value.Should().Be(3000);
        mutex.IsLocked.Should().BeFalse();
        mutex.Waiters.Should().Be(0);
    }
}

public class srcu_
{
    [Fact]
    public void Synchronize_waits_for_old_readers_and_not_for_new_ones()
    {
        using var h = new Host(new HostOptions { CpuCount = 4 });
        var srcu = new Srcu(4);
        using var k = h.EnterKernel();
        int old = srcu.ReadLock();
        bool done = false;
        var t = TestHost.Start(() =>
        {
            using var _ = h.EnterKernel();
            srcu.Synchronize();
            Volatile.Write(ref done, true);
        });
        Thread.Sleep(20);
        done.Should().BeFalse();
        int young = srcu.ReadLock();
        srcu.ReadUnlock(old);
        TestHost.Await(() => Volatile.Read(ref done) || srcu.HasReaders);
        srcu.ReadUnlock(young);
        TestHost.Join(t);
        done.Should().BeTrue();
        srcu.HasReaders.Should().BeFalse();
    }

    [Fact]
    public void Nothing_that_was_retired_is_seen_by_a_reader()
    {
        using var h = new Host(new HostOptions { CpuCount = 4 });
        var srcu = new Srcu(4);
        var boxes = new int[2]; // 0 = alive, 1 = retired
        int current = 0;
        bool stop = false;
        int bad = 0;
        Thread[] readers = [.. Enumerable.Range(0, 3).Select(_ => TestHost.Start(() =>
        {
            using var k = h.EnterKernel();
            while (!Volatile.Read(ref stop))
            {
                int i = srcu.ReadLock();
                int box = Volatile.Read(ref current);
                Thread.SpinWait(20);
                if (Volatile.Read(ref boxes[box]) != 0) Interlocked.Increment(ref bad);
                srcu.ReadUnlock(i);
                h.CondResched();
            }
        }))];
        using (h.EnterKernel())
        {
            for (int n = 0; n < 80; n++)
            {
                int next = 1 - current;
                Volatile.Write(ref boxes[next], 0);
                int old = current;
                Volatile.Write(ref current, next);
                srcu.Synchronize();
                Volatile.Write(ref boxes[old], 1);
            }

            Volatile.Write(ref stop, true);
        }

        TestHost.Join(readers);
        bad.Should().Be(0);
    }
}

public class PreemptionSeed
{
    /// <summary>A vCPU that runs alone goes from CPU to CPU at every point where it can be preempted, and a second run with the same seed goes the same way.</summary>
    [Fact]
    public void Moves_a_vCPU_at_every_exit_and_is_replayable()
    {
        (List<int> cpus, ulong digest, long moves) first = Moves(7), second = Moves(7), other = Moves(8);
        first.cpus.Zip(first.cpus.Skip(1)).Should().OnlyContain(static p => p.First != p.Second, "no two entries are on the same CPU");
        first.cpus.Distinct().Should().HaveCount(4);
        first.moves.Should().BeGreaterThanOrEqualTo(50);
        second.cpus.Should().Equal(first.cpus);
        second.digest.Should().Be(first.digest);
        other.digest.Should().NotBe(first.digest);
    }

    [Fact]
    public void Respects_the_affinity_and_sections_that_must_not_be_preempted()
    {
        using var t = new TestHost(options: new HostOptions { CpuCount = 4, PreemptionSeed = 3 });
        int fd = t.Vcpu(t.Vm());
        var cpus = new HashSet<int>();
        t.Arch.Run = v =>
        {
            HostTask task = HostTask.Current;
            v.Load();
            for (int i = 0; i < 50; i++)
            {
                task.PreemptDisable();
                task.PreemptDisable();
                int here = task.Cpu!.Id;
                task.PreemptEnable();
                task.LocalIrqDisable();
                task.LocalIrqEnable();
                task.Cpu!.Id.Should().Be(here);
                cpus.Add(here);
                task.PreemptEnable();
            }

            v.Put();
            return 0;
        };
        t.P.Task.SetAffinity(1, 2);
        t.P.Ioctl(fd, KVM_RUN).Should().Be(KvmResult.Ok);
        cpus.Should().BeEquivalentTo([1, 2]);
        t.AssertClean();
    }

    private static (List<int>, ulong, long) Moves(ulong seed)
    {
        using var t = new TestHost(options: new HostOptions { CpuCount = 4, PreemptionSeed = seed });
        int fd = t.Vcpu(t.Vm());
        var cpus = new List<int>();
        t.Arch.Run = v =>
        {
            v.Load();
            for (int i = 0; i < 50; i++)
            {
                HostTask.Current.PreemptDisable();
                cpus.Add(t.Host.CurrentCpu.Id);
                HostTask.Current.PreemptEnable();
            }

            v.Put();
            return 0;
        };
        t.P.Ioctl(fd, KVM_RUN).Should().Be(KvmResult.Ok);
        ForcedMoves moves = t.VcpuOf(fd).Moves!;
        t.VcpuOf(fd).Loads.Count.Should().BeGreaterThan(50);
        t.AssertClean();
        return (cpus, moves.Digest, moves.Count);
    }
}
