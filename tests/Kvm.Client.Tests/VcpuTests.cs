using Kvm.Abi;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;

namespace Kvm.Client.Tests;

public class VcpuTests
{
    public static TheoryData<string> All => Kernels.All;

    /// <summary>The first guest of every KVM tutorial: add two numbers, print, halt.</summary>
    [SkippableTheory, MemberData(nameof(All))]
    public void Guest_adds_prints_and_halts(string kernel)
    {
        using var guest = new RealModeGuest(kernel, c =>
        {
            c.mov(dx, 0x3f8);
            c.add(al, bl);
            c.add(al, (sbyte)'0');
            c.@out(dx, al);
            c.mov(al, 10);
            c.@out(dx, al);
            c.hlt();
        });
        kvm_regs regs = guest.Vcpu.Regs;
        regs.rax = 2;
        regs.rbx = 2;
        guest.Vcpu.Regs = regs;

        var output = new List<byte>();
        while (true)
        {
            VcpuExit exit = guest.Vcpu.Run();
            if (exit.Reason == KVM_EXIT_HLT) break;
            exit.Reason.Should().Be(KVM_EXIT_IO);
            exit.Io.IsOut.Should().BeTrue();
            exit.Io.Port.Should().Be(0x3f8);
            output.AddRange(exit.Io.Data);
        }

        output.Should().Equal("4\n"u8.ToArray());
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Port_input_reaches_the_guest(string kernel)
    {
        using var guest = new RealModeGuest(kernel, c =>
        {
            c.@in(al, 0x42);
            c.hlt();
        });
        VcpuExit exit = guest.Vcpu.Run();
        exit.Reason.Should().Be(KVM_EXIT_IO);
        exit.Io.IsOut.Should().BeFalse();
        exit.Io.Size.Should().Be(1);
        exit.Io.Data[0] = 0xa5;
        guest.Vcpu.Run().Reason.Should().Be(KVM_EXIT_HLT);
        (guest.Vcpu.Regs.rax & 0xff).Should().Be(0xa5);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Mmio_goes_out_and_in(string kernel)
    {
        using var guest = new RealModeGuest(kernel, c =>
        {
            c.mov(__word_ptr[0x8000], 0x1234);
            c.mov(ax, __word_ptr[0x8002]);
            c.hlt();
        });
        VcpuExit write = guest.Vcpu.Run();
        write.Reason.Should().Be(KVM_EXIT_MMIO);
        write.Mmio.IsWrite.Should().BeTrue();
        write.Mmio.Address.Should().Be(0x8000);
        write.Mmio.Data.ToArray().Should().Equal(0x34, 0x12);

        VcpuExit read = guest.Vcpu.Run();
        read.Mmio.IsWrite.Should().BeFalse();
        read.Mmio.Address.Should().Be(0x8002);
        read.Mmio.Data.Length.Should().Be(2);
        read.Mmio.Data[0] = 0x78;
        read.Mmio.Data[1] = 0x56;
        guest.Vcpu.Run().Reason.Should().Be(KVM_EXIT_HLT);
        (guest.Vcpu.Regs.rax & 0xffff).Should().Be(0x5678);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Kick_ends_an_endless_loop(string kernel)
    {
        using var guest = new RealModeGuest(kernel, c =>
        {
            var here = c.CreateLabel();
            c.Label(ref here);
            c.jmp(here);
        });
        using var timer = new Timer(_ => guest.Vcpu.Kick(), null, 50, Timeout.Infinite);
        VcpuExit exit = guest.Vcpu.Run();
        exit.Interrupted.Should().BeTrue();
        exit.Reason.Should().Be(KVM_EXIT_INTR);
        guest.Vcpu.RunPage.immediate_exit.Should().Be(0, "a kick ends one run only");
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Kick_before_a_run_ends_that_run(string kernel)
    {
        using var guest = new RealModeGuest(kernel, c => c.hlt());
        guest.Vcpu.Kick();
        guest.Vcpu.Run().Interrupted.Should().BeTrue();
        guest.Vcpu.Run().Reason.Should().Be(KVM_EXIT_HLT);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Registers_read_back(string kernel)
    {
        using var guest = new RealModeGuest(kernel, c => c.hlt());
        var regs = new kvm_regs { rax = 1, rbx = 2, rcx = 3, rdx = 4, rsi = 5, rdi = 6, rsp = 7, rbp = 8, r8 = 9, r15 = 16, rip = 0x1000, rflags = 2 };
        guest.Vcpu.Regs = regs;
        guest.Vcpu.Regs.Should().Be(regs);

        kvm_sregs sregs = guest.Vcpu.SRegs;
        sregs.ds.@base = 0x12340;
        sregs.ds.selector = 0x1234;
        sregs.cr2 = 0xabcd;
        guest.Vcpu.SRegs = sregs;
        guest.Vcpu.SRegs.ds.@base.Should().Be(0x12340);
        guest.Vcpu.SRegs.cr2.Should().Be(0xabcd);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Cpuid_reads_back_and_reaches_the_guest(string kernel)
    {
        using var guest = new RealModeGuest(kernel, c =>
        {
            c.mov(eax, 0x40000000);
            c.cpuid();
            c.hlt();
        });
        kvm_cpuid_entry2[] entries = guest.System.GetSupportedCpuid();
        guest.Vcpu.SetCpuid(entries);
        guest.Vcpu.GetCpuid().Select(e => e.function).Should().Equal(entries.Select(e => e.function));
        guest.Vcpu.Run().Reason.Should().Be(KVM_EXIT_HLT);
        guest.Vcpu.Regs.rbx.Should().Be(0x4b4d564b, "KVMK");
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Msrs_read_back_and_unknown_ones_are_refused(string kernel)
    {
        using var guest = new RealModeGuest(kernel, c => c.hlt());
        guest.Vcpu.SetMsr(0x174, 0x10);
        guest.Vcpu.GetMsr(0x174).Should().Be(0x10);
        FluentActions.Invoking(() => guest.Vcpu.GetMsr(0x12345)).Should().Throw<KvmException>().Where(e => e.Errno == Errno.EINVAL);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Fresh_vcpu_is_runnable_and_has_no_events(string kernel)
    {
        using var guest = new RealModeGuest(kernel, c => c.hlt());
        guest.Vcpu.MpState.Should().Be((uint)KVM_MP_STATE_RUNNABLE);
        kvm_vcpu_events events = guest.Vcpu.VcpuEvents;
        events.exception.injected.Should().Be(0);
        events.interrupt.injected.Should().Be(0);
        guest.Vcpu.VcpuEvents = events;
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Interrupt_is_delivered_through_the_vector_table(string kernel)
    {
        const int Vector = 0x20;
        using var guest = new RealModeGuest(kernel, c =>
        {
            var wait = c.CreateLabel();
            c.sti();
            c.Label(ref wait);
            c.jmp(wait);
        });
        guest.Ram.At(0x1100, 1)[0] = 0xf4; // hlt
        kvm_sregs sregs = guest.Vcpu.SRegs;
        sregs.idt.@base = 0x2000;
        sregs.idt.limit = 0x3ff;
        guest.Vcpu.SRegs = sregs;
        guest.Ram.At(0x2000 + Vector * 4, 4)[1] = 0x11; // the vector is 0000:1100

        guest.Vcpu.RunPage.request_interrupt_window = 1;
        VcpuExit exit = guest.Vcpu.Run();
        exit.Reason.Should().Be(KVM_EXIT_IRQ_WINDOW_OPEN);
        guest.Vcpu.RunPage.request_interrupt_window = 0;
        guest.Vcpu.Interrupt(Vector);
        guest.Vcpu.Run().Reason.Should().Be(KVM_EXIT_HLT);
        guest.Vcpu.Regs.rip.Should().Be(0x1101);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Run_allocates_nothing(string kernel)
    {
        using var guest = new RealModeGuest(kernel, c =>
        {
            var again = c.CreateLabel();
            c.Label(ref again);
            c.@out(0x10, al);
            c.jmp(again);
        });
        for (int i = 0; i < 100; i++) guest.Vcpu.Run();
        // What the runtime allocates once (a method that is compiled again) shows in one round, what an exit allocates in each.
        long least = long.MaxValue;
        for (int round = 0; round < 5; round++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < 200; i++) guest.Vcpu.Run();
            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
        }

        least.Should().Be(0);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Vm_lives_on_while_its_vcpu_is_open(string kernel)
    {
        using var kvm = Kernels.Open(kernel);
        Vm vm = kvm.CreateVm();
        using Vcpu vcpu = vm.CreateVcpu(0);
        vm.Dispose();
        vcpu.Regs.rip.Should().Be(0xfff0);
    }
}
