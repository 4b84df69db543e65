using Kvm.Abi;
using Kvm.Core;
using Kvm.Emulator;
using Kvm.Emulator.Svm;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Svm.Tests;

/// <summary>Entering guests: the order of the SVM instructions, exits, windows for interrupts and NMIs, failed entries.</summary>
public sealed unsafe class Runs
{
    [Fact]
    public void The_instructions_around_VMRUN()
    {
        using var guest = new Guest();
        guest.Load(0xe6, 0x10, 0xe6, 0x10);
        guest.RunToExit();
        string[] first = [.. guest.RunAndLog(KVM_EXIT_IO).Select(static i => i.Mnemonic)];
        first.SkipWhile(static m => m != "VMSAVE").Where(static m => m is not ("RDMSR" or "WRMSR")).Should().Equal("VMSAVE", "CLGI", "VMLOAD", "VMRUN", "VMEXIT", "VMSAVE", "VMLOAD", "STGI");
    }

    [Fact]
    public void A_second_entry_without_leaving_KVM_RUN_saves_no_host_state()
    {
        using var guest = new Guest();
        guest.Load(0xe6, 0x10, 0x0f, 0xa2, 0xe6, 0x10); // out 10h, al; cpuid; out 10h, al
        guest.RunToExit();
        guest.RunAndLog(KVM_EXIT_IO).Count(static i => i.Mnemonic == "VMSAVE").Should().Be(3, "the host's once, the guest's twice");
    }

    [Fact]
    public void Clean_bits_are_all_set_when_nothing_changed_and_TLB_control_is_done()
    {
        using var guest = new Guest();
        guest.Load(0xe6, 0x10, 0xeb, 0xfc);
        guest.RunToExit();
        guest.RunToExit();
        ((byte)guest.Control.TlbControl).Should().Be(0);
        // KVM sets every bit but the intercepts' and the TPR's it changes itself; recorded after the first run.
        ((uint)guest.Control.Clean & 0xdf7).Should().Be(0xdf7);
    }

    [Fact]
    public void CPUID_stays_in_the_kernel()
    {
        using var guest = new Guest();
        guest.Load(0xe6, 0x10, 0x66, 0x31, 0xc0, 0x0f, 0xa2, 0xf4); // out 10h, al; xor eax, eax; cpuid; hlt
        guest.RunToExit();
        List<Instruction> log = guest.RunAndLog(KVM_EXIT_HLT);
        log.Where(static i => i.Mnemonic == "VMEXIT").Select(static i => i.Operand).Should().Equal((ulong)SVM_EXIT_CPUID, (ulong)SVM_EXIT_HLT);
        guest.Regs.rip.Should().Be(0x1008);
    }

    [Fact]
    public void MSRs_that_are_passed_through_do_not_exit_others_do()
    {
        using var guest = new Guest();
        // out 10h, al; mov ecx, 174h; rdmsr; mov ecx, c0000080h; rdmsr; hlt
        guest.Load(0xe6, 0x10, 0x66, 0xb9, 0x74, 0x01, 0, 0, 0x0f, 0x32, 0x66, 0xb9, 0x80, 0, 0, 0xc0, 0x0f, 0x32, 0xf4);
        guest.RunToExit();
        guest.RunAndLog(KVM_EXIT_HLT).Where(static i => i.Mnemonic == "VMEXIT").Select(static i => i.Operand).Should().Equal((ulong)SVM_EXIT_MSR, (ulong)SVM_EXIT_HLT);
        guest.Regs.rax.Should().Be(0, "SVME is KVM's");
    }

    [Fact]
    public void Shutdown_resets_the_vCPU_as_INIT_does()
    {
        using var guest = new Guest();
        guest.Load(0x0f, 0x01, 0x1e, 0x00, 0x20, 0xcc); // lidt [2000h], which is zero; int3
        guest.RunToExit().Should().Be((uint)KVM_EXIT_SHUTDOWN);
        kvm_regs r = guest.Regs;
        (r.rip, r.rax, r.rsp, r.rflags).Should().Be((0xfff0ul, 0ul, 0ul, 2ul));
        guest.Sregs.cs.selector.Should().Be(0xf000);
        guest.Sregs.idt.limit.Should().Be(0xffff);
    }

    [Fact]
    public void VMMCALL_is_a_hypercall()
    {
        using var guest = new Guest();
        guest.Load(0x66, 0xb8, 0xff, 0, 0, 0, 0x0f, 0x01, 0xd9, 0xf4); // mov eax, ffh; vmmcall; hlt
        guest.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        ((int)guest.Regs.rax).Should().Be(-1000, "no such call");
    }

    [Fact]
    public void SVM_instructions_of_a_guest_without_SVME_are_undefined()
    {
        using var guest = new Guest();
        ((ushort*)guest.Memory)[12] = 0x1100; // vector 6: 0:1100
        guest.Memory[0x1100] = 0xf4;
        guest.Load(0x0f, 0x01, 0xd8); // vmrun
        guest.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        guest.Regs.rip.Should().Be(0x1101);
    }

    [Fact]
    public void An_interrupt_waits_for_its_window()
    {
        using var guest = new Guest();
        ((ushort*)guest.Memory)[0x40 * 2] = 0x1100;
        guest.Memory[0x1100] = 0xf4;
        guest.Load(0xe6, 0x10, 0xfb, 0x90, 0xe6, 0x11); // out 10h, al; sti; nop; out 11h, al
        guest.Run->request_interrupt_window = 1;
        guest.RunToExit().Should().Be((uint)KVM_EXIT_IO);
        List<Instruction> log = guest.RunAndLog(KVM_EXIT_IRQ_WINDOW_OPEN);
        log.Where(static i => i.Mnemonic == "VMEXIT").Select(static i => i.Operand).Should().Equal((ulong)SVM_EXIT_VINTR);
        guest.Regs.rip.Should().Be(0x1004, "after the instruction in STI's shadow");
        guest.Run->request_interrupt_window = 0;
        guest.Set(KVM_INTERRUPT, new kvm_interrupt { irq = 0x40 });
        guest.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        guest.Regs.rip.Should().Be(0x1101);
        ((uint)guest.Control.IntControl & SvmConst.V_IRQ_MASK).Should().Be(0, "the dummy interrupt is gone");
    }

    [Fact]
    public void A_second_NMI_waits_for_the_IRET_of_the_first()
    {
        using var guest = new Guest();
        ((ushort*)guest.Memory)[2 * 2] = 0x1100;
        new byte[] { 0xe6, 0x20, 0xcf }.CopyTo(new Span<byte>(guest.Memory + 0x1100, 3)); // out 20h, al; iret
        guest.Load(0x90, 0xf4);
        Guest.Ok(guest.Process.Ioctl(guest.VcpuFd, KVM_NMI));
        guest.RunToExit().Should().Be((uint)KVM_EXIT_IO);
        guest.Get<kvm_vcpu_events>(KVM_GET_VCPU_EVENTS).nmi.masked.Should().Be(1);
        Guest.Ok(guest.Process.Ioctl(guest.VcpuFd, KVM_NMI));
        List<Instruction> log = guest.RunAndLog(KVM_EXIT_IO);
        log.Should().Contain(static i => i.Mnemonic == "VMEXIT" && i.Operand == SVM_EXIT_IRET);
        guest.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        guest.Get<kvm_vcpu_events>(KVM_GET_VCPU_EVENTS).nmi.masked.Should().Be(0);
        guest.Regs.rip.Should().Be(0x1002);
        (guest.Regs.rflags & 0x100).Should().Be(0, "the single step to the window is over");
    }

    [Fact]
    public void An_exception_is_injected_with_its_error_code()
    {
        using var guest = new Guest();
        ((ushort*)guest.Memory)[13 * 2] = 0x1100;
        guest.Memory[0x1100] = 0xf4;
        guest.Load(0x90, 0xf4);
        kvm_vcpu_events events = guest.Get<kvm_vcpu_events>(KVM_GET_VCPU_EVENTS);
        events.exception.injected = 1;
        events.exception.nr = 13;
        guest.Set(KVM_SET_VCPU_EVENTS, events);
        guest.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        guest.Regs.rip.Should().Be(0x1101);
    }

    [Fact]
    public void Debug_registers_are_the_guests_after_the_first_access()
    {
        using var guest = new Guest();
        guest.Load(0x66, 0xb8, 0x34, 0x12, 0, 0, 0x0f, 0x23, 0xc0, 0x0f, 0x23, 0xc8, 0xf4); // mov eax, 1234h; mov dr0, eax; mov dr1, eax; hlt
        List<Instruction> log = guest.RunAndLog(KVM_EXIT_HLT);
        log.Count(static i => i.Mnemonic == "VMEXIT" && i.Operand is >= SVM_EXIT_WRITE_DR0 and <= SVM_EXIT_WRITE_DR7).Should().Be(1);
        kvm_debugregs regs = guest.Get<kvm_debugregs>(KVM_GET_DEBUGREGS);
        (regs.db[0], regs.db[1]).Should().Be((0x1234ul, 0x1234ul));
    }

    [Fact]
    public void CR8_of_a_guest_is_the_virtual_TPR()
    {
        using var guest = new Guest();
        guest.Load(0xf4);
        guest.Run->cr8 = 5;
        guest.RunToExit();
        ((uint)guest.Control.IntControl & 0xf).Should().Be(5);
        guest.Run->cr8.Should().Be(5);
    }

    /// <summary>Recorded: EFER bit 1 passes KVM_SET_SREGS and not VMRUN; the dump, but for addresses, times and what ran before.</summary>
    [Fact]
    public void A_failed_entry_is_dumped_as_recorded()
    {
        using var guest = new Guest("dump_invalid_vmcb=1");
        guest.Load(0x90);
        kvm_sregs s = guest.Sregs;
        s.efer = 2;
        guest.Sregs = s;
        guest.RunToExit().Should().Be((uint)KVM_EXIT_FAIL_ENTRY);
        guest.Run->fail_entry.hardware_entry_failure_reason.Should().Be(0xffffffff);
        guest.Run->fail_entry.cpu.Should().Be(0);
        string[] model = [.. guest.Host.Dmesg.SkipWhile(static l => !l.StartsWith("SVM: VMCB 0", StringComparison.Ordinal)).Where(static l => !IsVariable(l))];
        string[] recorded = [.. File.ReadLines(Path.Combine(AppContext.BaseDirectory, "Data", "vmcb-dump.txt")).Where(static l => !IsVariable(l))];
        model.Should().Equal(recorded);
        guest.RunToExit().Should().Be((uint)KVM_EXIT_FAIL_ENTRY, "nothing has changed");
    }

    private static bool IsVariable(string line) => ((string[])["VMCB 0", "iopm_base", "msrpm_base", "tsc_offset", "nested_cr3", "rip:"]).Any(w => line.StartsWith("SVM: " + w, StringComparison.Ordinal));

    [Fact]
    public void Without_the_parameter_a_failed_entry_names_it()
    {
        using var guest = new Guest();
        guest.Load(0x90);
        kvm_sregs s = guest.Sregs;
        s.efer = 2;
        guest.Sregs = s;
        guest.RunToExit().Should().Be((uint)KVM_EXIT_FAIL_ENTRY);
        guest.Host.Dmesg.Should().Contain("SVM: set kvm_amd.dump_invalid_vmcb=1 to dump internal KVM state.");
    }

    [Fact]
    public void Nested_faults_map_memory_and_unmapped_memory_is_MMIO()
    {
        using var guest = new Guest();
        // mov ax, ffffh; mov ds, ax; mov al, [5000h] (past 1 MiB, still memory); xor bx, bx; hlt
        guest.Load(0xb8, 0xff, 0xff, 0x8e, 0xd8, 0xa0, 0x00, 0x50, 0xf4);
        guest.Memory[0xffff0 + 0x5000] = 0x77;
        List<Instruction> log = guest.RunAndLog(KVM_EXIT_HLT);
        log.Should().Contain(static i => i.Mnemonic == "VMEXIT" && i.Operand == SVM_EXIT_NPF);
        ((byte)guest.Regs.rax).Should().Be(0x77);
    }

    [Fact]
    public void Nested_VMRUN_is_refused_in_the_guests_own_VMCB()
    {
        using var guest = new Guest();
        const int maximum = 100;
        kvm_cpuid2* cpuid = (kvm_cpuid2*)guest.Process.MapAnonymous(8 + (40 * maximum));
        cpuid->nent = maximum;
        int kvm = guest.Host.OpenKvm();
        Guest.Ok(guest.Process.Ioctl(kvm, KVM_GET_SUPPORTED_CPUID, (ulong)cpuid));
        guest.Process.Close(kvm);
        Guest.Ok(guest.Process.Ioctl(guest.VcpuFd, KVM_SET_CPUID2, (ulong)cpuid));
        guest.Load(0x66, 0xb8, 0x00, 0x30, 0, 0, 0x0f, 0x01, 0xd8, 0xf4); // mov eax, 3000h; vmrun; hlt
        kvm_sregs s = guest.Sregs;
        s.efer = 0x1000;
        // SVM instructions need paging: one page of 4 MiB.
        *(uint*)(guest.Memory + 0x4000) = 0x87;
        (s.cr0, s.cr3, s.cr4) = (s.cr0 | 0x80000001, 0x4000, 0x10);
        s.cs.type = 11;
        s.ss.type = 3;
        guest.Sregs = s;
        guest.RunAndLog(KVM_EXIT_HLT);
        ((ulong*)(guest.Memory + 0x3000))[0x70 / 8].Should().Be(ulong.MaxValue, "D-SVM-1");
    }
}
