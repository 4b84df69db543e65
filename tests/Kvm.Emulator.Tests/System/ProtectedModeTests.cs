using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests;

/// <summary>32-bit protected mode, virtual-8086 mode and real mode: gates, call gates, far returns, task switches, IVT.</summary>
public sealed unsafe class ProtectedModeTests
{
    private const ulong Handler = 0x9000;

    private static uint Frame(BareMachine m, int index) => *(uint*)m.At(m.State->Gpr[4] + (ulong)(index * 4));

    private static BareMachine Create(int cpl = 0)
    {
        var m = new BareMachine();
        m.Protected(cpl);
        m.Bytes(Handler, 0xf4);
        return m;
    }

    [Fact]
    public void An_interrupt_from_CPL_3_takes_SS0_ESP0_from_the_TSS()
    {
        using BareMachine m = Create(cpl: 3);
        m.SetGate32(0x80, BareMachine.Gate(SegmentRights.InterruptGate32, BareMachine.Code32, Handler, dpl: 3));
        m.Bytes(BareMachine.UserCode, 0xcd, 0x80);
        m.Run().Should().Be(StopReason.Halted);
        m.State->Cpl.Should().Be(0);
        m.State->Gpr[4].Should().Be(BareMachine.InnerStack - 20);
        Frame(m, 0).Should().Be((uint)BareMachine.UserCode + 2);
        Frame(m, 1).Should().Be(BareMachine.UserCode32);
        Frame(m, 3).Should().Be((uint)BareMachine.UserStack);
        Frame(m, 4).Should().Be(BareMachine.UserData);
        m.Cpu.Segment(Seg.SS).Selector.Should().Be(BareMachine.Data32);
    }

    [Fact]
    public void A_16_bit_gate_pushes_words()
    {
        using BareMachine m = Create();
        m.SetGate32(0x80, BareMachine.Gate(SegmentRights.TrapGate16, BareMachine.Code32, Handler));
        m.Bytes(BareMachine.Code, 0xcd, 0x80);
        m.Run();
        m.State->Gpr[4].Should().Be(BareMachine.Stack - 6);
        (*(ushort*)m.At(m.State->Gpr[4])).Should().Be((ushort)(BareMachine.Code + 2));
    }

    [Theory]
    [InlineData((ushort)0, (ushort)0)]
    [InlineData(BareMachine.UserData, (ushort)(BareMachine.UserData & ~3))]
    [InlineData(BareMachine.Code32, BareMachine.Code32)]
    [InlineData((ushort)0x78, (ushort)0x78)]
    public void A_bad_inner_stack_segment_is_an_invalid_TSS(ushort ss, ushort error)
    {
        using BareMachine m = Create(cpl: 3);
        ((uint*)m.At(BareMachine.Tss))[2] = ss;
        m.SetGate32(0x80, BareMachine.Gate(SegmentRights.InterruptGate32, BareMachine.Code32, Handler, dpl: 3));
        m.Cpu.Segment(Seg.TR).Limit = 0x67;
        // #TS goes through a task gate, the only way out without a good inner stack.
        m.SetGate32(Fault.TS, BareMachine.Gate(SegmentRights.TaskGate, BareMachine.Tss2Selector, 0));
        FillTss(m, BareMachine.Tss2, (uint)Handler);
        m.Bytes(BareMachine.UserCode, 0xcd, 0x80);
        m.Run();
        m.State->Rip.Should().Be(Handler + 1);
        Frame(m, 0).Should().Be(error);
        (*(uint*)(m.At(BareMachine.Tss) + 0x20)).Should().Be((uint)BareMachine.UserCode, "a fault saves the instruction itself");
    }

    private static void FillTss(BareMachine m, ulong at, uint eip, uint eflags = 2)
    {
        uint* t = (uint*)m.At(at);
        t[8] = eip;
        t[9] = eflags;
        t[14] = (uint)BareMachine.Stack - 0x100;
        t[18] = BareMachine.Data32;
        t[19] = BareMachine.Code32;
        t[20] = BareMachine.Data32;
        t[21] = BareMachine.Data32;
        t[22] = 0;
        t[23] = 0;
        t[24] = 0;
    }

    [Fact]
    public void A_far_JMP_to_a_TSS_switches_tasks()
    {
        using BareMachine m = Create();
        FillTss(m, BareMachine.Tss2, (uint)Handler);
        ((uint*)m.At(BareMachine.Tss2))[10] = 0xabcd;
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(ebx, 0x7777);
            a.jmp((ushort)BareMachine.Tss2Selector, 0u);
        }, 32);
        m.Run().Should().Be(StopReason.Halted);
        m.State->Rip.Should().Be(Handler + 1);
        m.State->Gpr[0].Should().Be(0xabcd);
        ((uint*)m.At(BareMachine.Tss))[13].Should().Be(0x7777u, "EBX of the old task is saved");
        (m.GetGdt(BareMachine.Tss2Selector) >> 40 & 0xf).Should().Be(SegmentRights.TssBusy32);
        (m.GetGdt(BareMachine.TssSelector) >> 40 & 0xf).Should().Be(SegmentRights.TssAvailable32);
        (m.State->Cr0 & Cr0.TS).Should().Be(Cr0.TS);
        (m.State->Rflags & Flags.NT).Should().Be(0);
    }

    [Fact]
    public void A_far_CALL_to_a_TSS_nests_and_IRET_returns()
    {
        using BareMachine m = Create();
        FillTss(m, BareMachine.Tss2, (uint)Handler);
        m.Assemble(Handler, a =>
        {
            a.mov(ecx, 1);
            a.iretd();
            a.hlt();
        }, 32);
        m.Assemble(BareMachine.Code, a =>
        {
            a.call((ushort)BareMachine.Tss2Selector, 0u);
            a.inc(edx);
            a.hlt();
        }, 32);
        m.State->Gpr[2] = 0;
        m.Run().Should().Be(StopReason.Halted);
        m.State->Gpr[2].Should().Be(1);
        m.Cpu.Segment(Seg.TR).Selector.Should().Be(BareMachine.TssSelector);
        (m.GetGdt(BareMachine.Tss2Selector) >> 40 & 0xf).Should().Be(SegmentRights.TssAvailable32);
        (m.GetGdt(BareMachine.TssSelector) >> 40 & 0xf).Should().Be(SegmentRights.TssBusy32);
        ((uint*)m.At(BareMachine.Tss2))[8].Should().Be((uint)Handler + 6, "the EIP behind IRET is saved");
    }

    [Fact]
    public void A_busy_TSS_cannot_be_jumped_to()
    {
        using BareMachine m = Create();
        m.SetGdt(BareMachine.Tss2Selector, BareMachine.Segment((uint)BareMachine.Tss2, 0x67, 0x8b));
        m.SetGate32(Fault.GP, BareMachine.Gate(SegmentRights.InterruptGate32, BareMachine.Code32, Handler));
        m.Assemble(BareMachine.Code, a => a.jmp((ushort)BareMachine.Tss2Selector, 0u), 32);
        m.Run();
        Frame(m, 0).Should().Be(BareMachine.Tss2Selector);
    }

    // ---- instruction fetch ----

    [Theory]
    [InlineData(0x8002u, true)]
    [InlineData(0x8001u, false)]
    public void Execution_beyond_the_limit_of_CS_faults(uint limit, bool reaches)
    {
        using BareMachine m = Create();
        m.SetGate32(Fault.GP, BareMachine.Gate(SegmentRights.InterruptGate32, BareMachine.Code32, Handler));
        m.Bytes(BareMachine.Code, 0x90, 0x90, 0xf4);
        m.Cpu.Segment(Seg.CS).Limit = limit;
        m.Cpu.UpdateMode();
        m.Run();
        m.State->Rip.Should().Be(reaches ? BareMachine.Code + 3 : Handler + 1);
        if (!reaches)
            Frame(m, 1).Should().Be((uint)BareMachine.Code + 2);
    }

    [Fact]
    public void An_instruction_that_straddles_the_limit_of_CS_faults_at_its_start()
    {
        using BareMachine m = Create();
        m.SetGate32(Fault.GP, BareMachine.Gate(SegmentRights.InterruptGate32, BareMachine.Code32, Handler));
        m.Assemble(BareMachine.Code, a => a.mov(eax, 0x12345678), 32);
        m.Cpu.Segment(Seg.CS).Limit = (uint)BareMachine.Code + 3;
        m.Cpu.UpdateMode();
        m.Run();
        m.State->Rip.Should().Be(Handler + 1);
        Frame(m, 1).Should().Be((uint)BareMachine.Code);
    }

    // ---- call gates ----

    [Fact]
    public void A_call_gate_to_CPL_0_copies_parameters_and_RET_releases_them_on_both_stacks()
    {
        using BareMachine m = Create(cpl: 3);
        m.SetGdt(0x68, BareMachine.Gate(SegmentRights.CallGate32, BareMachine.Code32, Handler, dpl: 3, count: 2));
        m.SetGate32(Fault.BP, BareMachine.Gate(SegmentRights.InterruptGate32, BareMachine.Code32, 0x9100, dpl: 3));
        m.Bytes(0x9100, 0xf4);
        m.Assemble(Handler, a =>
        {
            a.mov(eax, __dword_ptr[esp + 8]);
            a.mov(ebx, __dword_ptr[esp + 12]);
            a.mov(ecx, __dword_ptr[esp + 16]);
            a.retf(8);
        }, 32);
        m.Assemble(BareMachine.UserCode, a =>
        {
            a.push(0x22);
            a.push(0x11);
            a.call((ushort)0x6b, 0u);
            a.int3();
        }, 32);
        m.Run().Should().Be(StopReason.Halted);
        m.State->Gpr[0].Should().Be(0x11);
        m.State->Gpr[3].Should().Be(0x22);
        m.State->Gpr[1].Should().Be((uint)BareMachine.UserStack - 8);
        Frame(m, 3).Should().Be((uint)BareMachine.UserStack, "RET n released the parameters of the outer stack");
        Frame(m, 1).Should().Be(BareMachine.UserCode32);
    }

    [Theory]
    [InlineData(0, true)]
    [InlineData(3, false)]
    public void A_call_gate_needs_DPL_at_least_CPL(int dpl, bool faults)
    {
        using BareMachine m = Create(cpl: 3);
        m.SetGdt(0x68, BareMachine.Gate(SegmentRights.CallGate32, BareMachine.Code32, Handler, dpl));
        m.SetGate32(Fault.GP, BareMachine.Gate(SegmentRights.InterruptGate32, BareMachine.Code32, 0x9100));
        m.Bytes(0x9100, 0xf4);
        m.Assemble(BareMachine.UserCode, a => a.call((ushort)0x6b, 0u), 32);
        m.Run();
        m.State->Rip.Should().Be(faults ? 0x9101UL : Handler + 1);
        if (faults)
            Frame(m, 0).Should().Be(0x68);
    }

    [Fact]
    public void A_far_JMP_cannot_change_privilege()
    {
        using BareMachine m = Create(cpl: 3);
        m.SetGate32(Fault.GP, BareMachine.Gate(SegmentRights.InterruptGate32, BareMachine.Code32, Handler));
        m.Assemble(BareMachine.UserCode, a => a.jmp(BareMachine.Code32, (uint)Handler), 32);
        m.Run();
        Frame(m, 0).Should().Be(BareMachine.Code32);
        Frame(m, 1).Should().Be((uint)BareMachine.UserCode);
    }

    [Fact]
    public void A_far_JMP_enters_64_bit_code_from_compatibility_mode()
    {
        using var m = new BareMachine();
        m.Long();
        m.Cpu.Segment(Seg.CS) = new SegmentCache { Selector = BareMachine.Code32, Limit = uint.MaxValue, AccessRights = 0xc09b };
        m.Cpu.UpdateMode();
        m.Assemble(BareMachine.Code, a => a.jmp(BareMachine.Code64, (uint)Handler), 32);
        m.Assemble(Handler, a =>
        {
            a.mov(rax, 0x1122334455667788);
            a.hlt();
        });
        m.Run().Should().Be(StopReason.Halted);
        m.State->Gpr[0].Should().Be(0x1122334455667788);
    }

    // ---- virtual-8086 mode ----

    private static BareMachine Vm86(int iopl)
    {
        BareMachine m = Create();
        m.SetGate32(Fault.GP, BareMachine.Gate(SegmentRights.InterruptGate32, BareMachine.Code32, Handler));
        m.SetGate32(0x80, BareMachine.Gate(SegmentRights.InterruptGate32, BareMachine.Code32, 0x9100, dpl: 3));
        m.Bytes(0x9100, 0xf4);
        m.Assemble(BareMachine.Code, a =>
        {
            a.push(0x4444);
            a.push(0x3333);
            a.push(0x2222);
            a.push(0x1111);
            a.push(0x0c00);
            a.push(0x0ff0);
            a.push((int)(Flags.VM | (ulong)iopl << 12 | 2));
            a.push(0x0a00);
            a.push(0x10);
            a.iretd();
        }, 32);
        return m;
    }

    [Fact]
    public void IRET_enters_virtual_8086_mode_with_all_segments()
    {
        using BareMachine m = Vm86(3);
        m.Bytes(0xa010, 0xcd, 0x80);
        m.Run();
        m.State->Rip.Should().Be(0x9101);
        m.State->Gpr[4].Should().Be(BareMachine.InnerStack - 36);
        Frame(m, 0).Should().Be(0x12);
        Frame(m, 1).Should().Be(0x0a00);
        (Frame(m, 2) & (uint)Flags.VM).Should().NotBe(0u);
        Frame(m, 3).Should().Be(0x0ff0);
        Frame(m, 4).Should().Be(0x0c00);
        Frame(m, 5).Should().Be(0x1111, "ES");
        Frame(m, 6).Should().Be(0x2222, "DS");
        Frame(m, 7).Should().Be(0x3333, "FS");
        Frame(m, 8).Should().Be(0x4444, "GS");
        m.Cpu.Segment(Seg.DS).Unusable.Should().BeTrue();
        m.State->Cpl.Should().Be(0);
        (m.State->Rflags & Flags.VM).Should().Be(0);
    }

    [Fact]
    public void INT_n_in_virtual_8086_mode_needs_IOPL_3()
    {
        using BareMachine m = Vm86(0);
        m.Bytes(0xa010, 0xcd, 0x80);
        m.Run();
        m.State->Rip.Should().Be(Handler + 1);
        Frame(m, 0).Should().Be(0u);
        Frame(m, 1).Should().Be(0x10u);
    }

    [Theory]
    [InlineData(new byte[] { 0xfa })]
    [InlineData(new byte[] { 0xfb })]
    [InlineData(new byte[] { 0x9c })]
    [InlineData(new byte[] { 0x9d })]
    [InlineData(new byte[] { 0xcf })]
    [InlineData(new byte[] { 0xf4 })]
    public void IOPL_sensitive_instructions_fault(byte[] code)
    {
        using BareMachine m = Vm86(0);
        m.Bytes(0xa010, code);
        m.Run();
        m.State->Rip.Should().Be(Handler + 1);
        Frame(m, 1).Should().Be(0x10u);
    }

    // ---- real mode ----

    [Fact]
    public void Real_mode_interrupts_go_through_the_IVT_and_IRET_returns()
    {
        using var m = new BareMachine();
        m.Real();
        *(uint*)m.At(0x21 * 4) = 0x0900_0005;
        m.Assemble(0x9005, a =>
        {
            a.mov(bx, 0x55);
            a.iret();
        }, 16);
        m.State->Rflags |= Flags.IF;
        m.Assemble(BareMachine.Code, a =>
        {
            a.@int(0x21);
            a.hlt();
        }, 16);
        m.Run().Should().Be(StopReason.Halted);
        m.State->Gpr[3].Should().Be(0x55);
        m.State->Rip.Should().Be(BareMachine.Code + 3);
        (m.State->Rflags & Flags.IF).Should().Be(Flags.IF);
        m.State->Gpr[4].Should().Be(BareMachine.Stack);
    }

    [Fact]
    public void An_IVT_limit_that_is_too_small_ends_in_shutdown()
    {
        using var m = new BareMachine();
        m.Real();
        m.State->Idtr.Limit = 0x10;
        m.Bytes(BareMachine.Code, 0xcd, 0x21);
        m.Run().Should().Be(StopReason.Shutdown);
    }

    [Fact]
    public void A_kernel_goes_from_real_to_long_mode_by_itself()
    {
        using var m = new BareMachine();
        m.Long();
        ulong gdtr = BareMachine.Data;
        m.Real();
        *(ushort*)m.At(gdtr) = 0x7f;
        *(uint*)m.At(gdtr + 2) = (uint)BareMachine.Gdt;
        m.Assemble(BareMachine.Code, a =>
        {
            a.lgdt(__[(int)gdtr - 0x10000 < 0 ? (int)gdtr : 0]);
            a.mov(eax, cr0);
            a.or(eax, 1);
            a.mov(cr0, eax);
            a.jmp(BareMachine.Code32, (ushort)0x8100);
        }, 16);
        m.Assemble(0x8100, a =>
        {
            a.mov(eax, (uint)BareMachine.Data32);
            a.mov(ds, ax);
            a.mov(ss, ax);
            a.mov(eax, (uint)BareMachine.Pml4);
            a.mov(cr3, eax);
            a.mov(eax, (uint)Cr4.PAE);
            a.mov(cr4, eax);
            a.mov(ecx, Msr.IA32_EFER);
            a.rdmsr();
            a.or(eax, (int)Efer.LME);
            a.wrmsr();
            a.mov(eax, cr0);
            a.or(eax, unchecked((int)Cr0.PG));
            a.mov(cr0, eax);
            a.jmp(BareMachine.Code64, 0x8200u);
        }, 32);
        m.Assemble(0x8200, a =>
        {
            a.mov(rax, 0x123456789abcdef0);
            a.hlt();
        });
        m.Run().Should().Be(StopReason.Halted);
        m.State->Gpr[0].Should().Be(0x123456789abcdef0);
        (m.State->Efer & Efer.LMA).Should().Be(Efer.LMA);
        ((CodeMode)m.State->Mode & CodeMode.SizeMask).Should().Be(CodeMode.Code64);
    }
}
