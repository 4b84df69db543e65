using Kvm.Abi;
using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Run;

public unsafe class KvmRun
{
    public static TheoryData<string> Vendors => ["amd", "intel"];

    [Theory, MemberData(nameof(Vendors))]
    public void Unmapped_host_memory_is_efault(string vendor)
    {
        using var g = new Guest(vendor);
        g.Load([0xf4]);
        g.Process.Munmap((ulong)g.Memory, Guest.MemorySize);
        g.RunOnce().Raw.Should().Be(-(long)Errno.EFAULT);
    }

    [Theory, MemberData(nameof(Vendors))]
    public void Immediate_exit_is_eintr_before_the_guest(string vendor)
    {
        using var g = new Guest(vendor);
        g.Load([0xf4]);
        g.Run->immediate_exit = 1;
        g.RunOnce().Raw.Should().Be(-(long)Errno.EINTR);
        g.Regs.rip.Should().Be(0x1000);
        g.Run->immediate_exit = 0;
        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
    }

    [Theory, MemberData(nameof(Vendors))]
    public void Triple_fault_is_a_shutdown_exit(string vendor)
    {
        using var g = new Guest(vendor);
        g.Load([0xcd, 0x20]);
        kvm_sregs s = g.Sregs;
        s.idt.limit = 0;
        g.Sregs = s;
        g.RunToExit().Should().Be((uint)KVM_EXIT_SHUTDOWN);
    }

    [Theory, MemberData(nameof(Vendors))]
    public void Userspace_interrupt_is_delivered_when_the_window_opens(string vendor)
    {
        using var g = new Guest(vendor);
        // cli first; sti; nop; jmp $   handler: mov al,7; hlt
        g.Load([0xfb, 0x90, 0xeb, 0xfe]);
        *(uint*)(g.Memory + (0x20 * 4)) = 0x1100;
        new byte[] { 0xb0, 0x07, 0xf4 }.CopyTo(new Span<byte>(g.Memory + 0x1100, 3));
        g.Run->request_interrupt_window = 1;
        g.RunToExit().Should().Be((uint)KVM_EXIT_IRQ_WINDOW_OPEN);
        g.Run->ready_for_interrupt_injection.Should().Be(1);
        g.Run->if_flag.Should().Be(1);
        g.Run->request_interrupt_window = 0;
        var irq = new kvm_interrupt { irq = 0x20 };
        Guest.Ok(g.VcpuIoctl(KVM_INTERRUPT, &irq));
        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        (g.Regs.rax & 0xff).Should().Be(7);
    }

    [Theory, MemberData(nameof(Vendors))]
    public void Nmi_goes_through_vector_2(string vendor)
    {
        using var g = new Guest(vendor);
        g.Load([0x90, 0xeb, 0xfe]);
        *(uint*)(g.Memory + 8) = 0x1100;
        new byte[] { 0xb0, 0x09, 0xf4 }.CopyTo(new Span<byte>(g.Memory + 0x1100, 3));
        Guest.Ok(g.Process.Ioctl(g.VcpuFd, KVM_NMI));
        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        (g.Regs.rax & 0xff).Should().Be(9);
        g.Events.nmi.masked.Should().Be(1);
    }

    [Theory, MemberData(nameof(Vendors))]
    public void Single_step_exits_after_every_instruction(string vendor)
    {
        using var g = new Guest(vendor);
        g.Load([0x90, 0x90, 0xf4]);
        var debug = new kvm_guest_debug { control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP };
        Guest.Ok(g.VcpuIoctl(KVM_SET_GUEST_DEBUG, &debug));
        for (ulong rip = 0x1001; rip <= 0x1002; rip++)
        {
            g.RunToExit().Should().Be((uint)KVM_EXIT_DEBUG);
            g.Run->debug.arch.pc.Should().Be(rip);
            (g.Run->debug.arch.dr6 & 0x4000).Should().Be(0x4000);
        }
    }

    [Theory, MemberData(nameof(Vendors))]
    public void Cpuid_answers_what_userspace_set(string vendor)
    {
        using var g = new Guest(vendor);
        byte* block = stackalloc byte[sizeof(kvm_cpuid2) + sizeof(kvm_cpuid_entry2)];
        *(uint*)block = 1;
        kvm_cpuid_entry2* e = (kvm_cpuid_entry2*)(block + 8);
        *e = new kvm_cpuid_entry2 { function = 0, eax = 0, ebx = 0x11223344 };
        Guest.Ok(g.VcpuIoctl(KVM_SET_CPUID2, block));
        g.Load([0x66, 0x31, 0xc0, 0x0f, 0xa2, 0xf4]); // xor eax, eax; cpuid
        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        g.Regs.rbx.Should().Be(0x11223344);
    }

    [Theory, MemberData(nameof(Vendors))]
    public void Signal_ends_a_guest_that_loops(string vendor)
    {
        using var g = new Guest(vendor);
        g.Load([0xeb, 0xfe]);
        HostTask? task = null;
        var thread = new Thread(() =>
        {
            task = g.Process.Task;
            g.RunOnce().Raw.Should().Be(-(long)Errno.EINTR);
        });
        thread.Start();
        while (task is null || g.Vcpu.Mode != VcpuMode.IN_GUEST_MODE)
            Thread.Yield();
        task.Send(10);
        thread.Join(20000).Should().BeTrue();
        g.Run->exit_reason.Should().Be((uint)KVM_EXIT_INTR);
    }

    [Theory, MemberData(nameof(Vendors))]
    public void All_pages_come_back_after_the_last_close(string vendor)
    {
        using var g = new Guest(vendor, vm: false);
        long before = g.Kernel.Host.Pages.InUse;
        using (var other = new Scope(g))
            other.RunSomething();
        g.Kernel.Host.Pages.InUse.Should().Be(before);
    }

    private sealed class Scope(Guest g) : IDisposable
    {
        private readonly int vm = Guest.Ok(g.Process.Ioctl(g.KvmFd, KVM_CREATE_VM));
        private int vcpu = -1;
        private ulong memory;
        private ulong run;
        private ulong runSize;

        public void RunSomething()
        {
            memory = g.Process.MapAnonymous(4 << 20);
            *(byte*)(memory + 0x1000) = 0xf4;
            var region = new kvm_userspace_memory_region { memory_size = 4 << 20, userspace_addr = memory };
            Guest.Ok(g.Process.Ioctl(vm, KVM_SET_USER_MEMORY_REGION, (ulong)&region));
            vcpu = Guest.Ok(g.Process.Ioctl(vm, KVM_CREATE_VCPU, 0));
            runSize = (ulong)Guest.Ok(g.Process.Ioctl(g.KvmFd, KVM_GET_VCPU_MMAP_SIZE));
            run = (ulong)g.Process.Mmap(runSize, 3, Fcntl.MAP_SHARED, vcpu).Raw;
            kvm_sregs s;
            Guest.Ok(g.Process.Ioctl(vcpu, KVM_GET_SREGS, (ulong)&s));
            s.cs.@base = 0;
            s.cs.selector = 0;
            Guest.Ok(g.Process.Ioctl(vcpu, KVM_SET_SREGS, (ulong)&s));
            var r = new kvm_regs { rip = 0x1000, rflags = 2 };
            Guest.Ok(g.Process.Ioctl(vcpu, KVM_SET_REGS, (ulong)&r));
            Guest.Ok(g.Process.Ioctl(vcpu, KVM_RUN));
            ((kvm_run*)run)->exit_reason.Should().Be((uint)KVM_EXIT_HLT);
        }

        public void Dispose()
        {
            g.Process.Munmap(run, runSize);
            g.Process.Close(vcpu);
            g.Process.Close(vm);
            g.Process.Munmap(memory, 4 << 20);
        }
    }
}
