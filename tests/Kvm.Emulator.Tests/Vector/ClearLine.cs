using Kvm.Emulator.Tests.Engine;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Vector;

/// <summary>CLZERO.</summary>
public sealed unsafe class ClearLine
{
    [Fact]
    public void Clears_the_line_around_RAX_and_nothing_else()
    {
        using var m = new GuestMachine(CpuModel.Load("bochs-ryzen"));
        new Span<byte>(m.Ram + GuestMachine.DataBase, 256).Fill(0xaa);
        m.Start(64, a =>
        {
            a.mov(rax, GuestMachine.DataBase + 100);
            a.db(0x0f, 0x01, 0xfc);
            a.hlt();
        });
        m.Run();
        m.Fault.Should().Be(-1);
        for (int i = 0; i < 256; i++)
            m.Ram[GuestMachine.DataBase + (ulong)i].Should().Be(i is >= 64 and < 128 ? (byte)0 : (byte)0xaa, $"byte {i}");
    }

    [Fact]
    public void Does_not_exist_on_another_vendors_processor()
    {
        using var m = new GuestMachine(CpuModel.IntelSkylake);
        m.Start(64, [0x0f, 0x01, 0xfc, 0xf4]);
        m.Run();
        m.Fault.Should().Be(Fault.UD);
    }
}
