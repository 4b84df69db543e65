using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests;

/// <summary>MONITOR and MWAIT wait for a store to the line, or an event.</summary>
public sealed unsafe class MwaitTests
{
    private const ulong Line = 0xe000;

    private static BareMachine Create(uint extensions = 0, bool arm = true, CpuModel? model = null)
    {
        var m = new BareMachine(model);
        m.Long();
        m.Assemble(BareMachine.Code, a =>
        {
            if (arm)
            {
                a.mov(rax, Line + 8);
                a.xor(ecx, ecx);
                a.xor(edx, edx);
                a.monitor();
            }
            a.xor(eax, eax);
            a.mov(ecx, extensions);
            a.mwait();
            a.mov(ebx, 1);
            a.hlt();
        });
        m.SetGate64(0x40, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9800);
        m.SetGate64(Fault.NMI, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9800);
        m.SetGate64(Fault.GP, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9900);
        m.SetGate64(Fault.UD, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9900);
        m.Bytes(0x9800, 0x48, 0xcf);
        m.Bytes(0x9900, 0xf4);
        return m;
    }

    private static bool Waits(BareMachine m) => m.Run() == StopReason.Halted && m.State->Gpr[3] == 0;

    private static bool Ended(BareMachine m) => m.Run() == StopReason.Halted && m.State->Gpr[3] == 1;

    [Theory]
    [InlineData(0, true)]
    [InlineData(63, true)]
    [InlineData(64, false)]
    [InlineData(-1, false)]
    public void A_store_to_the_64_byte_line_ends_the_wait(int offset, bool ends)
    {
        using BareMachine m = Create();
        Waits(m).Should().BeTrue();
        Waits(m).Should().BeTrue("nothing has happened");
        (*m.At(Line + (ulong)offset))++;
        Ended(m).Should().Be(ends);
    }

    [Fact]
    public void A_store_between_MONITOR_and_MWAIT_lets_MWAIT_fall_through()
    {
        using BareMachine m = Create();
        m.Cpu.Run(4).Should().Be(StopReason.Budget);
        *m.Qword(Line) = 1;
        Ended(m).Should().BeTrue();
    }

    [Fact]
    public void MWAIT_without_an_armed_monitor_falls_through()
    {
        using BareMachine m = Create(arm: false);
        Ended(m).Should().BeTrue();
    }

    [Theory]
    [InlineData(0u, true, true)]
    [InlineData(0u, false, false)]
    [InlineData(1u, false, true)]
    public void An_interrupt_ends_the_wait_when_it_is_open_or_asked_for_by_ECX_0(uint ecx, bool open, bool ends)
    {
        using BareMachine m = Create(ecx);
        m.State->Rflags |= open ? Flags.IF : 0;
        Waits(m).Should().BeTrue();
        m.Cpu.RaiseInterrupt(0x40);
        Ended(m).Should().Be(ends);
        m.Cpu.InterruptPending.Should().Be(!open);
    }

    [Fact]
    public void An_NMI_ends_the_wait_and_returns_behind_MWAIT()
    {
        using BareMachine m = Create();
        Waits(m).Should().BeTrue();
        m.Cpu.RaiseNmi();
        Ended(m).Should().BeTrue();
    }

    [Fact]
    public void An_interrupt_between_MONITOR_and_MWAIT_disarms_the_monitor()
    {
        using BareMachine m = Create();
        m.State->Rflags |= Flags.IF;
        m.Cpu.Run(4).Should().Be(StopReason.Budget);
        m.Cpu.RaiseInterrupt(0x40);
        Ended(m).Should().BeTrue();
    }

    [Theory]
    [InlineData(2u)]
    [InlineData(0x80000000u)]
    public void Reserved_ECX_bits_are_GP(uint ecx)
    {
        using BareMachine m = Create(ecx);
        m.Run();
        m.State->Rip.Should().Be(0x9901);
    }

    [Fact]
    public void ECX_bit_0_needs_its_CPUID_bit()
    {
        using BareMachine m = Create(1, model: CpuModel.IntelSkylake.WithCpuid(5, 0, default, new CpuidLeaf(0, 0, 2, 0)));
        m.Run();
        m.State->Rip.Should().Be(0x9901);
    }

    [Fact]
    public void IA32_MISC_ENABLE_18_hides_both()
    {
        using BareMachine m = Create();
        m.Cpu.ReadMsr(Msr.IA32_MISC_ENABLE, out ulong value);
        m.Cpu.WriteMsr(Msr.IA32_MISC_ENABLE, value & ~(1UL << 18)).Ok.Should().BeTrue();
        m.Cpu.Cpuid(1, 0, out _, out _, out uint features, out _);
        (features & 8).Should().Be(0);
        m.Run();
        m.State->Rip.Should().Be(0x9901);
    }

    [Fact]
    public void Another_processor_ends_the_wait()
    {
        using var m = new BareMachine(processors: 2);
        m.Long();
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(rax, Line);
            a.xor(ecx, ecx);
            a.monitor();
            a.xor(eax, eax);
            a.mwait();
            a.hlt();
        });
        m.Run().Should().Be(StopReason.Halted);
        ulong waiting = m.State->Rip;
        Processor other = m.Machine.Processors[1];
        other.Reset(init: false);
        // Real mode, 0:E800: mov byte [E000], 1; hlt
        other.Segment(Seg.CS) = new SegmentCache { Limit = 0xffff, AccessRights = 0x9b };
        other.State->Rip = 0xe800;
        other.UpdateMode();
        m.Bytes(0xe800, 0xc6, 0x06, 0x00, 0xe0, 0x01, 0xf4);
        other.Run(100).Should().Be(StopReason.Halted);
        m.Run().Should().Be(StopReason.Halted);
        m.State->Rip.Should().Be(waiting + 1);
    }

    [Fact]
    public void MWAITX_has_a_timer_and_no_privilege_check()
    {
        CpuModel ryzen = CpuModel.Load("bochs-ryzen");
        using var m = new BareMachine(ryzen);
        m.Long(cpl: 3);
        m.SetGate64(0x41, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9900, dpl: 3);
        m.Bytes(0x9900, 0xf4);
        m.Assemble(BareMachine.UserCode, a =>
        {
            a.mov(rax, Line);
            a.xor(ecx, ecx);
            a.monitorx();
            a.mov(ecx, 2);
            a.mov(ebx, 1000);
            a.mwaitx();
            a.@int(0x41);
        });
        // However soon the deadline passes, the wait ends without a store.
        while (m.State->Cpl == 3)
            m.Run();
        m.State->Rip.Should().Be(0x9901);
    }
}
