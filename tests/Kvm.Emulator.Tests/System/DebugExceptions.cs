using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests;

/// <summary>#DB in 64-bit mode: single steps, breakpoints, general detect, and what delays, repeats or hides them.</summary>
/// <remarks>SDM vol 3B, "Debug Exceptions"; vol 3A, "Masking Exceptions and Interrupts When Switching Stacks".</remarks>
public sealed unsafe class DebugExceptions
{
    private const ulong Handler = 0x9000, Watched = 0xe100;
    private const ulong B0 = 1, Bd = 1 << 13, Bs = 1 << 14;
    private const uint Rf = 1 << 16;

    private readonly record struct Hit(ulong Rip, ulong Rflags, ulong Dr6);

    /// <summary>A 64-bit machine whose #DB handler logs where it came from and returns; RF in the returned image when <paramref name="resume"/>.</summary>
    private static BareMachine Create(bool resume = false, CpuModel? model = null)
    {
        var m = new BareMachine(model);
        m.Long();
        *m.Qword(BareMachine.Data) = BareMachine.Data + 0x10;
        m.SetGate64(Fault.DB, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        m.Assemble(Handler, a =>
        {
            a.push(rax);
            a.push(rbx);
            a.mov(rbx, __qword_ptr[BareMachine.Data]);
            a.mov(rax, __qword_ptr[rsp + 16]);
            a.mov(__qword_ptr[rbx], rax);
            a.mov(rax, __qword_ptr[rsp + 32]);
            a.mov(__qword_ptr[rbx + 8], rax);
            a.mov(rax, dr6);
            a.mov(__qword_ptr[rbx + 16], rax);
            a.add(rbx, 24);
            a.mov(__qword_ptr[BareMachine.Data], rbx);
            a.xor(eax, eax);
            a.mov(dr6, rax);
            if (resume)
                a.or(__dword_ptr[rsp + 32], Rf);
            a.pop(rbx);
            a.pop(rax);
            a.iretq();
        });
        return m;
    }

    private static List<Hit> Hits(BareMachine m)
    {
        var hits = new List<Hit>();
        for (ulong at = BareMachine.Data + 0x10; at < *m.Qword(BareMachine.Data); at += 24)
            hits.Add(new Hit(*m.Qword(at), *m.Qword(at + 8), *m.Qword(at + 16)));
        return hits;
    }

    private static void SetBreakpoint(BareMachine m, int index, ulong address, int type, int length)
    {
        m.Cpu.WriteDr(index, address);
        uint len = length switch { 1 => 0u, 2 => 1, 8 => 2, _ => 3 };
        m.Cpu.WriteDr(7, m.Cpu.ReadDr(7) | 2UL << (index * 2) | (ulong)(uint)type << (16 + (index * 4)) | (ulong)len << (18 + (index * 4)));
    }

    private static void SetTf(Assembler a)
    {
        a.pushfq();
        a.or(__dword_ptr[rsp], 0x100);
        a.popfq();
    }

    private static void ClearTf(Assembler a)
    {
        a.pushfq();
        a.and(__dword_ptr[rsp], ~0x100);
        a.popfq();
    }

    [Fact]
    public void A_step_traps_after_each_instruction_that_began_with_TF()
    {
        using BareMachine m = Create();
        m.Assemble(BareMachine.Code, a =>
        {
            SetTf(a);
            a.nop();
            a.inc(ecx);
            ClearTf(a);
            a.inc(ecx);
            a.hlt();
        });
        m.Run().Should().Be(StopReason.Halted);
        List<Hit> hits = Hits(m);
        // NOP, INC, PUSHF, AND, POPF: the instruction that clears TF traps too, the one that sets it does not.
        hits.Should().HaveCount(5);
        hits.Should().OnlyContain(h => (h.Dr6 & 0xf00f) == Bs);
        hits.Take(4).Should().OnlyContain(h => (h.Rflags & Flags.TF) != 0 && (h.Rflags & Rf) == 0);
        (hits[4].Rflags & Flags.TF).Should().Be(0);
        m.State->Gpr[1].Should().Be(2);
    }

    [Fact]
    public void A_step_limited_by_the_budget_is_one_step()
    {
        using BareMachine m = Create();
        m.Assemble(BareMachine.Code, a =>
        {
            SetTf(a);
            a.nop();
            a.nop();
            ClearTf(a);
            a.hlt();
        });
        while (m.Cpu.Run(1) == StopReason.Budget)
        {
        }
        Hits(m).Select(h => h.Rip - BareMachine.Code).Should().Equal(10UL, 11, 12, 19, 20);
    }

    [Fact]
    public void A_REP_instruction_steps_once_a_turn_with_RF_in_all_images_but_the_last()
    {
        using BareMachine m = Create();
        m.State->Gpr[1] = 3;
        m.State->Gpr[7] = Watched;
        m.Assemble(BareMachine.Code, a =>
        {
            SetTf(a);
            a.rep.stosb();
            ClearTf(a);
            a.hlt();
        });
        m.Run().Should().Be(StopReason.Halted);
        List<Hit> hits = Hits(m);
        ulong rep = hits[0].Rip;
        hits.Take(3).Select(h => h.Rip).Should().Equal(rep, rep, rep + 2);
        hits.Take(3).Select(h => h.Rflags & Rf).Should().Equal(Rf, Rf, 0UL);
    }

    [Fact]
    public void HLT_with_TF_traps_and_does_not_halt()
    {
        using BareMachine m = Create();
        m.Assemble(BareMachine.Code, a =>
        {
            SetTf(a);
            a.hlt();
            ClearTf(a);
            a.mov(edx, 1);
            a.hlt();
        });
        m.Run().Should().Be(StopReason.Halted);
        m.State->Gpr[2].Should().Be(1);
    }

    [Fact]
    public void An_interrupt_between_turns_of_REP_saves_RF()
    {
        using BareMachine m = Create();
        m.SetGate64(0x40, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9800);
        m.Bytes(0x9800, 0xf4);
        // The count outlasts any turn: the interrupt is noticed inside the instruction.
        m.State->Gpr[1] = 1 << 20;
        m.State->Gpr[7] = 0x200000;
        m.Assemble(BareMachine.Code, a =>
        {
            a.sti();
            a.nop();
            a.rep.stosb();
            a.hlt();
        });
        m.Cpu.Run(3).Should().Be(StopReason.Budget);
        m.State->Gpr[1].Should().NotBe(0).And.NotBe(1 << 20);
        m.Cpu.RaiseInterrupt(0x40);
        m.Run().Should().Be(StopReason.Halted);
        ulong* frame = m.Qword(m.State->Gpr[4]);
        frame[0].Should().Be(BareMachine.Code + 2);
        (frame[2] & Rf).Should().Be(Rf);
    }

    [Fact]
    public void RF_of_an_interrupt_image_is_gone_after_one_instruction()
    {
        using BareMachine m = Create();
        m.SetGate64(0x40, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9800);
        m.Bytes(0x9800, 0xf4);
        m.State->Rflags |= Rf | Flags.IF;
        m.Cpu.UpdateMode();
        m.Bytes(BareMachine.Code, 0x90, 0x90, 0x90, 0xf4);
        m.Cpu.Run(2).Should().Be(StopReason.Budget);
        m.Cpu.RaiseInterrupt(0x40);
        m.Run();
        (m.Qword(m.State->Gpr[4])[2] & Rf).Should().Be(0);
    }

    [Fact]
    public void An_instruction_breakpoint_faults_before_the_instruction_and_RF_lets_it_pass()
    {
        using BareMachine m = Create(resume: true);
        m.Bytes(BareMachine.Code, 0x90, 0x90, 0x90, 0xf4);
        SetBreakpoint(m, 0, BareMachine.Code + 1, 0, 1);
        m.Run().Should().Be(StopReason.Halted);
        Hit hit = Hits(m).Should().ContainSingle().Subject;
        hit.Rip.Should().Be(BareMachine.Code + 1);
        (hit.Dr6 & 0xf00f).Should().Be(B0);
        (hit.Rflags & Rf).Should().Be(0, "the image of an instruction breakpoint is the one fault without RF");
    }

    [Fact]
    public void An_instruction_breakpoint_on_REP_hits_once_not_every_turn()
    {
        using BareMachine m = Create(resume: true);
        m.State->Gpr[1] = 5;
        m.State->Gpr[7] = Watched;
        m.Bytes(BareMachine.Code, 0xf3, 0xaa, 0xf4);
        SetBreakpoint(m, 0, BareMachine.Code, 0, 1);
        m.Run().Should().Be(StopReason.Halted);
        Hits(m).Should().ContainSingle();
        m.State->Gpr[1].Should().Be(0);
    }

    [Fact]
    public void A_breakpoint_on_the_first_instruction_of_an_interrupt_handler_hits()
    {
        using BareMachine m = Create(resume: true);
        m.SetGate64(0x40, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9800);
        m.Bytes(0x9800, 0x90, 0xf4);
        SetBreakpoint(m, 1, 0x9800, 0, 1);
        m.State->Rflags |= Flags.IF;
        m.Cpu.RaiseInterrupt(0x40);
        m.Bytes(BareMachine.Code, 0xf4);
        m.Run().Should().Be(StopReason.Halted);
        Hits(m).Should().ContainSingle().Which.Rip.Should().Be(0x9800);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_breakpoint_on_the_instruction_after_MOV_SS_is_lost(bool movSs)
    {
        using BareMachine m = Create(resume: true);
        m.State->Gpr[0] = BareMachine.Data32;
        // mov ss, eax / mov ds, eax; nop; hlt
        m.Bytes(BareMachine.Code, 0x8e, (byte)(movSs ? 0xd0 : 0xd8), 0x90, 0xf4);
        SetBreakpoint(m, 0, BareMachine.Code + 2, 0, 1);
        m.Run().Should().Be(StopReason.Halted);
        Hits(m).Should().HaveCount(movSs ? 0 : 1);
    }

    // Write breakpoints hit writes, read/write ones reads too, that touch any byte of the aligned range.
    [Theory]
    [InlineData(1, 1), InlineData(1, 2), InlineData(1, 4), InlineData(1, 8), InlineData(3, 1), InlineData(3, 4), InlineData(3, 8)]
    public void A_data_breakpoint_traps_after_an_access_to_its_range(int type, int length)
    {
        using BareMachine m = Create();
        SetBreakpoint(m, 0, Watched, type, length);
        ulong at = 0x9800;
        foreach (int size in (int[])[1, 2, 4, 8])
            foreach (bool write in (bool[])[false, true])
            {
                at += 0x10;
                m.Assemble(at, a =>
                {
                    if (write)
                        Store(a, size);
                    else
                        Load(a, size);
                    a.nop();
                    a.hlt();
                });
                foreach (int offset in (int[])[-9, -8, -4, -1, 0, 1, 3, 7, 8])
                {
                    *m.Qword(BareMachine.Data) = BareMachine.Data + 0x10;
                    m.State->Gpr[3] = Watched + (ulong)offset;
                    m.State->Rip = at;
                    m.Run().Should().Be(StopReason.Halted);
                    m.State->Activity = ActivityState.Active;
                    bool hits = offset < length && offset + size > 0 && (write || type == 3);
                    List<Hit> log = Hits(m);
                    log.Should().HaveCount(hits ? 1 : 0, "{0} of {1} bytes at {2}", write ? "a write" : "a read", size, offset);
                    if (hits)
                        (log[0].Dr6 & 0xf00f).Should().Be(B0);
                }
            }
    }

    private static void Store(Assembler a, int size)
    {
        if (size == 1) a.mov(__byte_ptr[rbx], al);
        else if (size == 2) a.mov(__word_ptr[rbx], ax);
        else if (size == 4) a.mov(__dword_ptr[rbx], eax);
        else a.mov(__qword_ptr[rbx], rax);
    }

    private static void Load(Assembler a, int size)
    {
        if (size == 1) a.mov(al, __byte_ptr[rbx]);
        else if (size == 2) a.mov(ax, __word_ptr[rbx]);
        else if (size == 4) a.mov(eax, __dword_ptr[rbx]);
        else a.mov(rax, __qword_ptr[rbx]);
    }

    [Fact]
    public void The_address_of_a_breakpoint_is_taken_aligned_to_its_length()
    {
        using BareMachine m = Create();
        SetBreakpoint(m, 2, Watched + 3, 1, 4);
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(__byte_ptr[Watched], al);
            a.mov(__byte_ptr[Watched + 4], al);
            a.hlt();
        });
        m.Run();
        Hits(m).Should().ContainSingle().Which.Dr6.Should().Be((4 | Processor.Dr6Fixed), "B2 and the bits that read as one");
    }

    [Fact]
    public void A_read_breakpoint_in_the_page_of_the_code_hits()
    {
        using BareMachine m = Create();
        ulong data = BareMachine.Code + 0x800;
        SetBreakpoint(m, 0, data, 3, 4);
        m.Assemble(BareMachine.Code, a =>
        {
            a.nop();
            a.mov(eax, __dword_ptr[data]);
            a.hlt();
        });
        m.Run();
        Hits(m).Should().ContainSingle();
    }

    [Fact]
    public void A_breakpoint_on_the_stack_hits_pushes_of_an_interrupt()
    {
        using BareMachine m = Create();
        m.SetGate64(0x40, SegmentRights.TrapGate32, BareMachine.Code64, 0x9800);
        m.Bytes(0x9800, 0x90, 0xf4);
        SetBreakpoint(m, 0, BareMachine.Stack - 8, 1, 8);
        m.Bytes(BareMachine.Code, 0xcd, 0x40);
        m.Run();
        Hits(m).Should().ContainSingle().Which.Rip.Should().Be(0x9800);
    }

    [Fact]
    public void A_data_breakpoint_of_MOV_SS_waits_for_the_next_instruction_even_if_that_is_INT()
    {
        using BareMachine m = Create();
        m.SetGate64(0x40, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9800);
        m.Bytes(0x9800, 0x90, 0xf4);
        *(ushort*)m.At(Watched) = BareMachine.Data32;
        SetBreakpoint(m, 0, Watched, 3, 2);
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(ss, __word_ptr[Watched]);
            a.@int(0x40);
        });
        m.Run().Should().Be(StopReason.Halted);
        Hits(m).Should().ContainSingle().Which.Rip.Should().Be(0x9800);
    }

    [Fact]
    public void General_detect_faults_on_MOV_DR_with_RF_and_clears_GD()
    {
        using BareMachine m = Create();
        m.Cpu.WriteDr(7, 1 << 13);
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(rax, dr0);
            a.hlt();
        });
        m.Run().Should().Be(StopReason.Halted);
        Hit hit = Hits(m).Should().ContainSingle().Subject;
        hit.Rip.Should().Be(BareMachine.Code);
        (hit.Dr6 & 0xf00f).Should().Be(Bd);
        (hit.Rflags & Rf).Should().Be(Rf);
        (m.Cpu.ReadDr(7) & 1 << 13).Should().Be(0, "or the handler could not read DR6");
    }

    [Theory]
    [InlineData(true, 0x70, 1, true)]
    [InlineData(false, 0x70, 1, false)]
    [InlineData(true, 0x71, 1, true)]
    [InlineData(true, 0x72, 1, false)]
    [InlineData(true, 0x6f, 1, false)]
    [InlineData(true, 0x6f, 2, true)]
    public void An_IO_breakpoint_needs_CR4_DE_and_an_overlapping_port(bool de, int port, int size, bool hits)
    {
        using BareMachine m = Create();
        m.Cpu.WriteCr(4, m.State->Cr4 | (de ? Cr4.DE : 0)).Ok.Should().BeTrue();
        SetBreakpoint(m, 0, 0x70, 2, 2);
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(edx, port);
            if (size == 1)
                a.@in(al, dx);
            else
                a.@in(ax, dx);
            a.hlt();
        });
        m.Run();
        Hits(m).Should().HaveCount(hits ? 1 : 0);
    }

    [Fact]
    public void BTF_steps_from_branch_to_branch_and_goes_off_at_each()
    {
        using BareMachine m = Create();
        m.Cpu.WriteMsr(Msr.IA32_DEBUGCTL, 2).Ok.Should().BeTrue();
        m.Assemble(BareMachine.Code, a =>
        {
            Label taken = a.CreateLabel("taken");
            SetTf(a);
            a.nop();
            a.xor(eax, eax);
            a.jnz(taken);
            a.jz(taken);
            a.hlt();
            a.Label(ref taken);
            ClearTf(a);
            a.hlt();
        });
        m.Run().Should().Be(StopReason.Halted);
        List<Hit> hits = Hits(m);
        hits[0].Rip.Should().BeGreaterThan(BareMachine.Code + 12, "not after the NOP, the XOR, or the branch that is not taken");
        (m.State->DebugCtl & 2).Should().Be(0);
        hits.Should().HaveCount(4, "the branch, then plain steps through PUSHF, AND, POPF");
    }

    [Fact]
    public void LBR_on_AMD_keeps_the_last_branch_and_the_one_before_an_interrupt()
    {
        using BareMachine m = Create(model: CpuModel.AmdZen);
        m.SetGate64(0x40, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9800);
        m.Bytes(0x9800, 0xf4);
        m.Cpu.WriteMsr(Msr.IA32_DEBUGCTL, 1).Ok.Should().BeTrue();
        // jmp +1; hlt; int 0x40
        m.Bytes(BareMachine.Code, 0xeb, 0x01, 0xf4, 0xcd, 0x40);
        m.Run().Should().Be(StopReason.Halted);
        ulong Read(uint msr) => m.Cpu.ReadMsr(msr, out ulong v).Ok ? v : ulong.MaxValue;
        Read(Msr.AMD_LAST_BRANCH_FROM).Should().Be(BareMachine.Code + 3);
        Read(Msr.AMD_LAST_BRANCH_TO).Should().Be(0x9800);
        Read(Msr.AMD_LAST_INT_FROM).Should().Be(BareMachine.Code);
        Read(Msr.AMD_LAST_INT_TO).Should().Be(BareMachine.Code + 3);
    }

    [Fact]
    public void ICEBP_is_a_trap_without_DR6_bits_or_a_privilege_check()
    {
        using BareMachine m = Create();
        m.Bytes(BareMachine.Code, 0xf1, 0xf4);
        m.Run().Should().Be(StopReason.Halted);
        Hit hit = Hits(m).Should().ContainSingle().Subject;
        hit.Rip.Should().Be(BareMachine.Code + 1);
        (hit.Dr6 & 0xf00f).Should().Be(0);
        using var user = new BareMachine();
        user.Long(cpl: 3);
        user.SetGate64(Fault.DB, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        user.Bytes(Handler, 0xf4);
        user.Bytes(BareMachine.UserCode, 0xf1);
        user.Run().Should().Be(StopReason.Halted);
        user.State->Rip.Should().Be(Handler + 1, "DPL 0 gates are open to it");
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void SYSCALL_steps_by_the_TF_that_FMASK_leaves(bool masked)
    {
        using BareMachine m = Create();
        m.Cpu.WriteMsr(Msr.IA32_STAR, (ulong)BareMachine.Code64 << 32).Ok.Should().BeTrue();
        m.SetGdt(BareMachine.Code64 + 8, m.GetGdt(BareMachine.Data32));
        m.Cpu.WriteMsr(Msr.IA32_LSTAR, 0x9800);
        m.Cpu.WriteMsr(Msr.IA32_FMASK, masked ? 0x100u : 0);
        m.Assemble(0x9800, a =>
        {
            ClearTf(a);
            a.hlt();
        });
        m.Assemble(BareMachine.Code, a =>
        {
            SetTf(a);
            a.syscall();
        });
        m.Run().Should().Be(StopReason.Halted);
        Hits(m).Select(h => h.Rip).Should().HaveCount(masked ? 0 : 4);
    }

    [Fact]
    public void An_NMI_that_waits_behind_a_debug_trap_comes_before_the_handlers_first_instruction()
    {
        using BareMachine m = Create();
        m.SetGate64(Fault.NMI, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9800);
        m.Bytes(0x9800, 0xf4);
        m.Assemble(BareMachine.Code, a =>
        {
            SetTf(a);
            a.nop();
            a.hlt();
        });
        m.Cpu.Run(4).Should().Be(StopReason.Budget);
        m.Cpu.RaiseNmi();
        m.Run().Should().Be(StopReason.Halted);
        m.State->Rip.Should().Be(0x9801);
        m.Qword(m.State->Gpr[4])[0].Should().Be(Handler, "the #DB handler was entered first, and interrupted at once");
    }
}
