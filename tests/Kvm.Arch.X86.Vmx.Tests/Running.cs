using System.Diagnostics;
using Kvm.Abi;
using Kvm.Core;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Vmx.Tests;

/// <summary>Guests that run: exits to userspace, events, failed entries.</summary>
public sealed unsafe class Running
{
    public static TheoryData<string> Parameters => ["", "unrestricted_guest=0", "ept=0", "ept=0 vpid=0", "ept=0 emulate_invalid_guest_state=0", "vpid=0", "eptad=0", "pml=0", "preemption_timer=0", "enable_apicv=0 vnmi=0", "nested=1"];

    [Theory]
    [MemberData(nameof(Parameters))]
    public void Ports_and_halt(string parameters)
    {
        using Guest guest = Guest.Create(out IntelHost host, parameters);
        using IntelHost _ = host;
        guest.Load([0xb0, 0x41, 0xe6, 0x10, 0xe4, 0x20, 0x04, 0x01, 0xe6, 0x30, 0xf4]); // mov al,41; out 10,al; in al,20; add al,1; out 30,al; hlt
        guest.Run().Should().Be((uint)KVM_EXIT_IO);
        Data(guest)[0].Should().Be(0x41);
        guest.Run().Should().Be((uint)KVM_EXIT_IO);
        Data(guest)[0] = 0x76;
        guest.Run().Should().Be((uint)KVM_EXIT_IO);
        Data(guest)[0].Should().Be(0x77);
        guest.Run().Should().Be((uint)KVM_EXIT_HLT);
        guest.Regs().rip.Should().Be(0x100b);
    }

    [Theory]
    [MemberData(nameof(Parameters))]
    public void Loads_and_stores_outside_memory(string parameters)
    {
        using Guest guest = Guest.Create(out IntelHost host, parameters);
        using IntelHost _ = host;
        guest.Load([0xb8, 0x00, 0xd0, 0x8e, 0xd8, 0xb0, 0x5a, 0xa2, 0x10, 0x00, 0xa1, 0x20, 0x00, 0xf4]); // mov ax,d000; mov ds,ax; mov al,5a; mov [10],al; mov ax,[20]; hlt
        guest.Run().Should().Be((uint)KVM_EXIT_MMIO);
        (guest.RunPage->mmio.phys_addr, guest.RunPage->mmio.len, guest.RunPage->mmio.is_write).Should().Be((0xd0010ul, 1u, (byte)1));
        guest.Run().Should().Be((uint)KVM_EXIT_MMIO);
        (guest.RunPage->mmio.phys_addr, guest.RunPage->mmio.len, guest.RunPage->mmio.is_write).Should().Be((0xd0020ul, 2u, (byte)0));
        guest.RunPage->mmio.data[0] = 0x34;
        guest.RunPage->mmio.data[1] = 0x12;
        guest.Run().Should().Be((uint)KVM_EXIT_HLT);
        (guest.Regs().rax & 0xffff).Should().Be(0x1234);
    }

    [Fact]
    public void An_invalid_guest_state_is_FAIL_ENTRY_with_the_processors_reason_and_the_CPU()
    {
        using Guest guest = Guest.Create(out IntelHost host, "dump_invalid_vmcs=1");
        using IntelHost _ = host;
        host.Process.Task.SetAffinity(1);
        guest.Load([0xf4]);
        guest.Sregs(static (ref kvm_sregs s) => s.ss.limit = 0x1_0000_1).Should().Be((KvmResult)0);
        guest.Sregs(static (ref kvm_sregs s) =>
        {
            // A limit above 64 KiB needs granularity in the access rights.
            s.ss.limit = 0xfffff001;
            s.ss.g = 0;
        }).Should().Be((KvmResult)0);
        guest.Run().Should().Be((uint)KVM_EXIT_FAIL_ENTRY);
        guest.RunPage->fail_entry.hardware_entry_failure_reason.Should().Be(0x80000021);
        guest.RunPage->fail_entry.cpu.Should().Be(1);
        host.Dmesg.Should().Contain(static l => l.Contains("*** Guest State ***", StringComparison.Ordinal));
        host.Dmesg.Should().Contain(static l => l.Contains("*** Host State ***", StringComparison.Ordinal));
        host.Dmesg.Should().Contain(static l => l.Contains("*** Control State ***", StringComparison.Ordinal));
    }

    [Fact]
    public void Without_the_parameter_a_failed_entry_only_hints_at_it()
    {
        using Guest guest = Guest.Create(out IntelHost host);
        using IntelHost _ = host;
        guest.Load([0xf4]);
        guest.Sregs(static (ref kvm_sregs s) =>
        {
            s.ss.limit = 0xfffff001;
            s.ss.g = 0;
        });
        guest.Run().Should().Be((uint)KVM_EXIT_FAIL_ENTRY);
        host.Dmesg.Should().Contain(static l => l.EndsWith("set kvm_intel.dump_invalid_vmcs=1 to dump internal KVM state.", StringComparison.Ordinal));
        host.Dmesg.Should().NotContain(static l => l.Contains("*** Guest State ***", StringComparison.Ordinal));
    }

    [Fact]
    public void A_triple_fault_is_a_shutdown_with_the_registers_as_they_were()
    {
        using Guest guest = Guest.Create(out IntelHost host);
        using IntelHost _ = host;
        guest.Load([0x0f, 0x01, 0x1e, 0x00, 0x20, 0xcc]); // lidt [2000]: limit 0; int3
        guest.Run().Should().Be((uint)KVM_EXIT_SHUTDOWN);
        guest.Regs().rip.Should().Be(0x1005);
    }

    [Theory]
    [InlineData("")]
    [InlineData("unrestricted_guest=0")]
    [InlineData("ept=0")]
    public void An_interrupt_waits_for_IF_and_is_delivered(string parameters)
    {
        using Guest guest = Guest.Create(out IntelHost host, parameters);
        using IntelHost _ = host;
        // 1000: out 1,al; sti; nop; out 2,al; hlt.  The handler at 1100: out 3,al; iret
        guest.Load([0xe6, 0x01, 0xfb, 0x90, 0xe6, 0x02, 0xf4]);
        new byte[] { 0xe6, 0x03, 0xcf }.CopyTo(new Span<byte>(guest.Memory + 0x1100, 3));
        *(uint*)(guest.Memory + 0x20 * 4) = 0x1100;
        guest.Run().Should().Be((uint)KVM_EXIT_IO);
        guest.RunPage->if_flag.Should().Be(0);
        guest.RunPage->request_interrupt_window = 1;
        guest.Run().Should().Be((uint)KVM_EXIT_IRQ_WINDOW_OPEN);
        guest.RunPage->request_interrupt_window = 0;
        guest.RunPage->ready_for_interrupt_injection.Should().Be(1);
        var irq = new kvm_interrupt { irq = 0x20 };
        host.Process.Ioctl(host.VcpuFd, KVM_INTERRUPT, ref irq).Should().Be((KvmResult)0);
        guest.Run().Should().Be((uint)KVM_EXIT_IO);
        guest.RunPage->io.port.Should().Be(3);
        guest.Run().Should().Be((uint)KVM_EXIT_IO);
        guest.RunPage->io.port.Should().Be(2);
        guest.Run().Should().Be((uint)KVM_EXIT_HLT);
    }

    [Theory]
    [InlineData("")]
    [InlineData("vnmi=0")]
    public void A_second_NMI_waits_for_IRET(string parameters)
    {
        using Guest guest = Guest.Create(out IntelHost host, parameters);
        using IntelHost _ = host;
        // 1000: nop; out 2,al; hlt.  NMI at 1100: out 3,al; iret
        guest.Load([0x90, 0xe6, 0x02, 0xf4]);
        new byte[] { 0xe6, 0x03, 0xcf }.CopyTo(new Span<byte>(guest.Memory + 0x1100, 3));
        *(uint*)(guest.Memory + 2 * 4) = 0x1100;
        // Without virtual NMIs KVM takes an open interrupt window for the end of the handler.
        guest.SetRegs(new kvm_regs { rip = 0x1000, rsp = 0x8000, rflags = 0x202 });
        host.Process.Ioctl(host.VcpuFd, KVM_NMI).Should().Be((KvmResult)0);
        guest.Run().Should().Be((uint)KVM_EXIT_IO);
        guest.RunPage->io.port.Should().Be(3);
        host.Process.Ioctl(host.VcpuFd, KVM_NMI).Should().Be((KvmResult)0);
        kvm_vcpu_events events = default;
        host.Process.Ioctl(host.VcpuFd, KVM_GET_VCPU_EVENTS, ref events);
        events.nmi.masked.Should().Be(1);
        guest.Run().Should().Be((uint)KVM_EXIT_IO);
        guest.RunPage->io.port.Should().Be(3, "the second NMI comes right after the IRET of the first");
        guest.Run().Should().Be((uint)KVM_EXIT_IO);
        guest.RunPage->io.port.Should().Be(2);
    }

    [Fact]
    public void Single_steps_and_software_breakpoints_go_to_the_debugger()
    {
        using Guest guest = Guest.Create(out IntelHost host);
        using IntelHost _ = host;
        guest.Load([0x90, 0x90, 0xcc, 0x90, 0xf4]);
        var debug = new kvm_guest_debug { control = (uint)(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_SW_BP) };
        host.Process.Ioctl(host.VcpuFd, KVM_SET_GUEST_DEBUG, ref debug).Should().Be((KvmResult)0);
        guest.Run().Should().Be((uint)KVM_EXIT_DEBUG);
        (guest.RunPage->debug.arch.exception, guest.RunPage->debug.arch.pc).Should().Be((1u, 0x1001ul));
        guest.Run().Should().Be((uint)KVM_EXIT_DEBUG);
        guest.RunPage->debug.arch.pc.Should().Be(0x1002);
        guest.Run().Should().Be((uint)KVM_EXIT_DEBUG);
        (guest.RunPage->debug.arch.exception, guest.RunPage->debug.arch.pc).Should().Be((3u, 0x1002ul));
    }

    [Theory]
    [InlineData("")]
    [InlineData("pml=0")]
    [InlineData("eptad=0")]
    public void Dirty_pages_are_logged(string parameters)
    {
        using Guest guest = Guest.Create(out IntelHost host, parameters);
        using IntelHost _ = host;
        guest.Load([0xa2, 0x00, 0x30, 0xa2, 0x00, 0x50, 0xe6, 0x01, 0xa2, 0x00, 0x70, 0xe6, 0x01, 0xf4], slotFlags: (uint)KVM_MEM_LOG_DIRTY_PAGES);
        guest.Run().Should().Be((uint)KVM_EXIT_IO);
        DirtyLog(host).Should().Be(1ul << 1 | 1ul << 3 | 1ul << 5, "a page that could be written when it was mapped for the code counts");
        DirtyLog(host).Should().Be(0);
        guest.Run().Should().Be((uint)KVM_EXIT_IO);
        DirtyLog(host).Should().Be(1ul << 7);
    }

    [Fact]
    public void The_log_of_the_processor_overflows_without_loss()
    {
        using Guest guest = Guest.Create(out IntelHost host);
        using IntelHost _ = host;
        // 1000: mov bx,2000; 1003: mov [bx],al; add bx,1000; cmp bx,f000; jne 1003; out 1,al; jmp 1000
        guest.Load([0xbb, 0x00, 0x20, 0x88, 0x07, 0x81, 0xc3, 0x00, 0x10, 0x81, 0xfb, 0x00, 0xf0, 0x75, 0xf4, 0xe6, 0x01, 0xeb, 0xed], slotFlags: (uint)KVM_MEM_LOG_DIRTY_PAGES);
        guest.Run().Should().Be((uint)KVM_EXIT_IO);
        DirtyLog(host).Should().Be(0x7ffeul);
        // Room for four entries only: the guest dirties 13 pages that are mapped already.
        VcpuVmx vcpu = host.Vcpu();
        host.OnCpu(vcpu.LoadedVmcs.Cpu, () => host.HostX86.ThisCpu.Processor.Vmwrite((uint)Emulator.Vmx.VmcsField.GUEST_PML_INDEX, 3).Ok.Should().BeTrue());
        InstructionLog log = InstructionLog.On(host);
        guest.Run().Should().Be((uint)KVM_EXIT_IO);
        log.Take().Should().Contain(static i => i.Mnemonic == "VMEXIT" && i.Operand == 62, "the log was full");
        (DirtyLog(host) & ~1ul).Should().Be(0x7ffcul, "and page 0 stands for the entries that were skipped");
    }

    [Fact]
    public void CPUID_RDMSR_WRMSR_come_from_KVM()
    {
        using Guest guest = Guest.Create(out IntelHost host);
        using IntelHost _ = host;
        guest.SetCpuid();
        // mov eax,0; cpuid; out 1,eax; mov ecx,1b; rdmsr; hlt
        guest.Load([0x66, 0x31, 0xc0, 0x0f, 0xa2, 0x66, 0xb9, 0x1b, 0x00, 0x00, 0x00, 0x0f, 0x32, 0xf4]);
        guest.Run().Should().Be((uint)KVM_EXIT_HLT);
        guest.Regs().rbx.Should().Be(0x756e6547);
        guest.Regs().rax.Should().Be(0xfee00900);
    }

    [Fact]
    public void VMX_instructions_do_not_exist_for_a_guest()
    {
        using Guest guest = Guest.Create(out IntelHost host, "nested=1");
        using IntelHost _ = host;
        guest.SetCpuid();
        guest.Load([0x0f, 0x01, 0xc4]); // vmxoff
        new byte[] { 0xe6, 0x06, 0xf4 }.CopyTo(new Span<byte>(guest.Memory + 0x1100, 3));
        *(uint*)(guest.Memory + 6 * 4) = 0x1100;
        guest.Run().Should().Be((uint)KVM_EXIT_IO);
        guest.RunPage->io.port.Should().Be(6);
    }

    [Fact]
    public void A_vcpu_moves_between_processors_while_it_runs()
    {
        using Guest guest = Guest.Create(out IntelHost host);
        using IntelHost _ = host;
        guest.Load([0x40, 0xe7, 0x10, 0xeb, 0xfb]); // inc ax; out 10,ax; jmp
        for (ushort i = 1; i <= 40; i++)
        {
            host.Process.Task.SetAffinity(i % 2);
            guest.Run().Should().Be((uint)KVM_EXIT_IO);
            (*(ushort*)Data(guest)).Should().Be(i);
        }
    }

    [Fact]
    public void A_signal_ends_an_endless_loop()
    {
        using Guest guest = Guest.Create(out IntelHost host);
        using IntelHost _ = host;
        guest.Load([0xeb, 0xfe]);
        HostTask task = host.Process.Task;
        host.Process.SignalHandler = static (_, _) => { };
        var sender = new Thread(() =>
        {
            Thread.Sleep(100);
            task.Send(10);
        });
        sender.Start();
        var watch = Stopwatch.StartNew();
        guest.RunRaw().Should().Be((KvmResult)Errno.EINTR);
        guest.RunPage->exit_reason.Should().Be((uint)KVM_EXIT_INTR);
        watch.Elapsed.Should().BeLessThan(TimeSpan.FromSeconds(20));
        sender.Join();
    }

    [Fact]
    public void Exits_allocate_nothing()
    {
        using Guest guest = Guest.Create(out IntelHost host);
        using IntelHost _ = host;
        guest.SetCpuid();
        // cpuid 1000 times, then out; again and again
        guest.Load([0xb9, 0xe8, 0x03, 0x51, 0x66, 0x31, 0xc0, 0x0f, 0xa2, 0x59, 0xe2, 0xf7, 0xe6, 0x01, 0xeb, 0xf0]);
        for (int i = 0; i < 3; i++)
            guest.Run().Should().Be((uint)KVM_EXIT_IO);
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 5; i++)
            guest.RunRaw();
        long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        allocated.Should().BeLessThan(5000, "5000 exits were handled");
    }

    private static byte* Data(Guest guest) => (byte*)guest.RunPage + guest.RunPage->io.data_offset;

    private static ulong DirtyLog(IntelHost host)
    {
        ulong bitmap = 0;
        var log = new kvm_dirty_log { dirty_bitmap = (ulong)&bitmap };
        host.Process.Ioctl(host.VmFd, KVM_GET_DIRTY_LOG, ref log).Should().Be((KvmResult)0);
        return bitmap;
    }
}
