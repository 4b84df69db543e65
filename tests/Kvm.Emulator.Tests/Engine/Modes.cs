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
}
