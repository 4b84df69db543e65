using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Engine;

/// <summary>MOVS STOS LODS SCAS CMPS: counts, directions, overlaps, page and segment edges, faults in the middle.</summary>
public sealed unsafe class StringInstructions
{
    private const ulong Source = GuestMachine.DataBase, Target = GuestMachine.DataBase + 0x10000;

    private static GuestMachine Prepared(Action<Assembler> program)
    {
        var guest = new GuestMachine();
        for (int i = 0; i < 0x8000; i++)
            guest.Ram[Source + (ulong)i] = (byte)(i * 7 + (i >> 8));
        guest.Start(64, program);
        return guest;
    }

    [Theory]
    [InlineData(0, 0, 1)]
    [InlineData(1, 0, 1)]
    [InlineData(5000, 0, 1)]
    [InlineData(9000, 4093, 1)]
    [InlineData(2500, 4093, 8)]
    [InlineData(3000, 1, 4)]
    [InlineData(3001, 4095, 2)]
    public void Rep_movs_copies_across_pages(int count, int misalignment, int size)
    {
        ulong from = Source + (ulong)misalignment, to = Target + (ulong)(misalignment / 2);
        using GuestMachine guest = Prepared(a =>
        {
            a.mov(rsi, from);
            a.mov(rdi, to);
            a.mov(ecx, count);
            Movs(a, size);
            a.hlt();
        });
        guest.Run().Should().Be(StopReason.Halted);
        int bytes = count * size;
        new Span<byte>(guest.Ram + to, bytes).SequenceEqual(new Span<byte>(guest.Ram + from, bytes)).Should().BeTrue();
        guest.Ram[to + (ulong)bytes].Should().Be(0);
        guest.State->Gpr[1].Should().Be(0);
        guest.State->Gpr[6].Should().Be(from + (ulong)bytes);
        guest.State->Gpr[7].Should().Be(to + (ulong)bytes);
    }

    private static void Movs(Assembler a, int size)
    {
        switch (size)
        {
            case 1: a.rep.movsb(); break;
            case 2: a.rep.movsw(); break;
            case 4: a.rep.movsd(); break;
            default: a.rep.movsq(); break;
        }
    }

    [Theory]
    [InlineData(1)]
    [InlineData(4)]
    [InlineData(8)]
    public void Rep_movs_backwards_copies_downwards(int size)
    {
        const int count = 1500;
        ulong last = (ulong)((count - 1) * size);
        using GuestMachine guest = Prepared(a =>
        {
            a.std();
            a.mov(rsi, Source + 3 + last);
            a.mov(rdi, Target + 1 + last);
            a.mov(ecx, count);
            Movs(a, size);
            a.cld();
            a.hlt();
        });
        guest.Run().Should().Be(StopReason.Halted);
        new Span<byte>(guest.Ram + Target + 1, count * size).SequenceEqual(new Span<byte>(guest.Ram + Source + 3, count * size)).Should().BeTrue();
        guest.State->Gpr[6].Should().Be(Source + 3 - (ulong)size);
        guest.State->Gpr[7].Should().Be(Target + 1 - (ulong)size);
    }

    /// <summary>A destination one byte ahead of the source repeats the first byte, as programs that clear memory with MOVSB expect.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public void Overlapping_movsb_repeats_a_pattern(int distance)
    {
        using GuestMachine guest = Prepared(a =>
        {
            a.mov(rsi, Source);
            a.mov(rdi, Source + (ulong)distance);
            a.mov(ecx, 6000);
            a.rep.movsb();
            a.hlt();
        });
        byte[] expected = new byte[6000 + distance];
        new Span<byte>(guest.Ram + Source, expected.Length).CopyTo(expected);
        for (int i = 0; i < 6000; i++)
            expected[i + distance] = expected[i];
        guest.Run().Should().Be(StopReason.Halted);
        new Span<byte>(guest.Ram + Source, expected.Length).SequenceEqual(expected).Should().BeTrue();
    }

    [Theory]
    [InlineData(1, 5000)]
    [InlineData(2, 4099)]
    [InlineData(4, 2050)]
    [InlineData(8, 1030)]
    public void Rep_stos_fills(int size, int count)
    {
        using GuestMachine guest = Prepared(a =>
        {
            a.mov(rax, 0x8877665544332211UL);
            a.mov(rdi, Target + 4091);
            a.mov(ecx, count);
            switch (size)
            {
                case 1: a.rep.stosb(); break;
                case 2: a.rep.stosw(); break;
                case 4: a.rep.stosd(); break;
                default: a.rep.stosq(); break;
            }
            a.hlt();
        });
        guest.Run().Should().Be(StopReason.Halted);
        for (int i = 0; i < size * count; i++)
            guest.Ram[Target + 4091 + (ulong)i].Should().Be((byte)(0x11 * (1 + (i % size))));
        guest.Ram[Target + 4090].Should().Be(0);
        guest.Ram[Target + 4091 + (ulong)(size * count)].Should().Be(0);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(4096)]
    [InlineData(6001)]
    public void Repne_scasb_finds_the_byte(int at)
    {
        using GuestMachine guest = Prepared(a =>
        {
            a.mov(rdi, Target + 5);
            a.mov(ecx, -1);
            a.xor(eax, eax);
            a.repne.scasb();
            a.hlt();
        });
        new Span<byte>(guest.Ram + Target + 5, at).Fill(1);
        guest.Run().Should().Be(StopReason.Halted);
        guest.State->Gpr[7].Should().Be(Target + 5 + (ulong)at + 1);
        guest.State->Gpr[1].Should().Be(uint.MaxValue - (ulong)at - 1);
        (guest.Cpu.Rflags & 0x40).Should().NotBe(0);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(4099)]
    [InlineData(-1)]
    public void Repe_cmpsb_stops_at_the_first_difference(int at)
    {
        using GuestMachine guest = Prepared(a =>
        {
            a.mov(rsi, Source);
            a.mov(rdi, Target + 3);
            a.mov(ecx, 5000);
            a.repe.cmpsb();
            a.hlt();
        });
        new Span<byte>(guest.Ram + Source, 5000).CopyTo(new Span<byte>(guest.Ram + Target + 3, 5000));
        if (at >= 0)
        {
            guest.Ram[Source + (ulong)at] = 1;
            guest.Ram[Target + 3 + (ulong)at] = 2;
        }
        guest.Run().Should().Be(StopReason.Halted);
        guest.State->Gpr[1].Should().Be(at < 0 ? 0UL : (ulong)(5000 - at - 1));
        (guest.Cpu.Rflags & 0x41).Should().Be(at < 0 ? 0x40UL : 1UL);
    }

    /// <summary>With a count of zero nothing is read and the flags stay.</summary>
    [Fact]
    public void Count_of_zero_touches_nothing()
    {
        using GuestMachine guest = Prepared(a =>
        {
            a.mov(rsi, 0x7000_0000_0000UL);
            a.mov(rdi, 0x7000_0000_0000UL);
            a.xor(ecx, ecx);
            a.stc();
            a.repe.cmpsq();
            a.rep.movsb();
            a.rep.stosd();
            a.hlt();
        });
        guest.Run().Should().Be(StopReason.Halted);
        guest.Fault.Should().Be(-1);
        (guest.Cpu.Rflags & 1).Should().Be(1);
    }

    /// <summary>A fault leaves the registers at the element that faulted, and RIP on the instruction.</summary>
    [Fact]
    public void Fault_in_the_middle_leaves_a_resumable_instruction()
    {
        using GuestMachine guest = Prepared(a =>
        {
            a.mov(rdi, GuestMachine.Size - 3);
            a.mov(rsi, Source);
            a.mov(ecx, 100);
            a.rep.movsb();
            a.hlt();
        });
        // The 2 MiB behind the RAM are not present.
        *(ulong*)(guest.Ram + GuestMachine.PageTables + 0x2000 + 8 * (GuestMachine.Size >> 21)) = 0;
        guest.Cpu.Mmu.FlushAll();
        guest.Run().Should().Be(StopReason.Halted);
        guest.Fault.Should().Be(14);
        guest.State->Gpr[1].Should().Be(97);
        guest.State->Gpr[7].Should().Be(GuestMachine.Size);
        guest.State->Gpr[6].Should().Be(Source + 3);
        guest.State->Cr2.Should().Be(GuestMachine.Size);
        new Span<byte>(guest.Ram + GuestMachine.Size - 3, 3).SequenceEqual(new Span<byte>(guest.Ram + Source, 3)).Should().BeTrue();
        guest.Ram[guest.FaultRip(14, longMode: true)].Should().Be(0xf3);
    }

    /// <summary>Sixteen-bit addresses wrap within the segment.</summary>
    [Fact]
    public void Sixteen_bit_offsets_wrap()
    {
        using var guest = new GuestMachine();
        guest.Start(16, a =>
        {
            a.mov(ax, 0x4000);
            a.mov(es, ax);
            a.mov(di, 0xfffe);
            a.mov(cx, 4);
            a.mov(al, 0x5a);
            a.rep.stosb();
            a.hlt();
        });
        guest.Run().Should().Be(StopReason.Halted);
        guest.Ram[0x40000 + 0xfffe].Should().Be(0x5a);
        guest.Ram[0x40000 + 0xffff].Should().Be(0x5a);
        guest.Ram[0x40000].Should().Be(0x5a);
        guest.Ram[0x40001].Should().Be(0x5a);
        guest.Ram[0x40002].Should().Be(0);
        guest.State->Gpr[7].Should().Be(2);
    }

    /// <summary>A word at offset FFFF does not fit in the segment: #GP, nothing written.</summary>
    [Fact]
    public void Word_across_the_limit_faults()
    {
        using var guest = new GuestMachine();
        guest.Start(16, a =>
        {
            a.mov(ax, 0x4000);
            a.mov(es, ax);
            a.mov(di, 0xffff);
            a.stosw();
            a.hlt();
        });
        guest.Run().Should().Be(StopReason.Halted);
        guest.Fault.Should().Be(13);
        guest.State->Gpr[7].Should().Be(0xffff);
        guest.Ram[0x4ffff].Should().Be(0);
    }

    [Fact]
    public void Lods_with_segment_override_and_loop_sum()
    {
        using var guest = new GuestMachine();
        guest.Load(0x50000, [1, 2, 3, 4, 5]);
        guest.Start(16, a =>
        {
            var loop = a.CreateLabel();
            a.mov(ax, 0x5000);
            a.mov(fs, ax);
            a.xor(si, si);
            a.mov(cx, 5);
            a.xor(dx, dx);
            a.xor(ax, ax);
            a.Label(ref loop);
            a.db(0x64, 0xac);
            a.add(dx, ax);
            a.loop(loop);
            a.hlt();
        });
        guest.Run().Should().Be(StopReason.Halted);
        (guest.State->Gpr[2] & 0xffff).Should().Be(15);
    }
}
