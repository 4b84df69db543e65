namespace Kvm.Emulator.Tests;

/// <summary>SDM vol 3A, "Caching Translation Information": what stays stale without an invalidation and what each invalidation removes.</summary>
public sealed unsafe class TlbTests
{
    private const ulong Linear = 0x9000, Global = 0x100;

    private static BareMachine Create(ulong leafBits = 0, ulong extraCr4 = 0)
    {
        var m = new BareMachine();
        m.Long();
        m.State->Cr4 |= extraCr4;
        m.Cpu.UpdateMode();
        *m.Qword(Linear) = 0x1111;
        *m.Qword(0x20000) = 0x2222;
        *m.Pte(Linear) = Linear | 7 | leafBits;
        Read(m).Should().Be(0x1111);
        *m.Pte(Linear) = 0x20000 | 7 | leafBits;
        return m;
    }

    private static ulong Read(BareMachine m)
    {
        m.Cpu.Mmu.ReadLinear(Linear, 8, out ulong value, supervisor: true).Should().BeTrue();
        return value;
    }

    [Fact]
    public void A_changed_entry_stays_stale_without_an_invalidation()
    {
        using BareMachine m = Create();
        Read(m).Should().Be(0x1111);
    }

    [Fact]
    public void INVLPG_removes_the_page()
    {
        using BareMachine m = Create();
        m.Cpu.Invlpg(Linear + 0x123);
        Read(m).Should().Be(0x2222);
    }

    [Fact]
    public void INVLPG_of_another_page_removes_nothing_here()
    {
        using BareMachine m = Create();
        m.Cpu.Invlpg(Linear + 0x1000);
        Read(m).Should().Be(0x1111);
    }

    [Fact]
    public void INVLPG_removes_a_global_page()
    {
        using BareMachine m = Create(Global);
        m.Cpu.Invlpg(Linear);
        Read(m).Should().Be(0x2222);
    }

    [Fact]
    public void INVLPG_inside_a_large_page_removes_all_of_it()
    {
        using BareMachine m = Create();
        *m.Qword(0x200000) = 1;
        *m.Qword(0x400000) = 2;
        m.Cpu.Mmu.ReadLinear(0x200000, 8, out _, supervisor: true).Should().BeTrue();
        m.Qword(BareMachine.Pd)[1] = 0x400087;
        m.Cpu.Invlpg(0x3ff000);
        m.Cpu.Mmu.ReadLinear(0x200000, 8, out ulong value, supervisor: true).Should().BeTrue();
        value.Should().Be(2);
    }

    [Theory]
    [InlineData(0UL, 0x2222UL)]
    [InlineData(Global, 0x1111UL)]
    public void MOV_CR3_removes_all_but_global_pages(ulong bits, ulong seen)
    {
        using BareMachine m = Create(bits);
        m.Cpu.WriteCr(3, m.State->Cr3).Ok.Should().BeTrue();
        Read(m).Should().Be(seen);
    }

    [Fact]
    public void Global_means_nothing_while_PGE_is_clear()
    {
        using var m = new BareMachine();
        m.Long();
        m.State->Cr4 &= ~Cr4.PGE;
        m.Cpu.UpdateMode();
        *m.Qword(0x20000) = 0x2222;
        *m.Pte(Linear) = Linear | 7 | Global;
        Read(m);
        *m.Pte(Linear) = 0x20000 | 7 | Global;
        m.Cpu.WriteCr(3, m.State->Cr3);
        Read(m).Should().Be(0x2222);
    }

    [Fact]
    public void Toggling_CR4_PGE_removes_global_pages()
    {
        using BareMachine m = Create(Global);
        m.Cpu.WriteCr(4, m.State->Cr4 & ~Cr4.PGE).Ok.Should().BeTrue();
        m.Cpu.WriteCr(4, m.State->Cr4 | Cr4.PGE).Ok.Should().BeTrue();
        Read(m).Should().Be(0x2222);
    }

    [Theory]
    [InlineData(true, 0x1111UL)]
    [InlineData(false, 0x2222UL)]
    public void With_PCIDs_bit_63_of_CR3_keeps_the_translations_of_the_new_PCID(bool keep, ulong seen)
    {
        using BareMachine m = Create(0, Cr4.PCIDE);
        ulong cr3 = m.State->Cr3;
        m.Cpu.WriteCr(3, cr3 | 5).Ok.Should().BeTrue();
        Read(m).Should().Be(0x2222, "PCID 5 has no translation yet");
        m.Cpu.WriteCr(3, cr3 | (keep ? 1UL << 63 : 0)).Ok.Should().BeTrue();
        m.State->Cr3.Should().Be(cr3, "bit 63 is not kept");
        Read(m).Should().Be(seen);
    }

    [Fact]
    public void MOV_CR3_to_one_PCID_keeps_those_of_another()
    {
        using BareMachine m = Create(0, Cr4.PCIDE);
        ulong cr3 = m.State->Cr3;
        m.Cpu.WriteCr(3, cr3 | 5);
        m.Cpu.WriteCr(3, cr3 | 1UL << 63);
        Read(m).Should().Be(0x1111);
    }

    [Fact]
    public void Clearing_CR0_WP_takes_effect_without_an_invalidation()
    {
        using BareMachine m = Create();
        *m.Pte(Linear) = Linear | 5;
        m.Cpu.Invlpg(Linear);
        m.Cpu.Mmu.WriteLinear(Linear, 1, 1, supervisor: true).Should().BeFalse();
        m.Cpu.WriteCr(0, m.State->Cr0 & ~Cr0.WP).Ok.Should().BeTrue();
        m.Cpu.Mmu.WriteLinear(Linear, 1, 1, supervisor: true).Should().BeTrue();
        m.Cpu.WriteCr(0, m.State->Cr0 | Cr0.WP).Ok.Should().BeTrue();
        m.Cpu.Mmu.WriteLinear(Linear, 1, 1, supervisor: true).Should().BeFalse();
    }

    [Fact]
    public void A_write_to_a_clean_page_goes_to_the_page_tables_to_set_dirty()
    {
        using BareMachine m = Create();
        m.Cpu.Invlpg(Linear);
        *m.Pte(Linear) = Linear | 7;
        Read(m);
        (*m.Pte(Linear) & 0x40).Should().Be(0);
        TlbEntry* entry = &m.State->Tlb[(Linear >> 12) & 1023];
        entry->ReadTag.Should().Be(Linear);
        entry->WriteTag.Should().Be(TlbEntry.NoMatch, "the fast path must not write before D is set");
        m.Cpu.Mmu.WriteLinear(Linear, 1, 1, supervisor: true).Should().BeTrue();
        (*m.Pte(Linear) & 0x40).Should().Be(0x40);
        entry->WriteTag.Should().Be(Linear);
    }

    [Fact]
    public void The_user_table_does_not_hold_supervisor_pages()
    {
        using BareMachine m = Create();
        *m.Pte(Linear) = Linear | 3;
        m.Cpu.Invlpg(Linear);
        Read(m);
        m.State->Cpl = 3;
        m.Cpu.UpdateMode();
        m.Cpu.Mmu.ReadLinear(Linear, 1, out _, supervisor: false).Should().BeFalse();
        m.Pending.ErrorCode.Should().Be(5);
    }

    [Fact]
    public void Withdrawn_memory_leaves_every_table_at_the_next_boundary()
    {
        using var m = new BareMachine();
        m.Long();
        ulong page = m.Machine.Memory.Allocate(0x1000);
        *(ulong*)page = 0x3333;
        *m.Pte(Linear) = page | 7;
        Read(m).Should().Be(0x3333);
        uint epoch = m.Machine.Memory.Epoch;
        m.Machine.Memory.Free(page, 0x1000);
        m.Machine.Memory.Epoch.Should().NotBe(epoch);
        m.Machine.Memory.Contains(page).Should().BeFalse();
        m.Cpu.ServiceEvents(out _, out _).Should().BeFalse();
        Read(m).Should().Be(ulong.MaxValue, "the open bus answers now");
    }

    [Fact]
    public void A_device_page_is_never_cached()
    {
        var bus = new CountingBus();
        using var m = new BareMachine(bus: bus);
        m.Long();
        *m.Pte(Linear) = 0xfee0_0000 | 7;
        m.Cpu.Mmu.ReadLinear(Linear + 0x20, 4, out ulong value, supervisor: true).Should().BeTrue();
        m.Cpu.Mmu.WriteLinear(Linear + 0x30, 4, 9, supervisor: true).Should().BeTrue();
        m.Cpu.Mmu.ReadLinear(Linear + 0x20, 4, out _, supervisor: true).Should().BeTrue();
        value.Should().Be(0x20);
        bus.Log.Should().Equal("r fee00020 4", "w fee00030 4 9", "r fee00020 4");
    }
}

/// <summary>A bus that answers every read with the low byte of the address and keeps a log.</summary>
internal sealed class CountingBus : IMachineBus
{
    public List<string> Log { get; } = [];
    public Func<ushort, uint>? Port { get; set; }

    public uint ReadPort(ushort port, int size)
    {
        Log.Add($"in {port:x} {size}");
        return Port?.Invoke(port) ?? (uint)port & 0xff;
    }

    public void WritePort(ushort port, int size, uint value) => Log.Add($"out {port:x} {size} {value:x}");

    public ulong ReadMmio(ulong address, int size)
    {
        Log.Add($"r {address:x} {size}");
        return address & 0xff;
    }

    public void WriteMmio(ulong address, int size, ulong value) => Log.Add($"w {address:x} {size} {value:x}");
}
