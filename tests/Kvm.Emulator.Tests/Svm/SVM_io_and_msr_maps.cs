using Iced.Intel;
using Kvm.Emulator.Svm;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Svm;

/// <summary>I/O and MSR permission maps and the exit information of both.</summary>
public sealed unsafe class SVM_io_and_msr_maps : IDisposable
{
    private readonly SvmMachine m = new();

    public void Dispose() => m.Dispose();

    private void Intercept(ushort port, bool on = true)
    {
        m.Control->Intercepts3 |= SvmIntercepts3.Ioio;
        byte* map = (byte*)m.IopmPa;
        map[port >> 3] = on ? (byte)(map[port >> 3] | 1 << (port & 7)) : (byte)(map[port >> 3] & ~(1 << (port & 7)));
    }

    // port 31:16, address size 9:7, operand size 6:4, REP 3, string 2, IN 0
    [Theory]
    [InlineData("out 3f8,al", 0x3f8_0090UL)]
    [InlineData("out dx,ax", 0x3f8_00a0UL)]
    [InlineData("out dx,eax", 0x3f8_00c0UL)]
    [InlineData("in al,dx", 0x3f8_0091UL)]
    [InlineData("in eax,dx", 0x3f8_00c1UL)]
    [InlineData("outsb", 0x3f8_0c94UL)]
    [InlineData("rep outsb", 0x3f8_0c9cUL)]
    [InlineData("es outsb", 0x3f8_0094UL)]
    [InlineData("rep insw", 0x3f8_00adUL)]
    [InlineData("a32 rep insd", 0x3f8_014dUL)]
    public void Ioio_information_in_16_bit_code(string instruction, ulong info1)
    {
        byte[] bytes = instruction switch
        {
            "out 3f8,al" => [0xee],
            "out dx,ax" => [0xef],
            "out dx,eax" => [0x66, 0xef],
            "in al,dx" => [0xec],
            "in eax,dx" => [0x66, 0xed],
            "outsb" => [0x6e],
            "rep outsb" => [0xf3, 0x6e],
            "es outsb" => [0x26, 0x6e],
            "rep insw" => [0xf3, 0x6d],
            _ => [0x67, 0x66, 0xf3, 0x6d],
        };
        m.Load(SvmMachine.CodeGpa, [.. bytes, 0xf4]);
        m.Cpu.State->Gpr[2] = 0x3f8;
        m.Cpu.State->Gpr[1] = 2;
        m.Cpu.State->Gpr[6] = m.Cpu.State->Gpr[7] = 0x3000;
        Intercept(0x3f8);
        m.RunTo(SvmExitCode.Ioio);
        m.Control->ExitInfo1.Should().Be(info1);
        m.Control->ExitInfo2.Should().Be(SvmMachine.CodeGpa + (uint)bytes.Length);
        m.Save->Rip.Should().Be(SvmMachine.CodeGpa);
        m.Cpu.State->Gpr[1].Should().Be(2, "nothing was transferred");
    }

    [Fact]
    public void A_wide_access_exits_when_the_bit_of_any_of_its_ports_is_set()
    {
        m.Load(SvmMachine.CodeGpa, 0x66, 0xef, 0xf4);
        m.Cpu.State->Gpr[2] = 0x100;
        Intercept(0x103);
        m.RunTo(SvmExitCode.Ioio);
        Intercept(0x103, false);
        Intercept(0x104);
        m.Save->Rip = SvmMachine.CodeGpa;
        m.RunTo(SvmExitCode.Hlt);
    }

    [Fact]
    public void An_access_over_the_last_port_uses_the_three_extra_bits()
    {
        m.Load(SvmMachine.CodeGpa, 0x66, 0xef, 0xf4);
        m.Cpu.State->Gpr[2] = 0xffff;
        m.Control->Intercepts3 |= SvmIntercepts3.Ioio;
        ((byte*)m.IopmPa)[0x2000] = 4;
        m.RunTo(SvmExitCode.Ioio);
        ((byte*)m.IopmPa)[0x2000] = 8;
        m.Save->Rip = SvmMachine.CodeGpa;
        m.RunTo(SvmExitCode.Hlt);
    }

    [Theory]
    [InlineData(0x174u, 0x174u * 2)]
    [InlineData(0xc0000081u, (0x800u * 8) + (0x81 * 2))]
    [InlineData(0xc0010117u, (0x1000u * 8) + (0x117 * 2))]
    public void Msr_map_has_a_read_and_a_write_bit(uint msr, uint bit)
    {
        byte* map = (byte*)m.MsrpmPa;
        m.Control->Intercepts3 |= SvmIntercepts3.Msr;
        m.Code16(a => { a.rdmsr(); a.wrmsr(); a.hlt(); });
        m.Cpu.State->Gpr[1] = msr;
        m.RunTo(SvmExitCode.Hlt);

        map[bit >> 3] |= (byte)(1 << (int)(bit & 7));
        m.Save->Rip = SvmMachine.CodeGpa;
        m.RunTo(SvmExitCode.Msr);
        m.Control->ExitInfo1.Should().Be(0);
        m.Save->Rip.Should().Be(SvmMachine.CodeGpa);

        map[bit >> 3] = (byte)(2 << (int)(bit & 7));
        m.RunTo(SvmExitCode.Msr);
        m.Control->ExitInfo1.Should().Be(1);
        m.Save->Rip.Should().Be(SvmMachine.CodeGpa + 2);
        m.Control->NextRip.Should().Be(SvmMachine.CodeGpa + 4);
    }

    [Theory]
    [InlineData(0x2000u)]
    [InlineData(0xbfffffffu)]
    [InlineData(0xc0002000u)]
    [InlineData(0xc0012000u)]
    public void Msrs_outside_the_ranges_always_exit(uint msr)
    {
        m.Control->Intercepts3 |= SvmIntercepts3.Msr;
        m.Code16(a => { a.rdmsr(); a.hlt(); });
        m.Cpu.State->Gpr[1] = msr;
        m.RunTo(SvmExitCode.Msr);
    }

    [Fact]
    public void Tsc_is_scaled_and_offset()
    {
        m.Cpu.WriteMsr(Msr.AMD_TSC_RATIO, 2UL << 32).Ok.Should().BeTrue();
        m.Control->TscOffset = 0x10_0000_0000_0000;
        m.Code64(a => { a.rdtsc(); a.shl(rdx, 32); a.or(rax, rdx); a.hlt(); });
        ulong before = m.Cpu.ReadTsc();
        m.RunTo(SvmExitCode.Hlt);
        ulong after = m.Cpu.ReadTsc();
        m.Save->Rax.Should().BeInRange((before * 2) + 0x10_0000_0000_0000, (after * 2) + 0x10_0000_0000_0000);
    }
}
