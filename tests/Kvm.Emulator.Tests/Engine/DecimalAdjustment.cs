using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Engine;

/// <summary>Decimal adjustments do decimal arithmetic: every pair of digits or of two-digit numbers, with and without carry.</summary>
public sealed unsafe class DecimalAdjustment
{
    private static byte Bcd(int n) => (byte)(n / 10 << 4 | n % 10);

    /// <summary>Runs a program over (al, bl, carry) without decoding it again.</summary>
    private sealed class Adder : IDisposable
    {
        private readonly GuestMachine guest = new();

        internal Adder(Action<Assembler> program) => guest.Start(32, a =>
        {
            program(a);
            a.hlt();
        });

        internal (ushort Ax, bool Carry, bool Adjust, bool Zero, bool Sign) Run(ushort ax, byte bl, bool carry)
        {
            guest.State->Gpr[0] = ax;
            guest.State->Gpr[3] = bl;
            guest.Cpu.Rflags = carry ? 3UL : 2;
            guest.State->Rip = GuestMachine.CodeBase;
            guest.State->Activity = ActivityState.Active;
            guest.Run(10);
            ulong flags = guest.Cpu.Rflags;
            return ((ushort)guest.State->Gpr[0], (flags & 1) != 0, (flags & 0x10) != 0, (flags & 0x40) != 0, (flags & 0x80) != 0);
        }

        public void Dispose() => guest.Dispose();
    }

    [Fact]
    public void Daa_after_adc_adds_packed_numbers()
    {
        using var adder = new Adder(a => { a.adc(al, bl); a.daa(); });
        for (int x = 0; x < 100; x++)
            for (int y = 0; y < 100; y++)
                for (int c = 0; c < 2; c++)
                {
                    var (ax, carry, _, zero, _) = adder.Run(Bcd(x), Bcd(y), c != 0);
                    int sum = x + y + c;
                    ((byte)ax).Should().Be(Bcd(sum % 100));
                    carry.Should().Be(sum > 99);
                    zero.Should().Be(sum % 100 == 0);
                }
    }

    [Fact]
    public void Das_after_sbb_subtracts_packed_numbers()
    {
        using var adder = new Adder(a => { a.sbb(al, bl); a.das(); });
        for (int x = 0; x < 100; x++)
            for (int y = 0; y < 100; y++)
                for (int c = 0; c < 2; c++)
                {
                    var (ax, carry, _, _, _) = adder.Run(Bcd(x), Bcd(y), c != 0);
                    int difference = x - y - c;
                    ((byte)ax).Should().Be(Bcd((difference + 100) % 100));
                    carry.Should().Be(difference < 0);
                }
    }

    [Fact]
    public void Aaa_after_adc_adds_digits_and_carries_into_ah()
    {
        using var adder = new Adder(a => { a.adc(al, bl); a.aaa(); });
        for (int x = 0; x < 10; x++)
            for (int y = 0; y < 10; y++)
                for (int c = 0; c < 2; c++)
                {
                    var (ax, carry, adjust, _, _) = adder.Run((ushort)(0x300 | x), (byte)y, c != 0);
                    int sum = x + y + c;
                    ax.Should().Be((ushort)((3 + sum / 10) << 8 | sum % 10));
                    carry.Should().Be(sum > 9);
                    adjust.Should().Be(sum > 9);
                }
    }

    [Fact]
    public void Aas_after_sbb_subtracts_digits_and_borrows_from_ah()
    {
        using var adder = new Adder(a => { a.sbb(al, bl); a.aas(); });
        for (int x = 0; x < 10; x++)
            for (int y = 0; y < 10; y++)
                for (int c = 0; c < 2; c++)
                {
                    var (ax, carry, _, _, _) = adder.Run((ushort)(0x300 | x), (byte)y, c != 0);
                    int difference = x - y - c;
                    // The borrow out of AL - BL has taken one from AH's neighbour already: AX - 106h.
                    ax.Should().Be((ushort)((difference < 0 ? 2 : 3) << 8 | (difference + 10) % 10));
                    carry.Should().Be(difference < 0);
                }
    }

    [Theory]
    [InlineData(10)]
    [InlineData(16)]
    [InlineData(7)]
    public void Aad_undoes_aam(int radix)
    {
        using var split = new Adder(a => a.aam((sbyte)radix));
        using var join = new Adder(a => a.aad((sbyte)radix));
        for (int x = 0; x < 256; x++)
        {
            var (ax, _, _, zero, _) = split.Run((ushort)(0xab00 | x), 0, false);
            ax.Should().Be((ushort)(x / radix << 8 | x % radix));
            zero.Should().Be(x % radix == 0);
            join.Run(ax, 0, false).Ax.Should().Be((ushort)x);
        }
    }

    [Fact]
    public void Aam_by_zero_is_a_divide_error()
    {
        using var guest = new GuestMachine();
        guest.Start(32, [0xd4, 0x00, 0xf4]);
        guest.Run(10).Should().Be(StopReason.Halted);
        guest.Fault.Should().Be(0);
    }
}
