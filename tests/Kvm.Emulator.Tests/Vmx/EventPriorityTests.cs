using Kvm.Emulator.Vmx;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Vmx;

/// <summary>Which of several events that are due at one instruction boundary of a VMX guest comes first.</summary>
/// <remarks>SDM vol 3A, "Prioritization of Concurrent Events"; vol 3C, "Other Causes of VM Exits", "Monitor Trap Flag".</remarks>
public unsafe class EventPriorityTests
{
    private static VmxMachine Guest(Action<VmxMachine>? setUp = null, Func<CpuModel, CpuModel>? model = null)
    {
        VmxMachine m = new VmxMachine(model: model).WithGuest(longMode: true);
        m.Write(VmcsField.EXCEPTION_BITMAP, 0xffff_ffff);
        m.Code(64, a =>
        {
            a.nop();
            a.nop();
            a.nop();
            a.hlt();
        });
        setUp?.Invoke(m);
        return m;
    }

    private static uint Vector(VmxMachine m) => (uint)m.Read(VmcsField.VM_EXIT_INTR_INFO) & 0xff;

    [Fact]
    public void The_monitor_trap_flag_comes_before_a_single_step_trap_which_stays_pending()
    {
        using VmxMachine m = Guest(g =>
        {
            g.Set(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (uint)PrimaryControls.MonitorTrapFlag);
            g.Set(VmcsField.GUEST_RFLAGS, Flags.TF);
        });
        m.Launch().Should().Be(VmxExitReason.MONITOR_TRAP_FLAG);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress + 1);
        m.Read(VmcsField.GUEST_PENDING_DBG_EXCEPTIONS).Should().Be(1 << 14);
        m.Resume().Should().Be(VmxExitReason.EXCEPTION_NMI);
        Vector(m).Should().Be(Fault.DB);
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(1 << 14);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress + 1, "no instruction ran in between");
    }

    [Fact]
    public void MTF_exits_after_exactly_one_instruction_whatever_interrupts_the_run()
    {
        using VmxMachine m = Guest(g => g.Set(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (uint)PrimaryControls.MonitorTrapFlag));
        m.Cpu.RequestStop();
        m.Launch().Should().Be(VmxExitReason.MONITOR_TRAP_FLAG);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress + 1);
    }

    [Fact]
    public void A_debug_trap_comes_before_the_preemption_timer()
    {
        using VmxMachine m = Guest(g =>
        {
            g.Set(VmcsField.PIN_BASED_VM_EXEC_CONTROL, (uint)PinBasedControls.PreemptionTimer);
            g.Write(VmcsField.VMX_PREEMPTION_TIMER_VALUE, 0);
            g.Write(VmcsField.GUEST_PENDING_DBG_EXCEPTIONS, 1 << 14);
        });
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
        Vector(m).Should().Be(Fault.DB);
        m.Resume().Should().Be(VmxExitReason.PREEMPTION_TIMER);
    }

    [Fact]
    public void An_INIT_comes_before_a_debug_trap()
    {
        using VmxMachine m = Guest(g => g.Write(VmcsField.GUEST_PENDING_DBG_EXCEPTIONS, 1 << 14));
        m.Cpu.RaiseInit();
        m.Launch().Should().Be(VmxExitReason.INIT_SIGNAL);
        m.Read(VmcsField.GUEST_PENDING_DBG_EXCEPTIONS).Should().Be(1 << 14);
    }

    [Fact]
    public void The_preemption_timer_then_the_NMI_window_then_an_NMI_then_the_interrupt_window_then_an_interrupt()
    {
        using VmxMachine m = Guest(g =>
        {
            g.Set(VmcsField.PIN_BASED_VM_EXEC_CONTROL, (uint)(PinBasedControls.PreemptionTimer | PinBasedControls.VirtualNmis));
            g.Set(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (uint)(PrimaryControls.NmiWindowExiting | PrimaryControls.InterruptWindowExiting));
            g.Write(VmcsField.VMX_PREEMPTION_TIMER_VALUE, 0);
            g.Set(VmcsField.GUEST_RFLAGS, Flags.IF);
        });
        m.Cpu.RaiseNmi();
        m.Cpu.RaiseInterrupt(0x40);
        m.Launch().Should().Be(VmxExitReason.PREEMPTION_TIMER);
        m.Clear(VmcsField.PIN_BASED_VM_EXEC_CONTROL, (uint)PinBasedControls.PreemptionTimer);
        m.Resume().Should().Be(VmxExitReason.NMI_WINDOW);
        m.Clear(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (uint)PrimaryControls.NmiWindowExiting);
        m.Resume().Should().Be(VmxExitReason.EXCEPTION_NMI);
        Vector(m).Should().Be(Fault.NMI);
        m.Resume().Should().Be(VmxExitReason.INTERRUPT_WINDOW);
        m.Clear(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (uint)PrimaryControls.InterruptWindowExiting);
        m.Resume().Should().Be(VmxExitReason.EXTERNAL_INTERRUPT);
        m.Resume().Should().Be(VmxExitReason.HLT);
    }

    [Fact]
    public void An_MWAIT_that_waits_leaves_the_guest_active_in_the_VMCS()
    {
        using VmxMachine m = Guest();
        m.Clear(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (uint)(PrimaryControls.MwaitExiting | PrimaryControls.MonitorExiting));
        int length = m.Code(64, a =>
        {
            a.mov(rax, VmxMachine.DataAddress);
            a.xor(ecx, ecx);
            a.monitor();
            a.xor(eax, eax);
            a.mwait();
            a.hlt();
        });
        bool raised = false;
        void RaiseOnceItWaits()
        {
            if (raised || m.State->Activity != ActivityState.Hlt)
                return;
            raised = true;
            m.Cpu.RaiseInterrupt(0x40);
        }

        using (new Periodic(RaiseOnceItWaits, 1))
            m.Launch().Should().Be(VmxExitReason.EXTERNAL_INTERRUPT);
        m.Read(VmcsField.GUEST_ACTIVITY_STATE).Should().Be(0);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress + (ulong)length - 1);
        m.Resume().Should().Be(VmxExitReason.HLT);
    }

    [Fact]
    public void A_fetch_from_the_APIC_access_page_exits()
    {
        using VmxMachine m = Guest(g =>
        {
            ulong page = g.Page();
            g.Set(VmcsField.SECONDARY_VM_EXEC_CONTROL, (uint)SecondaryControls.VirtualizeApicAccesses);
            g.Write(VmcsField.APIC_ACCESS_ADDR, page);
            g.EptEntry(0x20) = page | 7 | 6 << 3;
            g.Write(VmcsField.GUEST_RIP, 0x20040);
        });
        m.Launch().Should().Be(VmxExitReason.APIC_ACCESS);
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(0x040 | 2 << 12);
        m.Read(VmcsField.GUEST_RIP).Should().Be(0x20040);
    }

    [Fact]
    public void A_page_walk_through_the_APIC_access_page_exits_as_a_guest_physical_access()
    {
        using VmxMachine m = Guest(g =>
        {
            ulong page = g.Page();
            g.Set(VmcsField.SECONDARY_VM_EXEC_CONTROL, (uint)SecondaryControls.VirtualizeApicAccesses);
            g.Write(VmcsField.APIC_ACCESS_ADDR, page);
            g.EptEntry((int)(VmxMachine.PageTables >> 12) + 1) = page | 7 | 6 << 3;
        });
        m.Launch().Should().Be(VmxExitReason.APIC_ACCESS);
        (m.Read(VmcsField.EXIT_QUALIFICATION) >> 12).Should().Be(15);
    }

    [Fact]
    public void Real_mode_exceptions_have_no_error_code()
    {
        using VmxMachine m = new VmxMachine().WithGuest();
        m.Write(VmcsField.EXCEPTION_BITMAP, 1 << Fault.GP);
        // mov ax, [FFFF]: beyond the limit of DS.
        byte[] code = [0xa1, 0xff, 0xff];
        code.CopyTo(new Span<byte>(m.Guest + VmxMachine.CodeAddress, 3));
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
        m.Read(VmcsField.VM_EXIT_INTR_INFO).Should().Be(0x8000_0000 | 3 << 8 | Fault.GP);
    }

    private sealed class RaisingBus : IMachineBus
    {
        public Action OnWrite { get; init; } = () => { };
        public uint ReadPort(ushort port, int size) => 0;
        public void WritePort(ushort port, int size, uint value) { }
        public ulong ReadMmio(ulong address, int size) => 0;
        public void WriteMmio(ulong address, int size, ulong value) => OnWrite();
    }

    [Fact]
    public void An_interrupt_exit_between_turns_of_REP_saves_RF()
    {
        using VmxMachine m = Guest();
        int writes = 0;
        m.Machine.Bus = new RaisingBus
        {
            OnWrite = () =>
            {
                if (++writes == 3)
                    m.Cpu.RaiseInterrupt(0x40);
            },
        };
        m.EptEntry(0x20) = 0x1000 | 7;
        m.Code(64, a =>
        {
            a.mov(rdi, 0x20000);
            a.mov(ecx, 10);
            a.rep.stosb();
            a.hlt();
        });
        m.Launch().Should().Be(VmxExitReason.EXTERNAL_INTERRUPT);
        (m.Read(VmcsField.GUEST_RFLAGS) & Flags.RF).Should().Be(Flags.RF);
        m.State->Gpr[1].Should().Be(7);
        m.Resume().Should().Be(VmxExitReason.HLT);
        (m.Read(VmcsField.GUEST_RFLAGS) & Flags.RF).Should().Be(0);
        writes.Should().Be(10);
    }
}
