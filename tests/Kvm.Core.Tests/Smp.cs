using Kvm.Abi;

namespace Kvm.Core.Tests;

public class on_each_cpu_
{
    [Fact]
    public void Runs_on_every_online_CPU_with_that_CPUs_number()
    {
        using var h = new Host(new HostOptions { CpuCount = 6 });
        h.CpuDown(2);
        var seen = new int[6];
        var percpu = new PerCpu<int>(h);
        h.OnEachCpu(_ =>
        {
            Interlocked.Increment(ref seen[h.CurrentCpu.Id]);
            percpu.This++;
        });
        seen.Should().Equal(1, 1, 0, 1, 1, 1);
        for (int i = 0; i < 6; i++) percpu[i].Should().Be(seen[i]);
        h.Cpus.Should().OnlyContain(c => c.Occupant == null);
    }

    [Fact]
    public void A_call_to_an_occupied_CPU_is_executed_by_its_occupant()
    {
        using var h = new Host(new HostOptions { CpuCount = 2 });
        HostTask? ranAs = null;
        HostTask? occupant = null;
        bool done = false;
        using var ready = new ManualResetEventSlim();
        var t = TestHost.Start(() =>
        {
            HostProcess p = h.CreateProcess("busy");
            p.Task.SetAffinity(1);
            using var s = h.Enter(p.Task);
            occupant = p.Task;
            ready.Set();
            // A kernel thread that reaches a safe point now and then.
            while (!Volatile.Read(ref done))
            {
                h.CondResched();
                Thread.Yield();
            }
        });
        ready.Wait();
        h.Cpus[1].Hardware = new FakeHardware();
        h.SmpCallFunctionSingle(1, arg =>
        {
            ranAs = HostTask.Current;
            arg.Should().Be("x");
            h.CurrentCpu.Id.Should().Be(1);
            HostTask.Current.IrqDepth.Should().BePositive();
        }, "x").Should().Be(KvmResult.Ok);
        ranAs.Should().BeSameAs(occupant);
        ((FakeHardware)h.Cpus[1].Hardware!).Raised.Should().Be(1, "an IPI was sent");
        h.Cpus[1].InterruptCount.Should().BeGreaterThan(0);
        Volatile.Write(ref done, true);
        TestHost.Join(t);
    }

    [Fact]
    public void Waits_while_the_occupant_has_interrupts_off()
    {
        using var h = new Host(new HostOptions { CpuCount = 2 });
        using var off = new ManualResetEventSlim();
        using var on = new ManualResetEventSlim();
        bool ran = false;
        var t = TestHost.Start(() =>
        {
            HostProcess p = h.CreateProcess("busy");
            p.Task.SetAffinity(1);
            using var s = h.Enter(p.Task);
            p.Task.LocalIrqDisable();
            off.Set();
            on.Wait();
            Volatile.Read(ref ran).Should().BeFalse();
            p.Task.LocalIrqEnable();
            Volatile.Read(ref ran).Should().BeTrue("pending interrupts are taken when they are enabled");
        });
        off.Wait();
        h.Cpus[1].Occupant.Should().NotBeNull();
        var caller = TestHost.Start(() => h.SmpCallFunctionSingle(1, _ => ran = true));
        Thread.Sleep(20);
        ran.Should().BeFalse();
        on.Set();
        TestHost.Join(t, caller);
        ran.Should().BeTrue();
    }

    [Fact]
    public void Without_wait_the_call_still_happens()
    {
        using var h = new Host(new HostOptions { CpuCount = 2 });
        bool idle = false;
        h.SmpCallFunctionSingle(1, _ => idle = true, wait: false);
        idle.Should().BeTrue("an idle CPU is driven by the sender");
        bool left = false;
        HostProcess p = h.CreateProcess("p");
        using var inside = new ManualResetEventSlim();
        using var go = new ManualResetEventSlim();
        var t = TestHost.Start(() =>
        {
            p.Task.SetAffinity(1);
            using var s = h.Enter(p.Task);
            inside.Set();
            go.Wait();
        });
        inside.Wait();
        h.SmpCallFunctionSingle(1, _ => left = true, wait: false);
        left.Should().BeFalse();
        go.Set();
        TestHost.Join(t);
        TestHost.Await(() => Volatile.Read(ref left), "leaving the CPU runs its queue");
    }

    [Fact]
    public void An_offline_or_missing_CPU_is_ENXIO()
    {
        using var h = new Host(new HostOptions { CpuCount = 2 });
        h.CpuDown(1);
        h.SmpCallFunctionSingle(1, _ => throw new InvalidOperationException()).Should().Be((KvmResult)Errno.ENXIO);
        h.SmpCallFunctionSingle(2, _ => { }).Should().Be((KvmResult)Errno.ENXIO);
        h.SmpCallFunctionSingle(-1, _ => { }).Should().Be((KvmResult)Errno.ENXIO);
    }

    [Fact]
    public void Crossing_calls_between_all_CPUs_do_not_deadlock()
    {
        using var h = new Host(new HostOptions { CpuCount = 4 });
        var counts = new int[4];
        using var barrier = new Barrier(4);
        Thread[] threads = [.. Enumerable.Range(0, 4).Select(i => TestHost.Start(() =>
        {
            HostProcess p = h.CreateProcess("t" + i);
            p.Task.SetAffinity(i);
            using var s = h.Enter(p.Task);
            barrier.SignalAndWait();
            for (int n = 0; n < 300; n++)
            {
                h.SmpCallFunctionSingle((i + 1 + n % 3) % 4, _ => Interlocked.Increment(ref counts[h.CurrentCpu.Id]));
                if (n % 10 == 0) h.OnEachCpu(_ => Interlocked.Increment(ref counts[h.CurrentCpu.Id]));
            }
        }))];
        TestHost.Join(threads);
        counts.Sum().Should().Be(4 * (300 + 30 * 4));
        h.Cpus.Should().OnlyContain(c => c.Occupant == null);
    }

    [Fact]
    public void A_spinning_thread_services_its_CPU()
    {
        // on_each_cpu under a spinlock that another CPU spins for: as hardware_enable_all does.
        using var h = new Host(new HostOptions { CpuCount = 2 });
        var spin = new RawSpinLock();
        int ran = 0;
        using var held = new ManualResetEventSlim();
        var a = TestHost.Start(() =>
        {
            HostProcess p = h.CreateProcess("a");
            p.Task.SetAffinity(0);
            using var s = h.Enter(p.Task);
            using var l = spin.Enter();
            held.Set();
            TestHost.Await(() => h.Cpus[1].Occupant is not null);
            Thread.Sleep(10);
            h.OnEachCpu(_ => Interlocked.Increment(ref ran));
        });
        held.Wait();
        var b = TestHost.Start(() =>
        {
            HostProcess p = h.CreateProcess("b");
            p.Task.SetAffinity(1);
            using var s = h.Enter(p.Task);
            using var l = spin.Enter();
        });
        TestHost.Join(a, b);
        ran.Should().Be(2);
    }

    [Fact]
    public void An_exception_of_the_function_reaches_the_sender()
    {
        using var h = new Host(new HostOptions { CpuCount = 2 });
        Action act = () => h.SmpCallFunctionSingle(1, _ => throw new FormatException("boom"));
        act.Should().Throw<InvalidOperationException>().WithInnerException<FormatException>();
        h.Cpus[1].Occupant.Should().BeNull();
    }

    [Fact]
    public void Other_vectors_reach_their_handlers_on_that_CPU()
    {
        using var h = new Host(new HostOptions { CpuCount = 2 });
        var hw = new FakeHardware();
        h.Cpus[1].Hardware = hw;
        int on = -1;
        h.SetVectorHandler(0xf2, cpu => on = h.CurrentCpu.Id + cpu.Id * 10);
        hw.RaiseInterrupt(0xf2);
        HostProcess p = h.CreateProcess("p");
        p.Task.SetAffinity(1);
        using (h.Enter(p.Task)) h.CondResched();
        on.Should().Be(11);
    }
}

public class cpu_hotplug_
{
    [Fact]
    public void The_last_CPU_can_not_go_and_states_are_checked()
    {
        using var h = new Host(new HostOptions { CpuCount = 2 });
        h.CpuUp(1).Should().Be((KvmResult)Errno.EINVAL);
        h.CpuDown(1).Should().Be(KvmResult.Ok);
        h.CpuDown(1).Should().Be((KvmResult)Errno.EINVAL);
        h.CpuDown(0).Should().Be((KvmResult)Errno.EBUSY);
        h.CpuDown(9).Should().Be((KvmResult)Errno.EINVAL);
        h.CpuUp(1).Should().Be(KvmResult.Ok);
        h.CpuDown(0).Should().Be(KvmResult.Ok, "any CPU but the last may go, also the caller's");
        h.OnlineCpus.Single().Id.Should().Be(1);
    }

    [Fact]
    public void Callbacks_run_on_the_CPU_with_interrupts_off()
    {
        using var h = new Host(new HostOptions { CpuCount = 3 });
        var log = new List<string>();
        h.Cpus[2].Hardware = new FakeHardware();
        h.CpuHotplugSetupNoCalls("a", c => Note("a+", c), c => Note("a-", c), out IDisposable? a).Should().Be(KvmResult.Ok);
        h.CpuHotplugSetupNoCalls("b", c => Note("b+", c), c => Note("b-", c), out _);
        h.CpuDown(2);
        h.CpuUp(2);
        log.Should().Equal("b- 2 2", "a- 2 2", "a+ 2 2", "b+ 2 2");
        ((FakeHardware)h.Cpus[2].Hardware!).Events.Should().Equal("dead", "starting");
        log.Clear();
        a!.Dispose();
        h.CpuDown(2);
        log.Should().Equal("b- 2 2");

        KvmResult Note(string what, HostCpu c)
        {
            HostTask.Current.IrqDepth.Should().BePositive();
            log.Add($"{what} {c.Id} {h.CurrentCpu.Id}");
            return 0;
        }
    }

    [Fact]
    public void A_thread_that_runs_there_is_moved()
    {
        using var h = new Host(new HostOptions { CpuCount = 2 });
        HostProcess p = h.CreateProcess("p");
        bool stop = false;
        using var inside = new ManualResetEventSlim();
        var cpus = new HashSet<int>();
        int last = -1;
        var t = TestHost.Start(() =>
        {
            p.Task.SetAffinity(1); // only there
            using var s = h.Enter(p.Task);
            while (!Volatile.Read(ref stop))
            {
                cpus.Add(h.CurrentCpu.Id);
                Volatile.Write(ref last, h.CurrentCpu.Id);
                inside.Set();
                h.CondResched();
                Thread.Yield();
            }
        });
        inside.Wait();
        h.CpuDown(1).Should().Be(KvmResult.Ok);
        h.Cpus[1].Occupant.Should().BeNull();
        TestHost.Await(() => Volatile.Read(ref last) == 0, "affinity is broken when no CPU of it is left");
        Volatile.Write(ref stop, true);
        TestHost.Join(t);
        cpus.Should().BeEquivalentTo([0, 1]);
    }
}
