using Iced.Intel;
using Kvm.Emulator.Vmx;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Vmx;

/// <summary>TPR shadow, APIC-access page, APIC-register virtualization, virtual-interrupt delivery, posted interrupts, x2APIC mode.</summary>
public unsafe class VirtualApicTests
{
    private const int ApicPage = 0x30;
    private const ulong ApicAddress = ApicPage << 12;
    private const ulong Handler = 0x3000;

    private static VmxMachine Guest(Action<Assembler> code, SecondaryControls secondary = 0)
    {
        VmxMachine m = new VmxMachine().WithGuest(longMode: true);
        m.Code(64, code);
        m.Set(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.UseTprShadow);
        m.Set(VmcsField.SECONDARY_VM_EXEC_CONTROL, (ulong)secondary);
        m.Write(VmcsField.VIRTUAL_APIC_PAGE_ADDR, (ulong)m.VirtualApic);
        if ((secondary & SecondaryControls.VirtualizeApicAccesses) != 0)
            m.Write(VmcsField.APIC_ACCESS_ADDR, m.EptEntry(ApicPage) & ~0xfffUL);
        m.State->Gpr[7] = ApicAddress;
        return m;
    }

    private static ref uint Register(VmxMachine m, int offset) => ref *(uint*)(m.VirtualApic + offset);

    // ---- TPR shadow ----

    [Fact]
    public void CR8_is_the_upper_half_of_VTPR()
    {
        using VmxMachine m = Guest(a => { a.mov(rax, cr8); a.mov(ecx, 5); a.mov(cr8, rcx); a.vmcall(); });
        Register(m, 0x80) = 0x93;
        m.Launch().Should().Be(VmxExitReason.VMCALL);
        m.State->Gpr[0].Should().Be(9);
        Register(m, 0x80).Should().Be(0x50);
        m.State->Cr8.Should().Be(0, "the processor's own TPR is not touched");
    }

    [Theory]
    [InlineData(4UL, VmxExitReason.TPR_BELOW_THRESHOLD)]
    [InlineData(5UL, VmxExitReason.VMCALL)]
    public void Lowering_the_TPR_below_the_threshold_exits_after_the_instruction(ulong tpr, VmxExitReason reason)
    {
        using VmxMachine m = Guest(a => { a.mov(cr8, rcx); a.vmcall(); });
        Register(m, 0x80) = 0x90;
        m.Write(VmcsField.TPR_THRESHOLD, 5);
        m.State->Gpr[1] = tpr;
        m.Launch().Should().Be(reason);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress + 4);
        Register(m, 0x80).Should().Be((uint)tpr << 4);
    }

    [Fact]
    public void A_TPR_below_the_threshold_exits_right_after_entry()
    {
        using VmxMachine m = Guest(a => a.vmcall(), SecondaryControls.VirtualizeApicAccesses);
        m.Write(VmcsField.TPR_THRESHOLD, 5);
        m.Launch().Should().Be(VmxExitReason.TPR_BELOW_THRESHOLD);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress);
    }

    // ---- APIC-access page ----

    [Theory]
    [InlineData(false, 0x0020UL)]
    [InlineData(true, 0x1020UL)]
    public void Accesses_to_the_APIC_page_exit(bool write, ulong qualification)
    {
        using VmxMachine m = Guest(a => { if (write) a.mov(__dword_ptr[rdi + 0x20], eax); else a.mov(eax, __dword_ptr[rdi + 0x20]); }, SecondaryControls.VirtualizeApicAccesses);
        m.Launch().Should().Be(VmxExitReason.APIC_ACCESS);
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(qualification);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress);
        m.Read(VmcsField.VM_EXIT_INSTRUCTION_LEN).Should().Be(3);
        m.Read(VmcsField.GUEST_LINEAR_ADDRESS).Should().Be(ApicAddress + 0x20);
    }

    [Fact]
    public void Without_the_control_the_page_is_memory()
    {
        using VmxMachine m = Guest(a => { a.mov(__dword_ptr[rdi + 0x20], 7); a.vmcall(); });
        m.Launch().Should().Be(VmxExitReason.VMCALL);
        (*(uint*)(m.Guest + ApicAddress + 0x20)).Should().Be(7);
    }

    [Fact]
    public void The_TPR_is_virtualized_on_the_APIC_page()
    {
        using VmxMachine m = Guest(a => { a.mov(eax, __dword_ptr[rdi + 0x80]); a.mov(__dword_ptr[rdi + 0x80], 0x40); a.vmcall(); }, SecondaryControls.VirtualizeApicAccesses);
        Register(m, 0x80) = 0x60;
        m.Launch().Should().Be(VmxExitReason.VMCALL);
        m.State->Gpr[0].Should().Be(0x60);
        Register(m, 0x80).Should().Be(0x40);
    }

    [Theory]
    [InlineData(0x20, true)]
    [InlineData(0x100, true)]
    [InlineData(0x170, true)]
    [InlineData(0x300, true)]
    [InlineData(0x390, false)]
    [InlineData(0x400, false)]
    [InlineData(0x24, false)]
    public void Register_virtualization_reads_from_the_virtual_APIC_page(int offset, bool virtualized)
    {
        using VmxMachine m = Guest(a => { a.mov(eax, __dword_ptr[rdi + offset]); a.vmcall(); },
            SecondaryControls.VirtualizeApicAccesses | SecondaryControls.ApicRegisterVirtualization);
        Register(m, offset) = 0x1234_5678;
        m.Launch().Should().Be(virtualized ? VmxExitReason.VMCALL : VmxExitReason.APIC_ACCESS);
        if (virtualized)
            m.State->Gpr[0].Should().Be(0x1234_5678);
    }

    [Fact]
    public void Register_writes_exit_after_the_instruction()
    {
        using VmxMachine m = Guest(a => { a.mov(__dword_ptr[rdi + 0x300], 0x4567); a.nop(); a.nop(); a.vmcall(); },
            SecondaryControls.VirtualizeApicAccesses | SecondaryControls.ApicRegisterVirtualization);
        m.Launch().Should().Be(VmxExitReason.APIC_WRITE);
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(0x300);
        Register(m, 0x300).Should().Be(0x4567);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress + 10);
    }

    // ---- virtual-interrupt delivery ----

    private static VmxMachine Delivering(Action<Assembler> code, SecondaryControls more = SecondaryControls.VirtualizeApicAccesses)
    {
        VmxMachine m = Guest(code, SecondaryControls.VirtualInterruptDelivery | SecondaryControls.ApicRegisterVirtualization | more);
        ulong* gate = (ulong*)(m.Guest + VmxMachine.IdtAddress) + (0x51 * 2);
        gate[0] = Handler | 8UL << 16 | 0x8eUL << 40;
        gate[1] = 0;
        VmxMachine.Assemble(64, Handler, a => a.hlt()).CopyTo(new Span<byte>(m.Guest + Handler, 16));
        return m;
    }

    private static void Post(VmxMachine m, int vector)
    {
        Register(m, 0x200 + ((vector >> 5) * 16)) |= 1u << (vector & 31);
        m.Write(VmcsField.GUEST_INTR_STATUS, (m.Read(VmcsField.GUEST_INTR_STATUS) & 0xff00) | (uint)vector);
    }

    [Fact]
    public void A_requested_interrupt_is_delivered_when_IF_is_set()
    {
        using VmxMachine m = Delivering(a => { a.sti(); a.nop(); a.nop(); a.vmcall(); });
        Post(m, 0x51);
        m.Launch().Should().Be(VmxExitReason.HLT, "the handler halts");
        m.Read(VmcsField.GUEST_RIP).Should().Be(Handler);
        m.Read(VmcsField.GUEST_INTR_STATUS).Should().Be(0x5100);
        Register(m, 0x120).Should().Be(1u << 17);
        Register(m, 0x220).Should().Be(0);
        Register(m, 0xa0).Should().Be(0x50);
        (*(ulong*)(m.Guest + m.Read(VmcsField.GUEST_RSP))).Should().Be(VmxMachine.CodeAddress + 2, "one instruction after STI");
    }

    [Theory]
    [InlineData(0x50u, VmxExitReason.VMCALL)]
    [InlineData(0x40u, VmxExitReason.HLT)]
    public void The_virtual_TPR_masks_it(uint tpr, VmxExitReason reason)
    {
        using VmxMachine m = Delivering(a => { a.nop(); a.vmcall(); });
        Post(m, 0x51);
        Register(m, 0x80) = tpr;
        m.Set(VmcsField.GUEST_RFLAGS, Flags.IF);
        m.Launch().Should().Be(reason);
    }

    [Fact]
    public void Lowering_the_TPR_lets_it_through()
    {
        using VmxMachine m = Delivering(a => { a.xor(ecx, ecx); a.mov(cr8, rcx); a.nop(); a.vmcall(); });
        Post(m, 0x51);
        Register(m, 0x80) = 0xf0;
        m.Set(VmcsField.GUEST_RFLAGS, Flags.IF);
        m.Launch().Should().Be(VmxExitReason.HLT);
    }

    [Theory]
    [InlineData(false, VmxExitReason.VMCALL)]
    [InlineData(true, VmxExitReason.EOI_INDUCED)]
    public void EOI_is_virtualized(bool bitmap, VmxExitReason reason)
    {
        using VmxMachine m = Delivering(a => { a.mov(__dword_ptr[rdi + 0xb0], 0); a.nop(); a.vmcall(); });
        Register(m, 0x120) = 1u << 17;
        Register(m, 0x110) = 1u << 1;
        m.Write(VmcsField.GUEST_INTR_STATUS, 0x5100);
        if (bitmap)
            m.Write(VmcsField.EOI_EXIT_BITMAP1, 1UL << 17);
        m.Launch().Should().Be(reason);
        m.Read(VmcsField.GUEST_INTR_STATUS).Should().Be(0x2100, "SVI falls back to the next interrupt in service");
        Register(m, 0x120).Should().Be(0);
        Register(m, 0xa0).Should().Be(0x20);
        if (!bitmap)
            return;
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(0x51);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress + 10);
    }

    [Fact]
    public void A_self_IPI_is_virtualized()
    {
        using VmxMachine m = Delivering(a => { a.sti(); a.mov(__dword_ptr[rdi + 0x300], 0x40051); a.nop(); a.vmcall(); });
        m.Launch().Should().Be(VmxExitReason.HLT);
        m.Read(VmcsField.GUEST_RIP).Should().Be(Handler);
    }

    [Fact]
    public void Posted_interrupts_are_delivered_without_an_exit()
    {
        using VmxMachine m = Delivering(a => { a.sti(); a.nop(); a.nop(); a.vmcall(); });
        ulong descriptor = m.Page();
        m.Set(VmcsField.PIN_BASED_VM_EXEC_CONTROL, (ulong)PinBasedControls.PostedInterrupts);
        m.Write(VmcsField.POSTED_INTR_NV, 0xf2);
        m.Write(VmcsField.POSTED_INTR_DESC_ADDR, descriptor);
        ((uint*)descriptor)[2] = 1u << 17;
        ((uint*)descriptor)[8] = 1;
        m.Cpu.RaiseInterrupt(0xf2);
        m.Launch().Should().Be(VmxExitReason.HLT);
        m.Read(VmcsField.GUEST_RIP).Should().Be(Handler);
        ((uint*)descriptor)[2].Should().Be(0);
        ((uint*)descriptor)[8].Should().Be(0, "ON is cleared");
        m.Cpu.InterruptPending.Should().BeFalse();
    }

    [Fact]
    public void Other_vectors_exit_as_ever()
    {
        using VmxMachine m = Delivering(a => a.vmcall());
        m.Set(VmcsField.PIN_BASED_VM_EXEC_CONTROL, (ulong)PinBasedControls.PostedInterrupts);
        m.Write(VmcsField.POSTED_INTR_NV, 0xf2);
        m.Write(VmcsField.POSTED_INTR_DESC_ADDR, m.Page());
        m.Cpu.RaiseInterrupt(0xf1);
        m.Launch().Should().Be(VmxExitReason.EXTERNAL_INTERRUPT);
        m.Read(VmcsField.VM_EXIT_INTR_INFO).Should().Be(0x8000_00f1);
    }

    // ---- x2APIC mode ----

    [Fact]
    public void X2APIC_mode_virtualizes_TPR_EOI_and_self_IPI()
    {
        using VmxMachine m = Delivering(a =>
        {
            a.mov(ecx, 0x808);
            a.rdmsr();
            a.mov(esi, eax);
            a.xor(edx, edx);
            a.mov(eax, 0x20);
            a.wrmsr();
            a.mov(ecx, 0x83f);
            a.mov(eax, 0x51);
            a.sti();
            a.wrmsr();
            a.nop();
            a.vmcall();
        }, SecondaryControls.VirtualizeX2ApicMode);
        Register(m, 0x80) = 0x33;
        m.Launch().Should().Be(VmxExitReason.HLT);
        m.State->Gpr[6].Should().Be(0x33);
        Register(m, 0x80).Should().Be(0x20);
        m.Read(VmcsField.GUEST_RIP).Should().Be(Handler);
    }

    [Fact]
    public void X2APIC_reserved_bits_fault()
    {
        using VmxMachine m = Delivering(a => { a.mov(ecx, 0x808); a.xor(edx, edx); a.mov(eax, 0x120); a.wrmsr(); a.vmcall(); }, SecondaryControls.VirtualizeX2ApicMode);
        m.Write(VmcsField.EXCEPTION_BITMAP, 1 << Fault.GP);
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
    }
}
