using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests;

/// <summary>x87 and SSE state management: what kernels execute at boot.</summary>
public sealed unsafe class FpuStateTests
{
    private static BareMachine Create(ulong cr0 = 0, ulong cr4 = Cr4.OSFXSR)
    {
        var m = new BareMachine();
        m.Long();
        m.State->Cr0 |= cr0;
        m.State->Cr4 |= cr4;
        foreach (int vector in (int[])[Fault.GP, Fault.UD, Fault.NM])
        {
            m.SetGate64(vector, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9000 + ((ulong)vector * 16));
            m.Bytes(0x9000 + ((ulong)vector * 16), 0xf4);
        }
        return m;
    }

    [Fact]
    public void FNINIT_and_the_words_that_detect_an_FPU()
    {
        using BareMachine m = Create();
        m.Assemble(BareMachine.Code, a =>
        {
            a.fninit();
            a.fnstcw(__word_ptr[BareMachine.Data]);
            a.mov(eax, 0x5555);
            a.fnstsw(ax);
            a.hlt();
        });
        m.Run().Should().Be(StopReason.Halted);
        (*(ushort*)m.At(BareMachine.Data)).Should().Be(0x37f);
        m.State->Gpr[0].Should().Be(0);
    }

    [Theory]
    [InlineData(Cr0.TS)]
    [InlineData(Cr0.EM)]
    public void TS_and_EM_raise_NM(ulong cr0)
    {
        using BareMachine m = Create(cr0);
        m.Bytes(BareMachine.Code, 0xdb, 0xe3);
        m.Run();
        m.State->Rip.Should().Be(0x9000 + (Fault.NM * 16) + 1);
    }

    [Theory]
    [InlineData(0UL, Cr4.OSFXSR, 0)]
    [InlineData(0UL, 0UL, Fault.UD)]
    [InlineData(Cr0.EM, Cr4.OSFXSR, Fault.UD)]
    [InlineData(Cr0.TS, Cr4.OSFXSR, Fault.NM)]
    public void LDMXCSR_needs_OSFXSR(ulong cr0, ulong cr4, int vector)
    {
        using BareMachine m = Create(cr0, cr4);
        *(uint*)m.At(BareMachine.Data) = 0x1f80;
        m.Assemble(BareMachine.Code, a =>
        {
            a.ldmxcsr(__dword_ptr[BareMachine.Data]);
            a.hlt();
        });
        m.Run();
        m.State->Rip.Should().Be(vector == 0 ? BareMachine.Code + 9 : 0x9000 + ((ulong)vector * 16) + 1);
    }

    [Fact]
    public void FXSAVE_and_FXRSTOR_round_trip_and_check_MXCSR_and_alignment()
    {
        using BareMachine m = Create();
        m.Assemble(BareMachine.Code, a =>
        {
            a.fninit();
            a.fxsave64(__[BareMachine.Data]);
            a.mov(__dword_ptr[BareMachine.Data + 24], 0x1fa0);
            a.mov(__qword_ptr[BareMachine.Data + 160], 0x1234);
            a.fxrstor64(__[BareMachine.Data]);
            a.fxsave64(__[BareMachine.Data + 0x400]);
            a.mov(__dword_ptr[BareMachine.Data + 24], 0x10000);
            a.inc(rbx);
            a.fxrstor64(__[BareMachine.Data]);
        });
        m.Run();
        m.State->Gpr[3].Should().Be(1);
        m.State->Rip.Should().Be(0x9000 + (Fault.GP * 16) + 1);
        (*(uint*)m.At(BareMachine.Data + 0x418)).Should().Be(0x1fa0);
        (*m.Qword(BareMachine.Data + 0x400 + 160)).Should().Be(0x1234);
        (*(uint*)m.At(BareMachine.Data + 28)).Should().Be(0xffff, "MXCSR_MASK");

        using BareMachine unaligned = Create();
        unaligned.Assemble(BareMachine.Code, a => a.fxsave(__[BareMachine.Data + 8]));
        unaligned.Run();
        unaligned.State->Rip.Should().Be(0x9000 + (Fault.GP * 16) + 1);
    }
}
