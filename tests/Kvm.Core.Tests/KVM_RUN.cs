using System.Diagnostics;
using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Core.Tests;

public unsafe class KVM_RUN_
{
    [Fact]
    public void An_argument_is_EINVAL()
    {
        using var t = new TestHost();
        int fd = t.Vcpu(t.Vm());
        bool ran = false;
        t.Arch.Run = _ => { ran = true; return 0; };
        t.P.Ioctl(fd, KVM_RUN, 1).Should().Be((KvmResult)Errno.EINVAL);
        ran.Should().BeFalse();
    }

    [Fact]
    public void Remembers_the_task_and_whether_it_wants_to_run()
    {
        using var t = new TestHost();
        int fd = t.Vcpu(t.Vm());
        FakeVcpu v = t.VcpuOf(fd);
        var wants = new List<bool>();
        t.Arch.Run = x => { wants.Add(x.WantsToRun); return (KvmResult)(-4); };
        t.P.Ioctl(fd, KVM_RUN).Should().Be((KvmResult)Errno.EINTR);
        v.Pid.Should().BeSameAs(t.P.Task);
        v.Run->immediate_exit = 1;
        t.P.Ioctl(fd, KVM_RUN);
        wants.Should().Equal(true, false);
        v.WantsToRun.Should().BeFalse();
        HostTask? other = null;
        TestHost.Join(TestHost.Start(() =>
        {
            t.P.Ioctl(fd, KVM_RUN);
            other = t.P.Task;
        }));
        v.Pid.Should().BeSameAs(other).And.NotBeSameAs(t.P.Task);
    }

    [Fact]
    public void One_vCPU_runs_one_call_at_a_time()
    {
        using var t = new TestHost(cpus: 4);
        int fd = t.Vcpu(t.Vm());
        int inside = 0, most = 0;
        t.Arch.Run = _ =>
        {
            most = Math.Max(most, Interlocked.Increment(ref inside));
            Thread.Sleep(2);
            Interlocked.Decrement(ref inside);
            return 0;
        };
        TestHost.Join([.. Enumerable.Range(0, 4).Select(_ => TestHost.Start(() =>
        {
            for (int i = 0; i < 5; i++) t.P.Ioctl(fd, KVM_RUN).Should().Be(KvmResult.Ok);
        }))]);
        most.Should().Be(1);
        t.AssertClean();
    }

    [Fact]
    public void Waiting_for_the_vCPU_ends_with_EINTR_on_a_fatal_signal()
    {
        using var t = new TestHost(cpus: 4);
        int fd = t.Vcpu(t.Vm());
        FakeVcpu v = t.VcpuOf(fd);
        using var inside = new ManualResetEventSlim();
        using var go = new ManualResetEventSlim();
        t.Arch.Run = _ => { inside.Set(); go.Wait(); return 0; };
        var a = TestHost.Start(() => t.P.Ioctl(fd, KVM_RUN));
        inside.Wait();
        HostTask? task = null;
        KvmResult r = 0;
        var b = TestHost.Start(() => { task = t.P.Task; r = t.P.Ioctl(fd, KVM_GET_REGS, 0); });
        TestHost.Await(() => v.Mutex.Waiters == 1);
        task!.Send(HostTask.SIGKILL);
        TestHost.Join(b);
        r.Should().Be((KvmResult)Errno.EINTR);
        go.Set();
        TestHost.Join(a);
        t.AssertClean();
    }

    [Fact]
    public void A_signal_interrupts_the_thread_that_runs_the_vCPU()
    {
        using var t = new TestHost(cpus: 2);
        var hw = new FakeHardware();
        int fd = t.Vcpu(t.Vm());
        FakeVcpu v = t.VcpuOf(fd);
        v.Signal(10).Should().BeFalse("no one has run it yet");
        using var inside = new ManualResetEventSlim();
        t.Arch.Run = x =>
        {
            t.Host.CurrentCpu.Hardware = hw;
            inside.Set();
            while (!hw.InterruptPending) Thread.Sleep(1); // only an interrupt ends guest mode
            t.Host.CondResched();
            return HostTask.Current.SignalPending ? Errno.EINTR : 0;
        };
        int delivered = 0;
        t.P.SignalHandler = (_, s) => delivered = s;
        KvmResult r = 0;
        var run = TestHost.Start(() => r = t.P.Ioctl(fd, KVM_RUN));
        inside.Wait();
        v.Signal(10).Should().BeTrue();
        TestHost.Join(run);
        r.Should().Be((KvmResult)Errno.EINTR);
        delivered.Should().Be(10, "the handler ran when the call returned");
        t.Host.Cpus.First(c => c.Hardware is not null).Hardware = null;
        t.AssertClean();
    }

    [Fact]
    public void SET_SIGNAL_MASK_replaces_the_mask_during_the_call()
    {
        using var t = new TestHost();
        int fd = t.Vcpu(t.Vm());
        byte* mask = stackalloc byte[12];
        *(uint*)mask = 8;
        *(ulong*)(mask + 4) = HostTask.SignalBit(12) | HostTask.SignalBit(HostTask.SIGKILL);
        t.P.Ioctl(fd, KVM_SET_SIGNAL_MASK, (ulong)mask).Should().Be(KvmResult.Ok);
        t.VcpuOf(fd).Sigset.Should().Be(HostTask.SignalBit(12), "SIGKILL can't be blocked");
        t.P.Task.BlockedSignals = HostTask.SignalBit(10);
        bool pendingInside = false;
        t.Arch.Run = v =>
        {
            v.SigsetActivate();
            pendingInside = HostTask.Current.SignalPending;
            v.SigsetDeactivate();
            return pendingInside ? Errno.EINTR : 0;
        };
        t.P.Task.Send(10); // blocked outside, not inside
        t.P.Ioctl(fd, KVM_RUN).Should().Be((KvmResult)Errno.EINTR);
        t.P.Task.PendingSignals.Should().Be(HostTask.SignalBit(10), "it stays pending for sigtimedwait");
        t.P.Task.Take(10).Should().BeTrue();
        t.P.Task.BlockedSignals.Should().Be(HostTask.SignalBit(10));
        t.P.Ioctl(fd, KVM_SET_SIGNAL_MASK, 0).Should().Be(KvmResult.Ok);
        t.P.Task.Send(10);
        t.P.Ioctl(fd, KVM_RUN).Should().Be(KvmResult.Ok);
        *(uint*)mask = 4;
        t.P.Ioctl(fd, KVM_SET_SIGNAL_MASK, (ulong)mask).Should().Be((KvmResult)Errno.EINVAL);
        t.P.Ioctl(fd, KVM_SET_SIGNAL_MASK, 8).Should().Be((KvmResult)Errno.EFAULT);
    }

    [Fact]
    public void The_round_trip_does_not_allocate()
    {
        using var t = new TestHost();
        int fd = t.Vcpu(t.Vm());
        t.Arch.Run = static v => 0;
        for (int i = 0; i < 2000; i++) t.P.Ioctl(fd, KVM_RUN);
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 2000; i++) t.P.Ioctl(fd, KVM_RUN);
        (GC.GetAllocatedBytesForCurrentThread() - before).Should().Be(0);
    }
}

public unsafe class vcpu_ioctls_
{
    [Fact]
    public void Registers_go_in_and_out()
    {
        using var t = new TestHost();
        int fd = t.Vcpu(t.Vm());
        var regs = new kvm_regs { rax = 1, rip = 0xfff0 };
        t.P.Ioctl(fd, KVM_SET_REGS, (ulong)&regs).Should().Be(KvmResult.Ok);
        var back = default(kvm_regs);
        t.P.Ioctl(fd, KVM_GET_REGS, (ulong)&back).Should().Be(KvmResult.Ok);
        back.Should().Be(regs);
        kvm_translation tr = new() { linear_address = 41 };
        t.P.Ioctl(fd, KVM_TRANSLATE, ref tr).Should().Be(KvmResult.Ok);
        tr.physical_address.Should().Be(42);
    }

    [Theory]
    [InlineData(KVM_GET_REGS)]
    [InlineData(KVM_SET_REGS)]
    [InlineData(KVM_GET_SREGS)]
    [InlineData(KVM_SET_SREGS)]
    [InlineData(KVM_GET_FPU)]
    [InlineData(KVM_SET_FPU)]
    [InlineData(KVM_TRANSLATE)]
    [InlineData(KVM_GET_MP_STATE)]
    [InlineData(KVM_SET_MP_STATE)]
    [InlineData(KVM_SET_GUEST_DEBUG)]
    public void A_bad_pointer_is_EFAULT_and_the_mutex_is_free_again(uint request)
    {
        using var t = new TestHost();
        int fd = t.Vcpu(t.Vm());
        t.P.Ioctl(fd, request, 0).Should().Be((KvmResult)Errno.EFAULT);
        t.P.Ioctl(fd, request, 0xffff_8000_0000_0000).Should().Be((KvmResult)Errno.EFAULT);
        t.VcpuOf(fd).Mutex.IsLocked.Should().BeFalse();
    }

    [Theory]
    [InlineData(KVM_GET_REGS, "kvm_regs")]
    [InlineData(KVM_SET_REGS, "kvm_regs")]
    [InlineData(KVM_GET_SREGS, "kvm_sregs")]
    [InlineData(KVM_SET_SREGS, "kvm_sregs")]
    [InlineData(KVM_GET_FPU, "kvm_fpu")]
    [InlineData(KVM_SET_FPU, "kvm_fpu")]
    public void Buffers_that_can_not_be_allocated_are_ENOMEM(uint request, string what)
    {
        using var t = new TestHost();
        int fd = t.Vcpu(t.Vm());
        byte* buffer = stackalloc byte[1024];
        t.Host.Faults.Fail("kzalloc:" + what);
        t.P.Ioctl(fd, request, (ulong)buffer).Should().Be((KvmResult)Errno.ENOMEM);
        t.P.Ioctl(fd, request, (ulong)buffer).Should().Be(KvmResult.Ok);
    }

    [Fact]
    public void Errors_of_the_architecture_pass_through_without_copying_out()
    {
        using var t = new TestHost();
        int fd = t.Vcpu(t.Vm());
        var sregs = new kvm_sregs { efer = 1 };
        t.P.Ioctl(fd, KVM_SET_SREGS, ref sregs).Should().Be((KvmResult)Errno.EINVAL);
        var mp = new kvm_mp_state { mp_state = 9 };
        t.P.Ioctl(fd, KVM_SET_MP_STATE, ref mp).Should().Be((KvmResult)Errno.EINVAL);
        var dbg = new kvm_guest_debug { control = 0xff };
        t.P.Ioctl(fd, KVM_SET_GUEST_DEBUG, ref dbg).Should().Be((KvmResult)Errno.EBUSY);
    }

    [Fact]
    public void Architecture_rows_are_dispatched_with_the_vCPU_loaded()
    {
        using var t = new TestHost();
        KvmVcpu? loaded = null;
        t.Arch.VcpuIoctls.Add(KVM_NMI, nameof(KVM_NMI), (v, _) =>
        {
            loaded = t.Kvm.GetRunningVcpu();
            return 0;
        });
        t.Arch.VmIoctls.Add(KVM_SET_TSS_ADDR, nameof(KVM_SET_TSS_ADDR), (_, arg) => arg == 5 ? 0 : Errno.EINVAL);
        t.Arch.DevIoctls.AddRef(KVM_GET_MSR_INDEX_LIST, nameof(KVM_GET_MSR_INDEX_LIST), (KvmDevice _, ref kvm_msr_list l) =>
        {
            l.nmsrs++;
            return Errno.E2BIG;
        });
        int vm = t.Vm(), fd = t.Vcpu(vm);
        t.P.Ioctl(fd, KVM_NMI).Should().Be(KvmResult.Ok);
        loaded.Should().BeSameAs(t.VcpuOf(fd));
        t.P.Ioctl(vm, KVM_SET_TSS_ADDR, 5).Should().Be(KvmResult.Ok);
        t.P.Ioctl(vm, KVM_SET_TSS_ADDR, 6).Should().Be((KvmResult)Errno.EINVAL);
        kvm_msr_list list = new() { nmsrs = 1 };
        t.P.Ioctl(t.Dev, KVM_GET_MSR_INDEX_LIST, ref list).Should().Be((KvmResult)Errno.E2BIG);
        list.nmsrs.Should().Be(1, "nothing is copied out on failure");
    }
}

public class vcpu_requests_
{
    [Fact]
    public void A_request_is_made_once_and_checked_once()
    {
        using var t = new TestHost();
        FakeVcpu v = t.VcpuOf(t.Vcpu(t.Vm()));
        v.RequestPending.Should().BeFalse();
        uint r = KvmRequest.Arch(3, KvmRequest.KVM_REQUEST_NO_WAKEUP);
        v.MakeRequest(r);
        v.MakeRequest(r);
        v.Requests.Should().Be(1UL << 11);
        v.TestRequest(r).Should().BeTrue();
        v.CheckRequest(r).Should().BeTrue();
        v.CheckRequest(r).Should().BeFalse();
        v.MakeRequest(KvmRequest.KVM_REQ_UNBLOCK);
        v.ClearRequest(KvmRequest.KVM_REQ_UNBLOCK);
        v.RequestPending.Should().BeFalse();
    }

    [Theory]
    [InlineData(VcpuMode.OUTSIDE_GUEST_MODE, false, false)]
    [InlineData(VcpuMode.IN_GUEST_MODE, true, true)]
    [InlineData(VcpuMode.EXITING_GUEST_MODE, false, true)]
    [InlineData(VcpuMode.READING_SHADOW_PAGE_TABLES, false, true)]
    public void An_interrupt_is_sent_only_when_the_mode_needs_it(int mode, bool plain, bool wait)
    {
        using var t = new TestHost(cpus: 3);
        int vm = t.Vm();
        KvmVm kvm = t.VmOf(vm);
        FakeVcpu v = t.VcpuOf(t.Vcpu(vm));
        t.P.Task.SetAffinity(0);
        t.InKernel(() =>
        {
            v.Cpu = 2;
            v.Mode = mode;
            kvm.MakeAllCpusRequest(KvmRequest.Arch(1)).Should().Be(plain);
            v.Mode = mode;
            kvm.MakeAllCpusRequest(KvmRequest.Arch(1, KvmRequest.KVM_REQUEST_WAIT)).Should().Be(wait);
            v.Mode.Should().Be(mode == VcpuMode.IN_GUEST_MODE ? VcpuMode.EXITING_GUEST_MODE : mode);
            v.Cpu = 0;
            v.Mode = VcpuMode.IN_GUEST_MODE;
            kvm.MakeAllCpusRequest(KvmRequest.Arch(1)).Should().BeFalse("no interrupt to the own CPU");
            v.Cpu = -1;
            v.Mode = VcpuMode.IN_GUEST_MODE;
            kvm.MakeAllCpusRequest(KvmRequest.Arch(1)).Should().BeFalse();
            v.Mode = VcpuMode.OUTSIDE_GUEST_MODE;
        });
    }

    [Fact]
    public void NO_ACTION_sets_no_bit_and_except_is_left_out()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        KvmVm kvm = t.VmOf(vm);
        FakeVcpu a = t.VcpuOf(t.Vcpu(vm, 0)), b = t.VcpuOf(t.Vcpu(vm, 1)), c = t.VcpuOf(t.Vcpu(vm, 2));
        t.InKernel(() =>
        {
            kvm.MakeAllCpusRequest(KvmRequest.KVM_REQ_OUTSIDE_GUEST_MODE);
            (a.Requests | b.Requests | c.Requests).Should().Be(0);
            kvm.MakeAllCpusRequestExcept(KvmRequest.Arch(0), b);
            (a.Requests, b.Requests, c.Requests).Should().Be((256UL, 0UL, 256UL));
            kvm.MakeVcpusRequestMask(KvmRequest.Arch(1), [0b10]);
            (a.Requests, b.Requests, c.Requests).Should().Be((256UL, 512UL, 256UL));
        });
    }

    [Fact]
    public void A_waiting_request_returns_after_the_guest_has_left()
    {
        using var t = new TestHost(cpus: 2);
        int vm = t.Vm(), fd = t.Vcpu(vm);
        var hw = new FakeHardware();
        FakeVcpu v = t.VcpuOf(fd);
        using var inGuest = new ManualResetEventSlim();
        bool left = false;
        t.Arch.Run = x =>
        {
            x.Load();
            t.Host.CurrentCpu.Hardware = hw;
            HostTask.Current.LocalIrqDisable();
            x.Mode = VcpuMode.IN_GUEST_MODE;
            inGuest.Set();
            while (!hw.InterruptPending) Thread.Sleep(1);
            Volatile.Write(ref left, true);
            x.Mode = VcpuMode.OUTSIDE_GUEST_MODE;
            HostTask.Current.LocalIrqEnable();
            x.Put();
            return 0;
        };
        var run = TestHost.Start(() => t.P.Ioctl(fd, KVM_RUN));
        inGuest.Wait();
        t.InKernel(() =>
        {
            t.VmOf(vm).FlushRemoteTlbs();
            left.Should().BeTrue();
        });
        TestHost.Join(run);
        v.CheckRequest(KvmRequest.KVM_REQ_TLB_FLUSH).Should().BeTrue();
        t.VmOf(vm).Stat.RemoteTlbFlush.Should().Be(1);
        t.VmOf(vm).Stat.RemoteTlbFlushRequests.Should().Be(1);
        foreach (HostCpu cpu in t.Host.Cpus) cpu.Hardware = null;
        t.AssertClean();
    }

    [Fact]
    public void Kick_sends_one_interrupt_to_a_guest_and_none_otherwise()
    {
        using var t = new TestHost(cpus: 2);
        FakeVcpu v = t.VcpuOf(t.Vcpu(t.Vm()));
        var hw = new FakeHardware();
        t.Host.Cpus[1].Hardware = hw;
        t.P.Task.SetAffinity(0);
        v.Cpu = 1;
        t.InKernel(() =>
        {
            v.Kick();
            hw.Raised.Should().Be(0);
            v.Mode = VcpuMode.IN_GUEST_MODE;
            v.Kick();
            hw.Raised.Should().Be(1);
            v.Mode.Should().Be(VcpuMode.EXITING_GUEST_MODE);
            v.Kick();
            hw.Raised.Should().Be(1, "it is on its way out already");
            v.Mode = VcpuMode.OUTSIDE_GUEST_MODE;
        });
        t.Host.CpuDown(1);
        t.InKernel(() =>
        {
            v.Mode = VcpuMode.IN_GUEST_MODE;
            int raised = hw.Raised;
            v.Kick();
            hw.Raised.Should().Be(raised, "the CPU is offline");
        });
    }

    [Fact]
    public void A_vCPU_that_kicks_itself_only_changes_its_mode()
    {
        using var t = new TestHost(cpus: 1);
        int fd = t.Vcpu(t.Vm());
        var hw = new FakeHardware();
        t.Host.Cpus[0].Hardware = hw;
        t.Arch.Run = v =>
        {
            v.Load();
            v.Mode = VcpuMode.IN_GUEST_MODE;
            v.Kick();
            v.Mode.Should().Be(VcpuMode.EXITING_GUEST_MODE);
            v.Mode = VcpuMode.OUTSIDE_GUEST_MODE;
            v.Put();
            return 0;
        };
        t.P.Ioctl(fd, KVM_RUN).Should().Be(KvmResult.Ok);
        hw.Raised.Should().Be(0);
    }
}

public class kvm_vcpu_halt_
{
    private static KvmResult Halting(FakeVcpu v, TestHost t)
    {
        v.Load();
        v.Halt();
        bool signal = HostTask.Current.SignalPending;
        v.Put();
        return signal ? Errno.EINTR : 0;
    }

    [Fact]
    public void Sleeps_without_a_CPU_until_it_is_woken()
    {
        using var t = new TestHost(cpus: 1);
        int fd = t.Vcpu(t.Vm());
        FakeVcpu v = t.VcpuOf(fd);
        bool runnable = false;
        t.Arch.Runnable = _ => Volatile.Read(ref runnable);
        t.Arch.Run = x => Halting(x, t);
        KvmResult r = -1;
        var run = TestHost.Start(() => r = t.P.Ioctl(fd, KVM_RUN));
        TestHost.Await(() => v.IsBlocking && t.Host.Cpus[0].Occupant is null, "the only CPU is free while it sleeps");
        v.Stat.Blocking.Should().Be(1);
        v.Preempted.Should().BeFalse();
        Volatile.Write(ref runnable, true);
        t.InKernel(() => v.Kick()); // kvm_vcpu_kick wakes a sleeper
        TestHost.Join(run);
        r.Should().Be(KvmResult.Ok);
        v.Stat.Blocking.Should().Be(0);
        v.Stat.HaltWakeup.Should().Be(1);
        v.Stat.HaltWaitNs.Should().BePositive();
        v.Loads.Count.Should().BeGreaterThan(1, "kvm_sched_in loaded it again");
        t.AssertClean();
    }

    [Fact]
    public void A_spurious_wake_up_goes_to_sleep_again_and_a_signal_ends_it()
    {
        using var t = new TestHost();
        int fd = t.Vcpu(t.Vm());
        FakeVcpu v = t.VcpuOf(fd);
        t.Arch.Run = x => Halting(x, t);
        KvmResult r = 0;
        var run = TestHost.Start(() => r = t.P.Ioctl(fd, KVM_RUN));
        TestHost.Await(() => v.IsBlocking && v.Pid!.State == TaskState.Interruptible && v.Pid.Cpu is null);
        v.WakeUp();
        Thread.Sleep(20);
        run.IsAlive.Should().BeTrue();
        v.Signal(10);
        TestHost.Join(run);
        r.Should().Be((KvmResult)Errno.EINTR);
        t.AssertClean();
    }

    [Fact]
    public void KVM_REQ_UNBLOCK_ends_it()
    {
        using var t = new TestHost();
        int fd = t.Vcpu(t.Vm());
        FakeVcpu v = t.VcpuOf(fd);
        t.Arch.Run = x => Halting(x, t);
        var run = TestHost.Start(() => t.P.Ioctl(fd, KVM_RUN));
        TestHost.Await(() => v.IsBlocking);
        t.InKernel(() => t.VmOf(t.P.Files.Open.First(f => f > t.Dev)).MakeAllCpusRequest(KvmRequest.KVM_REQ_UNBLOCK));
        TestHost.Join(run);
        v.RequestPending.Should().BeFalse("the request was consumed");
        t.AssertClean();
    }

    [Fact]
    public void Wakes_are_never_lost()
    {
        using var t = new TestHost(cpus: 2);
        int fd = t.Vcpu(t.Vm());
        FakeVcpu v = t.VcpuOf(fd);
        int events = 0, taken = 0;
        t.Arch.Runnable = _ => Volatile.Read(ref events) > taken;
        t.Kvm.HaltPollNs = 0;
        t.Arch.Run = x =>
        {
            x.Load();
            while (taken < 500)
            {
                x.Halt();
                taken = Volatile.Read(ref events);
            }

            x.Put();
            return 0;
        };
        var run = TestHost.Start(() => t.P.Ioctl(fd, KVM_RUN));
        while (Volatile.Read(ref events) < 500)
        {
            Interlocked.Increment(ref events);
            v.Kick();
            if (events % 7 == 0) Thread.Yield();
        }

        TestHost.Join(run);
        t.AssertClean();
    }

    [Fact]
    public void Polling_finds_an_event_without_sleeping_and_counts_it()
    {
        using var t = new TestHost();
        int fd = t.Vcpu(t.Vm());
        FakeVcpu v = t.VcpuOf(fd);
        int checks = 0;
        t.Arch.Runnable = _ => ++checks >= 3;
        v.HaltPollNs = 1_000_000_000;
        t.Kvm.HaltPollNs = 2_000_000_000;
        t.Arch.Run = x => Halting(x, t);
        t.P.Ioctl(fd, KVM_RUN).Should().Be(KvmResult.Ok);
        v.Stat.HaltAttemptedPoll.Should().Be(1);
        v.Stat.HaltSuccessfulPoll.Should().Be(1);
        v.Stat.HaltPollSuccessNs.Should().BePositive();
        v.Stat.HaltWaitNs.Should().Be(0);
        v.HaltPollNs.Should().Be(1_000_000_000, "it was short enough already");
    }

    /// <summary>A time source that only a test advances.</summary>
    private sealed class TestClock : TimeProvider
    {
        public long Ns;
        public override long TimestampFrequency => 1_000_000_000;
        public override long GetTimestamp() => Volatile.Read(ref Ns);
    }

    [Theory]
    [InlineData(0, 50_000, 10_000)] // first growth: the start value
    [InlineData(10_000, 50_000, 20_000)] // then doubled
    [InlineData(150_000, 180_000, 300_000)] // the cap applies at the next halt
    [InlineData(60_000, 50_000, 60_000)] // polling would have caught it
    [InlineData(60_000, 900_000, 0)] // longer than the maximum: shrink
    [InlineData(0, 900_000, 0)]
    public void Polling_time_follows_the_length_of_halts(uint poll, long haltNs, uint expected)
    {
        var clock = new TestClock();
        using var t = new TestHost(options: new HostOptions { CpuCount = 2, TimeProvider = clock });
        int fd = t.Vcpu(t.Vm());
        FakeVcpu v = t.VcpuOf(fd);
        t.Kvm.HaltPollNs.Should().Be(200_000);
        v.HaltPollNs = poll;
        int checks = 0;
        t.Arch.Runnable = _ =>
        {
            // First check: nothing; the time of the halt passes; second check: an event.
            if (++checks == 1) clock.Ns += haltNs;
            return checks >= (poll == 0 || haltNs > poll ? 2 : 3);
        };
        t.Arch.Run = x => Halting(x, t);
        var waker = TestHost.Start(() => TestHost.Await(() => { v.Kick(); return checks >= 2; }));
        t.P.Ioctl(fd, KVM_RUN).Should().Be(KvmResult.Ok);
        TestHost.Join(waker);
        v.HaltPollNs.Should().Be(expected);
    }

    [Fact]
    public void KVM_CAP_HALT_POLL_overrides_the_module_for_one_VM()
    {
        using var t = new TestHost();
        int vm = t.Vm(), fd = t.Vcpu(vm);
        FakeVcpu v = t.VcpuOf(fd);
        t.Arch.Runnable = _ => true;
        t.Arch.Run = x => Halting(x, t);
        v.HaltPollNs = 100_000;
        Cap(t, vm, 5_000, 0).Should().Be(KvmResult.Ok);
        t.P.Ioctl(fd, KVM_RUN);
        v.HaltPollNs.Should().BeLessThanOrEqualTo(5_000, "it is capped by the VM's maximum");
        Cap(t, vm, 1UL << 32, 0).Should().Be((KvmResult)Errno.EINVAL);
        Cap(t, vm, 1, 1).Should().Be((KvmResult)Errno.EINVAL);

        static unsafe KvmResult Cap(TestHost t, int vm, ulong arg, uint flags)
        {
            var cap = new kvm_enable_cap { cap = KVM_CAP_HALT_POLL, flags = flags };
            cap.args[0] = arg;
            return t.P.Ioctl(vm, KVM_ENABLE_CAP, (ulong)&cap);
        }
    }

    [Fact]
    public void NoPoll_forbids_polling_and_its_statistics()
    {
        using var t = new TestHost();
        int fd = t.Vcpu(t.Vm());
        FakeVcpu v = t.VcpuOf(fd);
        t.Arch.NoPollFlag = true;
        t.Arch.Runnable = _ => true;
        v.HaltPollNs = 1000;
        t.Arch.Run = x => Halting(x, t);
        t.P.Ioctl(fd, KVM_RUN);
        v.Stat.HaltAttemptedPoll.Should().Be(0);
        v.HaltPollNs.Should().Be(1000);
    }
}
