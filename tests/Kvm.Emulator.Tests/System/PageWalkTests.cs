using System.Text;

namespace Kvm.Emulator.Tests;

/// <summary>SDM vol 3A, "Paging": rights, reserved bits, error codes, accessed and dirty bits, checked against a second, table-like formulation of the rules.</summary>
public sealed unsafe class PageWalkTests
{
    private const ulong P = 1, RW = 2, US = 4, A = 0x20, D = 0x40, NX = 1UL << 63;
    private const ulong Linear = 0x9000;

    public enum Paging { FourLevel, Pae, TwoLevel, FiveLevel }

    private static BareMachine Create(Paging paging)
    {
        CpuModel model = paging == Paging.FiveLevel
            ? CpuModel.IntelSkylake.WithCpuid(7, 0, new CpuidLeaf(0, 0, 1 << 16, 0)).With(linearBits: 57)
            : CpuModel.IntelSkylake;
        var m = new BareMachine(model);
        m.Long();
        switch (paging)
        {
            case Paging.Pae:
                m.Protected();
                for (ulong i = 0; i < 4; i++)
                    m.Qword(BareMachine.Pdpt)[i] = 0;
                *m.Qword(BareMachine.Pdpt) = BareMachine.Pd | 1;
                m.State->Cr3 = BareMachine.Pdpt;
                m.State->Cr4 = Cr4.PAE | Cr4.PGE;
                m.Cpu.Mmu.LoadPdptes(m.State->Cr3).Should().BeTrue();
                break;
            case Paging.TwoLevel:
                m.Protected();
                ((uint*)m.At(BareMachine.Pd))[0] = (uint)BareMachine.Pt | 7;
                for (uint i = 0; i < 1024; i++)
                    ((uint*)m.At(BareMachine.Pt))[i] = i << 12 | 7;
                m.State->Cr3 = BareMachine.Pd;
                m.State->Cr4 = Cr4.PSE | Cr4.PGE;
                break;
            case Paging.FiveLevel:
                *m.Qword(BareMachine.Tables + 0x5000) = BareMachine.Pml4 | 7;
                m.State->Cr3 = BareMachine.Tables + 0x5000;
                m.State->Cr4 |= Cr4.LA57;
                break;
        }
        m.State->Cr0 |= Cr0.PG;
        m.Cpu.UpdateMode();
        return m;
    }

    /// <summary>Every combination of P, R/W, U/S, NX in two levels, access, privilege, WP, SMEP, SMAP, AC, NXE.</summary>
    [Theory]
    [InlineData(Paging.FourLevel)]
    [InlineData(Paging.FiveLevel)]
    [InlineData(Paging.Pae)]
    [InlineData(Paging.TwoLevel)]
    public void Rights_and_error_codes_are_those_of_the_manual(Paging paging)
    {
        using BareMachine m = Create(paging);
        bool narrow = paging == Paging.TwoLevel;
        var wrong = new StringBuilder();
        int cases = 0;
        for (int bits = 0; bits < 256; bits++)
        {
            // Upper entry: P RW US NX in bits 0-3, leaf: bits 4-7.
            ulong upper = Entry(bits & 0xf), leaf = Entry(bits >> 4);
            if (narrow && ((upper | leaf) & NX) != 0)
                continue;
            for (int mode = 0; mode < 64; mode++)
            {
                bool user = (mode & 1) != 0, wp = (mode & 2) != 0, smep = (mode & 4) != 0, smap = (mode & 8) != 0, ac = (mode & 16) != 0, nxe = (mode & 32) != 0;
                foreach (AccessKind kind in (AccessKind[])[AccessKind.Read, AccessKind.Write, AccessKind.Execute])
                {
                    SetEntries(m, narrow, upper, leaf);
                    SetMode(m, user, wp, smep, smap, ac, nxe);
                    uint? expected = Expected(upper, leaf, kind, user, wp, smep, smap, ac, nxe, !narrow);
                    uint? actual = Access(m, kind);
                    cases++;
                    if (expected != actual && wrong.Length < 2000)
                        wrong.AppendLine($"upper {upper:x} leaf {leaf:x} {kind} user={user} wp={wp} smep={smep} smap={smap} ac={ac} nxe={nxe}: {actual:x}, want {expected:x}");
                }
            }
        }
        wrong.ToString().Should().BeEmpty();
        cases.Should().BeGreaterThan(10_000);
    }

    private static ulong Entry(int bits) => ((uint)bits & 7UL) | ((bits & 8) != 0 ? NX : 0);

    private static void SetEntries(BareMachine m, bool narrow, ulong upper, ulong leaf)
    {
        if (narrow)
        {
            ((uint*)m.At(BareMachine.Pd))[0] = (uint)(BareMachine.Pt | upper);
            ((uint*)m.At(BareMachine.Pt))[Linear >> 12] = (uint)(Linear | leaf);
        }
        else
        {
            m.Qword(BareMachine.Pd)[0] = BareMachine.Pt | upper;
            *m.Pte(Linear) = Linear | leaf;
        }
    }

    private static void SetMode(BareMachine m, bool user, bool wp, bool smep, bool smap, bool ac, bool nxe)
    {
        CpuState* s = m.State;
        s->Cpl = user ? (byte)3 : (byte)0;
        s->Cr0 = wp ? s->Cr0 | Cr0.WP : s->Cr0 & ~Cr0.WP;
        s->Cr4 = (s->Cr4 & ~(Cr4.SMEP | Cr4.SMAP)) | (smep ? Cr4.SMEP : 0) | (smap ? Cr4.SMAP : 0);
        s->Efer = nxe ? s->Efer | Efer.NXE : s->Efer & ~Efer.NXE;
        s->Rflags = ac ? s->Rflags | Flags.AC : s->Rflags & ~Flags.AC;
        m.Cpu.Mmu.FlushAll();
        m.Cpu.UpdateMode();
    }

    private static uint? Access(BareMachine m, AccessKind kind)
    {
        bool ok = kind switch
        {
            AccessKind.Read => m.Cpu.Mmu.ReadLinear(Linear, 1, out _, supervisor: false),
            AccessKind.Write => m.Cpu.Mmu.WriteLinear(Linear, 1, 0, supervisor: false),
            _ => m.Cpu.Mmu.FetchPage(Linear, out _) != null,
        };
        if (ok)
            return null;
        m.Pending.Vector.Should().Be(Fault.PF);
        m.Pending.Address.Should().Be(Linear);
        return m.Pending.ErrorCode;
    }

    private static uint? Expected(ulong upper, ulong leaf, AccessKind kind, bool user, bool wp, bool smep, bool smap, bool ac, bool nxe, bool pae)
    {
        bool write = kind == AccessKind.Write, fetch = kind == AccessKind.Execute;
        uint code = (write ? 2u : 0) | (user ? 4u : 0) | (fetch && (smep || (nxe && pae)) ? 16u : 0);
        if ((upper & P) == 0)
            return code;
        if (!nxe && (upper & NX) != 0)
            return code | 9;
        if ((leaf & P) == 0)
            return code;
        if (!nxe && (leaf & NX) != 0)
            return code | 9;
        bool us = (upper & leaf & US) != 0, rw = (upper & leaf & RW) != 0, nx = ((upper | leaf) & NX) != 0;
        bool allowed = (user, kind) switch
        {
            (true, AccessKind.Read) => us,
            (true, AccessKind.Write) => us && rw,
            (true, _) => us && !nx,
            (false, AccessKind.Read) => !(us && smap && !ac),
            (false, AccessKind.Write) => !(us && smap && !ac) && (rw || !wp),
            (false, _) => !nx && !(us && smep),
        };
        return allowed ? null : code | 1;
    }

    [Theory]
    [InlineData(Paging.FourLevel)]
    [InlineData(Paging.Pae)]
    public void A_physical_address_bit_beyond_the_processors_width_is_reserved(Paging paging)
    {
        using BareMachine m = Create(paging);
        *m.Pte(Linear) = Linear | 7 | 1UL << 48;
        m.Cpu.Mmu.ReadLinear(Linear, 8, out _, supervisor: true).Should().BeFalse();
        m.Pending.ErrorCode.Should().Be(9);

        *m.Pte(Linear) = Linear | 7 | 1UL << 47;
        m.Cpu.Mmu.ReadLinear(Linear, 8, out ulong value, supervisor: true).Should().BeTrue("bit 47 is an address without RAM, which the open bus answers");
        value.Should().Be(ulong.MaxValue);
    }

    [Fact]
    public void Bits_62_to_52_are_ignored_by_4_level_paging_and_reserved_by_PAE_paging()
    {
        using BareMachine m = Create(Paging.FourLevel);
        *m.Pte(Linear) = Linear | 7 | 0x7ffUL << 52;
        m.Cpu.Mmu.ReadLinear(Linear, 8, out _, supervisor: true).Should().BeTrue();
        using BareMachine pae = Create(Paging.Pae);
        *pae.Pte(Linear) = Linear | 7 | 1UL << 52;
        pae.Cpu.Mmu.ReadLinear(Linear, 8, out _, supervisor: true).Should().BeFalse();
        pae.Pending.ErrorCode.Should().Be(9);
    }

    [Theory]
    [InlineData(13, false)]
    [InlineData(20, false)]
    [InlineData(12, true)]
    [InlineData(21, true)]
    public void Bits_20_to_13_of_a_2M_entry_are_reserved(int bit, bool allowed)
    {
        using BareMachine m = Create(Paging.FourLevel);
        m.Qword(BareMachine.Pd)[1] = 0x200087 | 1UL << bit;
        m.Cpu.Mmu.ReadLinear(0x200000, 8, out _, supervisor: true).Should().Be(allowed);
        if (!allowed)
            m.Pending.ErrorCode.Should().Be(9);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_1G_page_needs_the_feature(bool announced)
    {
        CpuModel model = announced ? CpuModel.IntelSkylake : CpuModel.IntelSkylake.WithCpuid(0x80000001, 0, default, new CpuidLeaf(0, 0, 0, 1 << 26));
        using var m = new BareMachine(model);
        m.Long();
        *m.Qword(BareMachine.Pdpt) = 0x87;
        m.Cpu.Mmu.FlushAll();
        *m.Qword(0x123450) = 0x1122;
        m.Cpu.Mmu.ReadLinear(0x123450, 8, out ulong value, supervisor: true).Should().Be(announced);
        if (announced)
            value.Should().Be(0x1122);
        else
            m.Pending.ErrorCode.Should().Be(9);
    }

    [Fact]
    public void PS_in_a_PML4_entry_is_reserved()
    {
        using BareMachine m = Create(Paging.FourLevel);
        *m.Qword(BareMachine.Pml4) |= 0x80;
        m.Cpu.Mmu.ReadLinear(Linear, 1, out _, supervisor: true).Should().BeFalse();
        m.Pending.ErrorCode.Should().Be(9);
    }

    [Fact]
    public void A_4M_page_takes_address_bits_39_to_32_from_bits_20_to_13_and_bit_21_is_reserved()
    {
        using BareMachine m = Create(Paging.TwoLevel);
        ((uint*)m.At(BareMachine.Pd))[1] = 0x0040_0087;
        *m.Qword(0x400010) = 77;
        m.Cpu.Mmu.ReadLinear(0x400010, 8, out ulong value, supervisor: true).Should().BeTrue();
        value.Should().Be(77);
        m.Cpu.Mmu.FlushAll();
        ((uint*)m.At(BareMachine.Pd))[1] = 0x0040_0087 | 1 << 13;
        m.Cpu.Mmu.ReadLinear(0x400010, 8, out value, supervisor: true).Should().BeTrue();
        value.Should().Be(ulong.MaxValue, "the address is now above 4 GiB, where there is no RAM");
        m.Cpu.Mmu.FlushAll();
        ((uint*)m.At(BareMachine.Pd))[1] = 0x0040_0087 | 1 << 21;
        m.Cpu.Mmu.ReadLinear(0x400010, 8, out _, supervisor: true).Should().BeFalse();
        m.Pending.ErrorCode.Should().Be(9);
    }

    [Theory]
    [InlineData(Paging.FourLevel)]
    [InlineData(Paging.Pae)]
    [InlineData(Paging.TwoLevel)]
    public void A_read_sets_accessed_everywhere_and_a_write_sets_dirty_in_the_leaf_only(Paging paging)
    {
        using BareMachine m = Create(paging);
        ulong Upper() => paging == Paging.TwoLevel ? ((uint*)m.At(BareMachine.Pd))[0] : m.Qword(BareMachine.Pd)[0];
        ulong Leaf() => paging == Paging.TwoLevel ? ((uint*)m.At(BareMachine.Pt))[Linear >> 12] : *m.Pte(Linear);
        m.Cpu.Mmu.ReadLinear(Linear, 4, out _, supervisor: true).Should().BeTrue();
        (Upper() & (A | D)).Should().Be(A);
        (Leaf() & (A | D)).Should().Be(A);
        m.Cpu.Mmu.WriteLinear(Linear, 4, 1, supervisor: true).Should().BeTrue();
        (Upper() & (A | D)).Should().Be(A);
        (Leaf() & (A | D)).Should().Be(A | D);
    }

    [Fact]
    public void A_faulting_access_sets_neither_accessed_nor_dirty()
    {
        using BareMachine m = Create(Paging.FourLevel);
        *m.Pte(Linear) = Linear | P | US;
        m.Cpu.Mmu.WriteLinear(Linear, 4, 1, supervisor: true).Should().BeFalse();
        (*m.Pte(Linear) & (A | D)).Should().Be(0);
    }

    [Fact]
    public void PDPTE_registers_are_loaded_by_MOV_CR3_and_not_reread()
    {
        using BareMachine m = Create(Paging.Pae);
        *m.Qword(BareMachine.Pdpt) = 0;
        m.Cpu.Mmu.FlushAll();
        m.Cpu.Mmu.ReadLinear(Linear, 1, out _, supervisor: true).Should().BeTrue();
        m.Cpu.WriteCr(3, BareMachine.Pdpt).Ok.Should().BeTrue();
        m.Cpu.Mmu.ReadLinear(Linear, 1, out _, supervisor: true).Should().BeFalse();
        m.Pending.ErrorCode.Should().Be(0);
    }

    [Theory]
    [InlineData(1UL | 2, false)]
    [InlineData(1UL | 4, false)]
    [InlineData(1UL | 0x20, false)]
    [InlineData(1UL | 0x80, false)]
    [InlineData(1UL | 1UL << 63, false)]
    [InlineData(1UL | 1UL << 48, false)]
    [InlineData(1UL | 0x18, true)]
    [InlineData(1UL | 0xe00, true)]
    [InlineData(0xfffUL & ~1UL, true)]
    public void MOV_CR3_checks_the_reserved_bits_of_present_PDPTEs(ulong low, bool allowed)
    {
        using BareMachine m = Create(Paging.Pae);
        m.Qword(BareMachine.Pdpt)[2] = BareMachine.Pd | low;
        InstructionResult result = m.Cpu.WriteCr(3, BareMachine.Pdpt);
        result.Ok.Should().Be(allowed);
        if (!allowed)
            result.Fault.Should().Be(Fault.Gp());
    }

    [Fact]
    public void Linear_addresses_wrap_at_4_GiB_outside_64_bit_mode()
    {
        using var m = new BareMachine();
        m.Protected();
        m.At(0)[0] = 0x5a;
        m.Cpu.Mmu.ReadLinear(0x1_0000_0000, 1, out ulong value, supervisor: true).Should().BeTrue();
        value.Should().Be(0x5a);
    }

    [Fact]
    public void A_write_across_a_page_boundary_is_all_or_nothing()
    {
        using BareMachine m = Create(Paging.FourLevel);
        *m.Pte(Linear + 0x1000) = 0;
        *m.Qword(Linear + 0xff8) = 0;
        m.Cpu.Mmu.WriteLinear(Linear + 0xffc, 8, ulong.MaxValue, supervisor: true).Should().BeFalse();
        m.Pending.Should().Be(Fault.Page(2, Linear + 0x1000));
        (*m.Qword(Linear + 0xff8)).Should().Be(0);
    }

    [Fact]
    public void An_access_across_a_page_boundary_reads_and_writes_both_pages()
    {
        using BareMachine m = Create(Paging.FourLevel);
        *m.Pte(Linear + 0x1000) = 0x20000 | 7;
        m.Cpu.Mmu.WriteLinear(Linear + 0xffd, 8, 0x8877665544332211, supervisor: true).Should().BeTrue();
        m.At(Linear + 0xffd)[0].Should().Be(0x11);
        m.At(0x20000)[0].Should().Be(0x44);
        m.Cpu.Mmu.ReadLinear(Linear + 0xffd, 8, out ulong value, supervisor: true).Should().BeTrue();
        value.Should().Be(0x8877665544332211);
    }
}
