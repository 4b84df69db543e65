using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests;

/// <summary>SDM vol 3A, "Interrupt and Exception Handling in 64-bit Mode": gates, stacks, error codes, privilege changes, IST, double and triple faults.</summary>
public sealed unsafe class LongModeDeliveryTests
{
    private const ulong Handler = 0x9000;

    private static BareMachine Create(int cpl = 0)
    {
        var m = new BareMachine();
        m.Long(cpl);
        m.Bytes(Handler, 0xf4);
        return m;
    }

    /// <summary>The frame at RSP: (error code,) RIP, CS, RFLAGS, RSP, SS.</summary>
    private static ulong Frame(BareMachine m, int index) => *m.Qword(m.State->Gpr[4] + (ulong)(index * 8));

    [Fact]
    public void An_exception_without_a_privilege_change_aligns_the_stack_and_pushes_five_quadwords()
    {
        using BareMachine m = Create();
        m.SetGate64(Fault.UD, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        m.State->Gpr[4] = BareMachine.Stack - 3;
        m.State->Rflags |= Flags.IF;
        m.Bytes(BareMachine.Code, 0x0f, 0x0b);
        m.Run().Should().Be(StopReason.Halted);
        m.State->Rip.Should().Be(Handler + 1);
        m.State->Gpr[4].Should().Be(BareMachine.Stack - 16 - 40);
        Frame(m, 0).Should().Be(BareMachine.Code);
        Frame(m, 1).Should().Be(BareMachine.Code64);
        Frame(m, 2).Should().Be(Flags.Fixed1 | Flags.IF | Flags.RF);
        Frame(m, 3).Should().Be(BareMachine.Stack - 3);
        Frame(m, 4).Should().Be(BareMachine.Data32);
        (m.State->Rflags & Flags.IF).Should().Be(0, "an interrupt gate clears IF");
    }

    [Fact]
    public void A_trap_gate_leaves_IF_alone()
    {
        using BareMachine m = Create();
        m.SetGate64(Fault.UD, SegmentRights.TrapGate32, BareMachine.Code64, Handler);
        m.State->Rflags |= Flags.IF;
        m.Bytes(BareMachine.Code, 0x0f, 0x0b);
        m.Run();
        (m.State->Rflags & Flags.IF).Should().Be(Flags.IF);
    }

    [Fact]
    public void A_page_fault_at_CPL_3_switches_to_RSP0_loads_a_null_SS_and_pushes_the_error_code()
    {
        using BareMachine m = Create(cpl: 3);
        m.SetGate64(Fault.PF, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        *m.Pte(0x1ff000) = 0;
        m.Assemble(BareMachine.UserCode, a => a.mov(__qword_ptr[0x1ff008], rax));
        m.Run().Should().Be(StopReason.Halted);
        m.State->Cpl.Should().Be(0);
        m.Cpu.Segment(Seg.SS).Selector.Should().Be(0);
        m.Cpu.Segment(Seg.SS).Unusable.Should().BeTrue();
        m.State->Gpr[4].Should().Be(BareMachine.InnerStack - 48);
        Frame(m, 0).Should().Be(6);
        Frame(m, 1).Should().Be(BareMachine.UserCode);
        Frame(m, 2).Should().Be(BareMachine.UserCode64);
        Frame(m, 4).Should().Be(BareMachine.UserStack);
        Frame(m, 5).Should().Be(BareMachine.UserData);
        m.State->Cr2.Should().Be(0x1ff008);
    }

    [Fact]
    public void IST_replaces_the_stack_even_without_a_privilege_change()
    {
        using BareMachine m = Create();
        m.SetGate64(Fault.UD, SegmentRights.InterruptGate32, BareMachine.Code64, Handler, ist: 1);
        m.Bytes(BareMachine.Code, 0x0f, 0x0b);
        m.Run();
        m.State->Gpr[4].Should().Be(BareMachine.IstStack - 40);
        m.Cpu.Segment(Seg.SS).Selector.Should().Be(BareMachine.Data32);
    }

    [Theory]
    [InlineData(0, 0, true)]
    [InlineData(0, 3, false)]
    [InlineData(3, 3, true)]
    [InlineData(3, 0, true)]
    public void INT_n_needs_a_gate_whose_DPL_is_at_least_CPL(int dpl, int cpl, bool allowed)
    {
        using BareMachine m = Create(cpl);
        m.SetGate64(0x80, SegmentRights.InterruptGate32, BareMachine.Code64, Handler, dpl);
        m.SetGate64(Fault.GP, SegmentRights.InterruptGate32, BareMachine.Code64, Handler + 0x10);
        m.Bytes(Handler + 0x10, 0xf4);
        m.Bytes(cpl == 0 ? BareMachine.Code : BareMachine.UserCode, 0xcd, 0x80);
        m.Run();
        m.State->Rip.Should().Be(allowed ? Handler + 1 : Handler + 0x11);
        if (allowed)
            Frame(m, 0).Should().Be((cpl == 0 ? BareMachine.Code : BareMachine.UserCode) + 2, "INT n pushes the next instruction");
        else
            Frame(m, 0).Should().Be((0x80 * 8) + 2, "error code: IDT, no EXT for a software interrupt");
    }

    [Fact]
    public void An_exception_ignores_the_gates_DPL_and_reports_EXT()
    {
        using BareMachine m = Create(cpl: 3);
        m.SetGate64(Fault.UD, SegmentRights.InterruptGate32, BareMachine.Code64, Handler, present: false);
        m.SetGate64(Fault.NP, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        m.Bytes(BareMachine.UserCode, 0x0f, 0x0b);
        m.Run();
        m.State->Rip.Should().Be(Handler + 1);
        Frame(m, 0).Should().Be((Fault.UD * 8) + 3);
    }

    [Theory]
    [InlineData(SegmentRights.CallGate32)]
    [InlineData(SegmentRights.TaskGate)]
    [InlineData(SegmentRights.InterruptGate16)]
    [InlineData(0)]
    public void Only_64_bit_interrupt_and_trap_gates_are_valid(int type)
    {
        using BareMachine m = Create();
        m.SetGate64(Fault.UD, type, BareMachine.Code64, Handler);
        m.SetGate64(Fault.GP, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        m.Bytes(BareMachine.Code, 0x0f, 0x0b);
        m.Run();
        Frame(m, 0).Should().Be((Fault.UD * 8) + 3);
    }

    [Fact]
    public void The_handlers_code_segment_must_be_64_bit()
    {
        using BareMachine m = Create();
        m.SetGate64(Fault.UD, SegmentRights.InterruptGate32, BareMachine.Code32, Handler);
        m.SetGate64(Fault.GP, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        m.Bytes(BareMachine.Code, 0x0f, 0x0b);
        m.Run();
        Frame(m, 0).Should().Be(BareMachine.Code32 | 1u);
    }

    [Theory]
    [InlineData(Fault.GP, Fault.NP, true)]
    [InlineData(Fault.GP, Fault.UD, false)]
    public void Two_contributory_faults_make_a_double_fault_and_a_benign_one_does_not(byte second, byte first, bool doubleFault)
    {
        // The first exception's gate is broken, so its delivery ends in #GP.
        using BareMachine m = Create();
        second.Should().Be(Fault.GP);
        m.SetGate64(first, SegmentRights.CallGate32, BareMachine.Code64, Handler);
        m.SetGate64(Fault.GP, SegmentRights.InterruptGate32, BareMachine.Code64, Handler + 0x10);
        m.SetGate64(Fault.DF, SegmentRights.InterruptGate32, BareMachine.Code64, Handler + 0x20);
        m.Bytes(Handler + 0x10, 0xf4);
        m.Bytes(Handler + 0x20, 0xf4);
        if (first == Fault.UD)
            m.Bytes(BareMachine.Code, 0x0f, 0x0b);
        else
            m.Assemble(BareMachine.Code, a =>
            {
                m.SetGdt(0x68, BareMachine.Segment(0, 0xffff, 0x13));
                a.mov(eax, 0x68);
                a.mov(ds, ax);
            });
        m.Run();
        m.State->Rip.Should().Be(doubleFault ? Handler + 0x21 : Handler + 0x11);
        if (doubleFault)
            Frame(m, 0).Should().Be(0);
    }

    [Fact]
    public void A_page_fault_while_delivering_a_page_fault_is_a_double_fault()
    {
        using BareMachine m = Create(cpl: 3);
        m.SetGate64(Fault.PF, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        m.SetGate64(Fault.DF, SegmentRights.InterruptGate32, BareMachine.Code64, Handler + 0x20, ist: 1);
        m.Bytes(Handler + 0x20, 0xf4);
        *m.Pte(BareMachine.InnerStack - 0x1000) = 0;
        *m.Pte(0x1ff000) = 0;
        *(ulong*)(m.At(BareMachine.Tss) + 4) = BareMachine.InnerStack - 0x100;
        *m.Pte((BareMachine.InnerStack - 0x100) & ~0xfffUL) = 0;
        *(ulong*)(m.At(BareMachine.Tss) + 36) = BareMachine.Stack;
        m.Assemble(BareMachine.UserCode, a => a.mov(__qword_ptr[0x1ff000], rax));
        m.Run();
        m.State->Rip.Should().Be(Handler + 0x21);
        m.State->Cr2.Should().Be(BareMachine.InnerStack - 0x108, "the second fault is the last to load CR2");
    }

    [Fact]
    public void A_fault_while_delivering_a_double_fault_shuts_the_processor_down()
    {
        using BareMachine m = Create();
        m.State->Idtr.Limit = 0;
        m.Bytes(BareMachine.Code, 0x0f, 0x0b);
        m.Run().Should().Be(StopReason.Shutdown);
        m.State->Activity.Should().Be(ActivityState.Shutdown);
    }

    [Fact]
    public void INIT_leads_out_of_shutdown()
    {
        using BareMachine m = Create();
        m.State->Idtr.Limit = 0;
        m.Bytes(BareMachine.Code, 0x0f, 0x0b);
        m.Run().Should().Be(StopReason.Shutdown);
        m.Cpu.RaiseInit();
        m.Cpu.ServiceEvents(out _, out _).Should().BeFalse();
        m.State->Cr0.Should().Be(Cr0.ET | (m.State->Cr0 & (Cr0.CD | Cr0.NW)));
        m.Cpu.Segment(Seg.CS).Base.Should().Be(0xffff0000);
    }

    [Theory]
    [InlineData(Fault.BP, 0xcc)]
    [InlineData(Fault.DB, 0xf1)]
    [InlineData(0x40, 0xcd, 0x40)]
    public void A_software_interrupt_pushes_the_next_instruction_and_no_RF(int vector, params int[] code)
    {
        using BareMachine m = Create();
        m.SetGate64((byte)vector, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        m.Bytes(BareMachine.Code, [.. code.Select(static b => (byte)b)]);
        m.State->Rflags |= Flags.RF;
        m.Run();
        Frame(m, 0).Should().Be(BareMachine.Code + (ulong)code.Length);
        (Frame(m, 2) & Flags.RF).Should().Be(0);
    }

    [Fact]
    public void IRETQ_returns_to_CPL_3_and_drops_data_segments_of_the_kernel()
    {
        using BareMachine m = Create();
        m.SetGate64(Fault.UD, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        m.SetGate64(Fault.BP, SegmentRights.InterruptGate32, BareMachine.Code64, Handler, dpl: 3);
        m.Assemble(BareMachine.Code, a =>
        {
            a.push(BareMachine.UserData);
            a.push((int)BareMachine.UserStack);
            a.push(0x202);
            a.push(BareMachine.UserCode64);
            a.push((int)BareMachine.UserCode);
            a.iretq();
        });
        m.Bytes(BareMachine.UserCode, 0xcc);
        m.Run();
        Frame(m, 1).Should().Be(BareMachine.UserCode64);
        Frame(m, 2).Should().Be(0x202);
        Frame(m, 3).Should().Be(BareMachine.UserStack);
        m.Cpu.Segment(Seg.DS).Selector.Should().Be(0, "a DPL 0 data segment is not for CPL 3");
    }

    [Theory]
    [InlineData(BareMachine.UserCode64, BareMachine.Data32, BareMachine.Data32)]
    [InlineData(BareMachine.UserCode64, (ushort)0, (ushort)0)]
    [InlineData((ushort)0, BareMachine.UserData, (ushort)0)]
    [InlineData(BareMachine.Data32, BareMachine.Data32, BareMachine.Data32)]
    [InlineData((ushort)0x68, BareMachine.Data32, (ushort)0x68)]
    public void IRETQ_faults_with_the_selector_that_breaks_a_rule(ushort cs, ushort ss, ushort error)
    {
        using BareMachine m = Create();
        m.SetGate64(Fault.GP, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        m.Assemble(BareMachine.Code, a =>
        {
            a.push(ss);
            a.push((int)BareMachine.UserStack);
            a.push(2);
            a.push(cs);
            a.push((int)BareMachine.UserCode);
            a.iretq();
        });
        m.Run();
        m.State->Rip.Should().Be(Handler + 1);
        Frame(m, 0).Should().Be(error);
    }

    [Fact]
    public void IRETQ_to_a_noncanonical_RIP_faults_at_the_old_privilege()
    {
        using BareMachine m = Create();
        m.SetGate64(Fault.GP, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        m.Assemble(BareMachine.Code, a =>
        {
            a.push(BareMachine.UserData);
            a.push((int)BareMachine.UserStack);
            a.push(2);
            a.push(BareMachine.UserCode64);
            a.mov(rax, 0x8000_0000_0000);
            a.push(rax);
            a.iretq();
        });
        m.Run();
        m.State->Cpl.Should().Be(0);
        Frame(m, 0).Should().Be(0);
        Frame(m, 2).Should().Be(BareMachine.Code64);
    }

    [Fact]
    public void An_external_interrupt_waits_for_IF_and_for_the_instruction_after_STI()
    {
        using BareMachine m = Create();
        m.SetGate64(0x30, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        m.Assemble(BareMachine.Code, a =>
        {
            a.nop();
            a.sti();
            a.inc(rbx);
            a.inc(rbx);
            a.hlt();
        });
        m.Cpu.RaiseInterrupt(0x30);
        m.Run().Should().Be(StopReason.Halted);
        m.State->Rip.Should().Be(Handler + 1);
        m.State->Gpr[3].Should().Be(1);
        m.Cpu.InterruptPending.Should().BeFalse();
    }

    [Fact]
    public void STI_HLT_is_atomic_and_the_interrupt_wakes_the_processor()
    {
        using BareMachine m = Create();
        m.SetGate64(0x30, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        m.Assemble(BareMachine.Code, a =>
        {
            a.sti();
            a.hlt();
            a.nop();
        });
        m.Cpu.RaiseInterrupt(0x30);
        m.Run();
        Frame(m, 0).Should().Be(BareMachine.Code + 2, "the interrupt returns behind HLT");
    }

    [Fact]
    public void The_task_priority_holds_back_interrupts_of_its_class_and_below()
    {
        using BareMachine m = Create();
        m.SetGate64(0x4f, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        m.State->Rflags |= Flags.IF;
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(eax, 4);
            a.mov(cr8, rax);
            a.inc(rbx);
            a.mov(eax, 3);
            a.mov(cr8, rax);
            a.inc(rbx);
            a.hlt();
        });
        m.State->Cr8 = 4;
        m.Cpu.RaiseInterrupt(0x4f);
        m.Run();
        m.State->Rip.Should().Be(Handler + 1);
        m.State->Gpr[3].Should().Be(1);
    }

    [Fact]
    public void NMIs_are_blocked_until_IRET()
    {
        using BareMachine m = Create();
        m.SetGate64(2, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        m.Assemble(Handler, a =>
        {
            a.inc(rcx);
            a.cmp(rcx, 2);
            var done = a.CreateLabel();
            a.je(done);
            a.mov(rdx, 1);
            a.iretq();
            a.Label(ref done);
            a.hlt();
        });
        m.Assemble(BareMachine.Code, a =>
        {
            a.nop();
            a.hlt();
        });
        m.Cpu.RaiseNmi();
        m.Run(2);
        m.State->NmiBlocked.Should().Be(1);
        m.Cpu.RaiseNmi();
        m.Run();
        m.State->Gpr[1].Should().Be(2);
        Frame(m, 0).Should().Be(BareMachine.Code, "the second NMI came right after IRET");
    }

    [Fact]
    public void TF_traps_after_each_instruction_and_not_after_the_one_that_set_it()
    {
        using BareMachine m = Create();
        m.SetGate64(Fault.DB, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        m.Assemble(BareMachine.Code, a =>
        {
            a.pushfq();
            a.or(__dword_ptr[rsp], 0x100);
            a.popfq();
            a.inc(rbx);
            a.inc(rbx);
        });
        m.Run();
        m.State->Gpr[3].Should().Be(1);
        m.State->Dr[6].Should().Be(0xffff4ff0);
        (Frame(m, 2) & Flags.RF).Should().Be(0);
        (Frame(m, 2) & Flags.TF).Should().Be(Flags.TF);
        (m.State->Rflags & Flags.TF).Should().Be(0);
    }

    [Fact]
    public void An_instruction_breakpoint_faults_before_the_instruction_and_RF_passes_it()
    {
        using BareMachine m = Create();
        m.SetGate64(Fault.DB, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        m.Assemble(Handler, a =>
        {
            a.inc(rcx);
            a.or(__dword_ptr[rsp + 16], 0x10000);
            a.iretq();
        });
        m.Assemble(BareMachine.Code, a =>
        {
            a.nop();
            a.inc(rbx);
            a.hlt();
        });
        m.Cpu.WriteDr(0, BareMachine.Code + 1);
        m.Cpu.WriteDr(7, 0x2);
        m.Run().Should().Be(StopReason.Halted);
        m.State->Gpr[1].Should().Be(1);
        m.State->Gpr[3].Should().Be(1);
        (m.State->Dr[6] & 0xf).Should().Be(1);
    }

    [Fact]
    public void A_data_breakpoint_traps_after_the_write()
    {
        using BareMachine m = Create();
        m.SetGate64(Fault.DB, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(rax, __qword_ptr[BareMachine.Data]);
            a.mov(__byte_ptr[BareMachine.Data + 3], bl);
            a.inc(rcx);
            a.hlt();
        });
        m.Cpu.WriteDr(1, BareMachine.Data);
        m.Cpu.WriteDr(7, 0x8 | 0xd0_0000);
        m.Run();
        m.State->Rip.Should().Be(Handler + 1);
        m.State->Gpr[1].Should().Be(0);
        (m.State->Dr[6] & 0xf).Should().Be(2);
    }

    [Fact]
    public void Access_to_debug_registers_with_GD_faults_and_clears_GD()
    {
        using BareMachine m = Create();
        m.SetGate64(Fault.DB, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        m.Assemble(BareMachine.Code, a => a.mov(rax, dr3));
        m.Cpu.WriteDr(7, 0x2000);
        m.Run();
        Frame(m, 0).Should().Be(BareMachine.Code);
        (m.State->Dr[6] & 0x2000).Should().Be(0x2000);
        (m.State->Dr[7] & 0x2000).Should().Be(0);
    }
}
