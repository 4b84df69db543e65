using Iced.Intel;
using Kvm.Emulator.Vmx;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Vmx;

/// <summary>VM-entry event injection: the event is delivered through the guest's IDT before its first instruction.</summary>
public unsafe class EventInjectionTests
{
    private const ulong Handler = 0x2000, Tss = 0x12000;

    /// <summary>64-bit guest with one handler (VMCALL) for every vector; 32-bit TSS not needed at CPL 0.</summary>
    private static VmxMachine Guest(Action<Assembler>? code = null)
    {
        VmxMachine m = new VmxMachine().WithGuest(longMode: true);
        m.Code(64, code ?? (a => a.hlt()));
        for (int vector = 0; vector < 256; vector++)
        {
            ulong handler = Handler + ((ulong)vector * 4);
            m.Guest[handler] = 0x0f;
            m.Guest[handler + 1] = 0x01;
            m.Guest[handler + 2] = 0xc1;
            ulong* gate = (ulong*)(m.Guest + VmxMachine.IdtAddress) + (vector * 2);
            gate[0] = (handler & 0xffff) | 8UL << 16 | 0x8eUL << 40;
            gate[1] = 0;
        }
        return m;
    }

    private static ulong Frame(VmxMachine m, int index) => ((ulong*)(m.Guest + m.Read(VmcsField.GUEST_RSP)))[index];

    private static int DeliveredVector(VmxMachine m) => (int)((m.Read(VmcsField.GUEST_RIP) - Handler) / 4);

    [Theory]
    [InlineData(0x8000_0020UL, 0, 0, 0x202UL)]
    [InlineData(0x8000_00ffUL, 0, 0, 0x202UL)]
    [InlineData(0x8000_0202UL, 0, 0, 0x202UL)]
    [InlineData(0x8000_0306UL, 0, 0, 0x10202UL)]
    [InlineData(0x8000_0b0dUL, 0x18, 0, 0x10202UL)]
    [InlineData(0x8000_0480UL, 0, 2, 0x202UL)]
    [InlineData(0x8000_0501UL, 0, 1, 0x202UL)]
    [InlineData(0x8000_0603UL, 0, 1, 0x202UL)]
    [InlineData(0x8000_0604UL, 0, 1, 0x202UL)]
    public void Each_type_is_delivered(ulong info, ulong errorCode, ulong length, ulong pushedFlags)
    {
        using VmxMachine m = Guest();
        m.Write(VmcsField.GUEST_RFLAGS, 0x202);
        m.Write(VmcsField.VM_ENTRY_INTR_INFO_FIELD, info);
        m.Write(VmcsField.VM_ENTRY_EXCEPTION_ERROR_CODE, errorCode);
        m.Write(VmcsField.VM_ENTRY_INSTRUCTION_LEN, length);
        m.Launch().Should().Be(VmxExitReason.VMCALL);
        DeliveredVector(m).Should().Be((int)info & 0xff);
        bool hasError = (info & InterruptionInfo.DeliverErrorCode) != 0;
        int at = hasError ? 1 : 0;
        if (hasError)
            Frame(m, 0).Should().Be(errorCode);
        Frame(m, at).Should().Be(VmxMachine.CodeAddress + length, "software events return behind their instruction");
        Frame(m, at + 1).Should().Be(8);
        Frame(m, at + 2).Should().Be(pushedFlags);
        Frame(m, at + 3).Should().Be(VmxMachine.StackAddress);
        (m.Read(VmcsField.GUEST_RFLAGS) & Flags.IF).Should().Be(0);
        (m.Read(VmcsField.VM_ENTRY_INTR_INFO_FIELD) >> 31).Should().Be(0);
        (m.Read(VmcsField.IDT_VECTORING_INFO_FIELD) >> 31).Should().Be(0);
    }

    [Fact]
    public void An_injected_exception_ignores_the_exception_bitmap()
    {
        using VmxMachine m = Guest();
        m.Write(VmcsField.EXCEPTION_BITMAP, uint.MaxValue);
        m.Write(VmcsField.VM_ENTRY_INTR_INFO_FIELD, 0x8000_0306);
        m.Launch().Should().Be(VmxExitReason.VMCALL);
        DeliveredVector(m).Should().Be(6);
    }

    [Fact]
    public void A_fault_during_injection_obeys_it()
    {
        using VmxMachine m = Guest();
        m.Write(VmcsField.EXCEPTION_BITMAP, 1 << Fault.GP);
        m.Write(VmcsField.GUEST_IDTR_LIMIT, 0x1ff);
        m.Write(VmcsField.VM_ENTRY_INTR_INFO_FIELD, 0x8000_0020);
        m.Write(VmcsField.GUEST_RFLAGS, 0x202);
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
        m.Read(VmcsField.VM_EXIT_INTR_INFO).Should().Be(0x8000_0b0d);
        m.Read(VmcsField.VM_EXIT_INTR_ERROR_CODE).Should().Be((0x20 * 8) | 3);
        m.Read(VmcsField.IDT_VECTORING_INFO_FIELD).Should().Be(0x8000_0020);
    }

    [Fact]
    public void Injection_wakes_a_halted_guest()
    {
        using VmxMachine m = Guest();
        m.Write(VmcsField.GUEST_ACTIVITY_STATE, (ulong)ActivityState.Hlt);
        m.Write(VmcsField.GUEST_RFLAGS, 0x202);
        m.Write(VmcsField.VM_ENTRY_INTR_INFO_FIELD, 0x8000_0041);
        m.Launch().Should().Be(VmxExitReason.VMCALL);
        DeliveredVector(m).Should().Be(0x41);
        m.Read(VmcsField.GUEST_ACTIVITY_STATE).Should().Be(0);
    }

    [Fact]
    public void Through_the_IVT_of_a_real_mode_guest()
    {
        using VmxMachine m = new VmxMachine().WithGuest();
        m.Code(16, a => a.hlt());
        *(uint*)(m.Guest + (0x21 * 4)) = 0x0100_1234;
        m.Guest[0x1000 + 0x1234] = 0xf4;
        m.Write(VmcsField.GUEST_RFLAGS, 0x202);
        m.Write(VmcsField.VM_ENTRY_INTR_INFO_FIELD, 0x8000_0021);
        m.Launch().Should().Be(VmxExitReason.HLT);
        m.Read(VmcsField.GUEST_CS_SELECTOR).Should().Be(0x100);
        m.Read(VmcsField.GUEST_CS_BASE).Should().Be(0x1000);
        m.Read(VmcsField.GUEST_RIP).Should().Be(0x1234);
        ushort* frame = (ushort*)(m.Guest + m.Read(VmcsField.GUEST_RSP));
        (frame[0], frame[1], frame[2]).Should().Be(((ushort)VmxMachine.CodeAddress, (ushort)0, (ushort)0x202));
    }

    /// <summary>An injected event, then the interrupt window: the handler has interrupts off, so the window opens with STI only.</summary>
    [Fact]
    public void Interrupt_windows_come_after_the_injected_event()
    {
        using VmxMachine m = Guest();
        m.Set(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.InterruptWindowExiting);
        m.Write(VmcsField.GUEST_RFLAGS, 0x202);
        m.Write(VmcsField.VM_ENTRY_INTR_INFO_FIELD, 0x8000_0030);
        m.Launch().Should().Be(VmxExitReason.VMCALL);
        DeliveredVector(m).Should().Be(0x30);
    }

    [Fact]
    public void The_monitor_trap_flag_exits_after_the_injected_event()
    {
        using VmxMachine m = Guest();
        m.Set(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.MonitorTrapFlag);
        m.Write(VmcsField.GUEST_RFLAGS, 0x202);
        m.Write(VmcsField.VM_ENTRY_INTR_INFO_FIELD, 0x8000_0030);
        m.Launch().Should().Be(VmxExitReason.MONITOR_TRAP_FLAG);
        DeliveredVector(m).Should().Be(0x30);
    }

    [Fact]
    public void Pending_debug_exceptions_are_delivered_after_entry()
    {
        using VmxMachine m = Guest(a => { a.nop(); a.hlt(); });
        m.Write(VmcsField.EXCEPTION_BITMAP, 1 << Fault.DB);
        m.Write(VmcsField.GUEST_PENDING_DBG_EXCEPTIONS, PendingDebug.SingleStep);
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(PendingDebug.SingleStep);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress);
    }

    [Fact]
    public void IRET_ends_virtual_NMI_blocking_even_when_it_faults()
    {
        using VmxMachine m = Guest(a => a.iretq());
        m.Set(VmcsField.PIN_BASED_VM_EXEC_CONTROL, (ulong)PinBasedControls.VirtualNmis);
        m.Write(VmcsField.GUEST_INTERRUPTIBILITY_INFO, Interruptibility.Nmi);
        m.Write(VmcsField.EXCEPTION_BITMAP, 1 << Fault.GP);
        // The frame's CS is null: #GP(0).
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
        m.Read(VmcsField.VM_EXIT_INTR_INFO).Should().Be(0x8000_1b0d, "bit 12: NMI unblocking due to IRET");
        m.Read(VmcsField.GUEST_INTERRUPTIBILITY_INFO).Should().Be(0);
        Tss.Should().BePositive();
    }

    [Fact]
    public void INT_n_through_a_task_gate_exits_with_the_event()
    {
        using VmxMachine m = new VmxMachine().WithGuest();
        // Protected mode without paging.
        m.Set(VmcsField.GUEST_CR0, Cr0.PE);
        m.Write(VmcsField.GUEST_CS_SELECTOR, 8);
        m.Write(VmcsField.GUEST_CS_AR_BYTES, 0xc09b);
        m.Write(VmcsField.GUEST_CS_LIMIT, uint.MaxValue);
        m.Write(VmcsField.GUEST_IDTR_BASE, VmxMachine.IdtAddress);
        m.Write(VmcsField.GUEST_IDTR_LIMIT, 0x7ff);
        m.Code(32, a => a.@int(0x40));
        ((ulong*)(m.Guest + VmxMachine.IdtAddress))[0x40] = 0x28UL << 16 | 0x85UL << 40;
        ((ulong*)(m.Guest + VmxMachine.GdtAddress))[5] = 0x67 | (Tss & 0xffffff) << 16 | 0x89UL << 40;
        m.Launch().Should().Be(VmxExitReason.TASK_SWITCH);
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(3UL << 30 | 0x28);
        m.Read(VmcsField.IDT_VECTORING_INFO_FIELD).Should().Be(0x8000_0440);
        m.Read(VmcsField.VM_EXIT_INSTRUCTION_LEN).Should().Be(2);
    }

    [Fact]
    public void A_far_jump_to_a_TSS_exits()
    {
        using VmxMachine m = new VmxMachine().WithGuest();
        m.Set(VmcsField.GUEST_CR0, Cr0.PE);
        m.Write(VmcsField.GUEST_CS_SELECTOR, 8);
        m.Write(VmcsField.GUEST_CS_AR_BYTES, 0xc09b);
        m.Write(VmcsField.GUEST_CS_LIMIT, uint.MaxValue);
        m.Code(32, a => a.db(0xea, 0, 0, 0, 0, 0x28, 0));
        ((ulong*)(m.Guest + VmxMachine.GdtAddress))[5] = 0x67 | (Tss & 0xffffff) << 16 | 0x89UL << 40;
        m.Launch().Should().Be(VmxExitReason.TASK_SWITCH);
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(2UL << 30 | 0x28);
        m.Read(VmcsField.VM_EXIT_INSTRUCTION_LEN).Should().Be(7);
        (m.Read(VmcsField.IDT_VECTORING_INFO_FIELD) >> 31).Should().Be(0);
    }
}
