using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Engine;

/// <summary>One program per mode, from the first instruction to HLT.</summary>
public sealed unsafe class Modes
{
    [Theory]
    [InlineData(16)]
    [InlineData(32)]
    [InlineData(64)]
    public void Execute_a_loop_with_calls_and_memory(int bits)
    {
        using var guest = new GuestMachine();
        guest.Start(bits, a =>
        {
            var loop = a.CreateLabel();
            var function = a.CreateLabel();
            a.mov(ecx, 10);
            a.xor(eax, eax);
            a.Label(ref loop);
            a.call(function);
            a.dec(ecx);
            a.jnz(loop);
            a.hlt();
            a.Label(ref function);
            if (bits == 16)
            {
                a.mov(__dword_ptr[0x200], ecx);
                a.add(eax, __dword_ptr[0x200]);
            }
            else
            {
                a.mov(__dword_ptr[(int)GuestMachine.DataBase], ecx);
                a.add(eax, __dword_ptr[(int)GuestMachine.DataBase]);
            }
            a.ret();
        });
        guest.Run().Should().Be(StopReason.Halted);
        guest.Fault.Should().Be(-1);
        guest.State->Gpr[0].Should().Be(55);
        guest.State->InstructionsRetired.Should().Be(2 + (10 * 6) + 1);
    }

    /// <summary>LEA computes an offset: the segment's base and limit have no part in it, however the processor's fast path treats memory in that mode.</summary>
    [Theory]
    [InlineData(16)]
    [InlineData(32)]
    [InlineData(64)]
    public void Lea_knows_no_segment(int bits)
    {
        using var guest = new GuestMachine();
        guest.Start(bits, a =>
        {
            a.mov(ebx, 0x1000);
            a.mov(esi, 3);
            a.lea(eax, __[ebx + esi * 4 + 0x24]);
            a.lea(edi, __.fs[esp + 8]);
            a.lea(cx, __[ebx + 2]);
            if (bits == 64) a.lea(rdx, __.gs[rbx - 1]);
            else a.lea(edx, __.gs[ebx - 1]);
            a.nop();
            a.hlt();
        });
        for (Seg segment = Seg.ES; segment <= Seg.GS; segment++)
        {
            if (segment != Seg.CS && bits != 64) guest.Segment(segment).Base = 0x20000;
        }

        guest.Segment(Seg.FS).Base = guest.Segment(Seg.GS).Base = 0x30000;
        guest.Run().Should().Be(StopReason.Halted);
        guest.Fault.Should().Be(-1);
        guest.State->Gpr[0].Should().Be(0x1030);
        guest.State->Gpr[7].Should().Be(guest.State->Gpr[4] + 8);
        ((ushort)guest.State->Gpr[1]).Should().Be(0x1002);
        guest.State->Gpr[2].Should().Be(0xfff);
    }
}
