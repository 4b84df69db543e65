using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests;

/// <summary>SDM vol 2B, "MOV—Move to/from Control Registers" and "…Debug Registers", LMSW, CLTS, SMSW: both sides of each #GP rule.</summary>
public sealed unsafe class ControlRegisterTests
{
    private static BareMachine Long(CpuModel? model = null)
    {
        var m = new BareMachine(model);
        m.Long();
        return m;
    }

    [Theory]
    [InlineData(Cr0.PE | Cr0.PG | Cr0.ET, true)]
    [InlineData(Cr0.PG, false)]
    [InlineData(Cr0.PE | Cr0.PG | Cr0.NW, false)]
    [InlineData(Cr0.PE | Cr0.PG | Cr0.NW | Cr0.CD, true)]
    [InlineData(Cr0.PE | Cr0.PG | 1UL << 32, false)]
    [InlineData(Cr0.PE | Cr0.PG | 1UL << 20, true)]
    [InlineData(Cr0.PE, false)]
    public void CR0(ulong value, bool allowed)
    {
        using BareMachine m = Long();
        InstructionResult result = m.Cpu.WriteCr(0, value);
        result.Ok.Should().Be(allowed);
        if (!allowed)
            result.Fault.Should().Be(Fault.Gp());
        else
            m.State->Cr0.Should().Be((value | Cr0.ET) & ~(1UL << 20), "ET is one and reserved bits of the lower half are ignored");
    }

    [Fact]
    public void Paging_cannot_be_turned_off_in_64_bit_code_and_can_in_compatibility_mode()
    {
        using BareMachine m = Long();
        m.Cpu.WriteCr(0, Cr0.PE).Ok.Should().BeFalse();
        m.Cpu.Segment(Seg.CS).AccessRights = 0xc09b;
        m.Cpu.UpdateMode();
        m.Cpu.WriteCr(0, Cr0.PE).Ok.Should().BeTrue();
        (m.State->Efer & Efer.LMA).Should().Be(0);
        (m.State->Efer & Efer.LME).Should().Be(Efer.LME);
    }

    [Fact]
    public void Paging_with_LME_needs_PAE_and_a_code_segment_without_L()
    {
        using var m = new BareMachine();
        m.Protected();
        m.Paging4();
        m.Cpu.WriteMsr(Msr.IA32_EFER, Efer.LME).Ok.Should().BeTrue();
        m.Cpu.WriteCr(0, Cr0.PE | Cr0.PG).Ok.Should().BeFalse("CR4.PAE is clear");
        m.Cpu.WriteCr(4, Cr4.PAE).Ok.Should().BeTrue();
        m.Cpu.Segment(Seg.CS).AccessRights |= SegmentRights.L;
        m.Cpu.WriteCr(0, Cr0.PE | Cr0.PG).Ok.Should().BeFalse("CS.L is set");
        m.Cpu.Segment(Seg.CS).AccessRights &= ~SegmentRights.L;
        m.Cpu.WriteCr(0, Cr0.PE | Cr0.PG).Ok.Should().BeTrue();
        (m.State->Efer & Efer.LMA).Should().Be(Efer.LMA);
    }

    [Theory]
    [InlineData(Cr4.PAE, true)]
    [InlineData(0UL, false)]
    [InlineData(Cr4.PAE | Cr4.LA57, false)]
    [InlineData(Cr4.PAE | Cr4.UMIP, false)]
    [InlineData(Cr4.PAE | Cr4.OSXSAVE, true)]
    [InlineData(Cr4.PAE | Cr4.PKE, true)]
    [InlineData(Cr4.PAE | Cr4.SMEP | Cr4.SMAP | Cr4.FSGSBASE | Cr4.VMXE, true)]
    [InlineData(Cr4.PAE | Cr4.SMXE, false)]
    [InlineData(Cr4.PAE | 1UL << 40, false)]
    public void CR4_has_the_bits_that_CPUID_announces(ulong value, bool allowed)
    {
        using BareMachine m = Long();
        m.Cpu.WriteCr(4, value).Ok.Should().Be(allowed);
    }

    [Theory]
    [InlineData(0UL, true)]
    [InlineData(1UL, false)]
    public void PCIDE_can_be_set_only_with_CR3_bits_11_to_0_clear(ulong low, bool allowed)
    {
        using BareMachine m = Long();
        m.State->Cr3 |= low;
        m.Cpu.WriteCr(4, Cr4.PAE | Cr4.PCIDE).Ok.Should().Be(allowed);
    }

    [Fact]
    public void PCIDE_needs_long_mode()
    {
        using var m = new BareMachine();
        m.Protected();
        m.Cpu.WriteCr(4, Cr4.PCIDE).Ok.Should().BeFalse();
    }

    [Theory]
    [InlineData(1UL << 47, true)]
    [InlineData(1UL << 48, false)]
    [InlineData(1UL << 63, false)]
    public void CR3_bits_beyond_the_physical_width_are_reserved(ulong value, bool allowed)
    {
        using BareMachine m = Long();
        m.Cpu.WriteCr(3, value).Ok.Should().Be(allowed);
    }

    [Theory]
    [InlineData(15UL, true)]
    [InlineData(16UL, false)]
    public void CR8_has_four_bits(ulong value, bool allowed)
    {
        using BareMachine m = Long();
        m.Cpu.WriteCr(8, value).Ok.Should().Be(allowed);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(5)]
    [InlineData(9)]
    public void Other_control_registers_are_undefined(int register)
    {
        using BareMachine m = Long();
        m.Cpu.WriteCr(register, 0).Fault.Should().Be(Fault.Ud);
    }

    [Fact]
    public void Control_and_debug_registers_need_CPL_0()
    {
        byte[][] codes = [[0x0f, 0x20, 0xc0], [0x0f, 0x22, 0xc0], [0x0f, 0x21, 0xc0], [0x0f, 0x23, 0xc0], [0x0f, 0x06], [0x0f, 0x01, 0xf0],
            [0x0f, 0x01, 0x38], [0x0f, 0x32], [0x0f, 0x30], [0xf4], [0x0f, 0x08], [0x0f, 0x09], [0x0f, 0x01, 0x10], [0x0f, 0x00, 0xd8], [0x0f, 0x01, 0xf8], [0xfa], [0xfb]];
        foreach (byte[] code in codes)
        {
            using var m = new BareMachine();
            m.Long(cpl: 3);
            m.SetGate64(Fault.GP, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9000);
            m.Bytes(0x9000, 0xf4);
            m.Bytes(BareMachine.UserCode, code);
            m.Run();
            m.State->Rip.Should().Be(0x9001, Convert.ToHexString(code));
            (*m.Qword(m.State->Gpr[4])).Should().Be(0);
        }
    }

    [Theory]
    [InlineData(6, 1UL << 32, false)]
    [InlineData(7, 1UL << 32, false)]
    [InlineData(0, 1UL << 32, true)]
    [InlineData(6, 0UL, true)]
    public void DR6_and_DR7_have_32_bits(int register, ulong value, bool allowed)
    {
        using BareMachine m = Long();
        m.Cpu.WriteDr(register, value).Ok.Should().Be(allowed);
    }

    [Fact]
    public void Fixed_bits_of_DR6_and_DR7()
    {
        using BareMachine m = Long();
        m.Cpu.WriteDr(6, 0);
        m.Cpu.ReadDr(6).Should().Be(0xffff0ff0);
        m.Cpu.WriteDr(7, 0xffff_ffff & ~0x2000u);
        m.Cpu.ReadDr(7).Should().Be(0xffff_07ff);
        m.Cpu.WriteDr(7, 0);
        m.Cpu.ReadDr(5).Should().Be(0x400, "DR5 is DR7");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void DR4_is_undefined_with_CR4_DE(bool de)
    {
        using BareMachine m = Long();
        m.SetGate64(Fault.UD, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9000);
        m.Bytes(0x9000, 0xf4);
        m.State->Cr4 |= de ? Cr4.DE : 0;
        m.Bytes(BareMachine.Code, 0x0f, 0x21, 0xe0, 0xf4);
        m.Run();
        m.State->Rip.Should().Be(de ? 0x9001UL : BareMachine.Code + 4);
    }

    [Fact]
    public void LMSW_sets_PE_but_never_clears_it()
    {
        using BareMachine m = Long();
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(eax, 0xe);
            a.lmsw(ax);
            a.smsw(ebx);
            a.clts();
            a.smsw(ecx);
            a.hlt();
        });
        m.Run();
        (m.State->Gpr[3] & 0xf).Should().Be(0xf);
        (m.State->Gpr[1] & 0xf).Should().Be(7);
    }

    [Fact]
    public void VMX_operation_fixes_bits_of_CR0_and_CR4()
    {
        using BareMachine m = Long();
        ulong region = m.Machine.Memory.Allocate(0x1000);
        *(uint*)region = 4;
        m.Cpu.WriteCr(4, m.State->Cr4 | Cr4.VMXE).Ok.Should().BeTrue();
        m.Cpu.WriteCr(0, m.State->Cr0 & ~Cr0.NE).Ok.Should().BeTrue("outside VMX operation NE is free");
        m.Cpu.WriteCr(0, m.State->Cr0 | Cr0.NE);
        m.Cpu.Vmxon(region).Should().Be(InstructionResult.Success);
        m.Cpu.WriteCr(0, m.State->Cr0 & ~Cr0.NE).Ok.Should().BeFalse();
        m.Cpu.WriteCr(0, m.State->Cr0 & ~Cr0.WP).Ok.Should().BeTrue();
        m.Cpu.WriteCr(4, m.State->Cr4 & ~Cr4.VMXE).Ok.Should().BeFalse();
        m.Cpu.Vmxoff().Should().Be(InstructionResult.Success);
        m.Cpu.WriteCr(4, m.State->Cr4 & ~Cr4.VMXE).Ok.Should().BeTrue();
    }

    [Fact]
    public void The_observer_sees_old_and_new_values()
    {
        using BareMachine m = Long();
        var seen = new RecordingObserver();
        m.Cpu.Observer = seen;
        ulong old = m.State->Cr4;
        m.Cpu.WriteCr(4, old | Cr4.VMXE);
        m.Cpu.ReadMsr(Msr.IA32_EFER, out _);
        m.Cpu.WriteMsr(0x12345, 1);
        seen.Log.Should().Equal($"CR4 {old:x} {old | Cr4.VMXE:x}", $"R c0000080 {m.State->Efer:x} False", "W 12345 1 True");
    }
}

/// <summary>Writes down MSR and control-register accesses.</summary>
internal sealed class RecordingObserver : IHardwareObserver
{
    public List<string> Log { get; } = [];
    public void Msr(Processor cpu, bool write, uint index, ulong value, bool faulted) => Log.Add($"{(write ? "W" : "R")} {index:x} {value:x} {faulted}");
    public void ControlRegister(Processor cpu, int register, ulong oldValue, ulong newValue) => Log.Add($"CR{register} {oldValue:x} {newValue:x}");
    public void Virtualization(Processor cpu, string mnemonic, ulong operand, ulong value, InstructionResult result) => Log.Add($"{mnemonic} {result.Outcome}");
    public void EntryCheckFailed(Processor cpu, string rule) => Log.Add(rule);
    public void VmExit(Processor cpu, ulong reason, ulong qualification) => Log.Add($"exit {reason:x}");
}
