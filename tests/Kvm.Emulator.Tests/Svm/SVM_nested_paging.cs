using Iced.Intel;
using Kvm.Emulator.Svm;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Svm;

/// <summary>Nested page walks: rights, error codes, accessed and dirty bits, instruction bytes.</summary>
public sealed unsafe class SVM_nested_paging : IDisposable
{
    private const ulong P = 1, W = 2, U = 4, A = 0x20, D = 0x40, NX = 1UL << 63;
    private const ulong Final = 1UL << 32, Walk = 1UL << 33;
    private readonly SvmMachine m = new();

    public void Dispose() => m.Dispose();

    private void Npf(ulong error, ulong gpa)
    {
        m.Control->TlbControl = TlbControl.FlushAll;
        m.RunTo(SvmExitCode.Npf);
        m.Control->ExitInfo1.Should().Be(error, "error code {0:x}", m.Control->ExitInfo1);
        m.Control->ExitInfo2.Should().Be(gpa);
    }

    // Every combination of the leaf's rights against read, write and fetch. User accesses all: a supervisor page is never reachable.
    [Theory]
    [InlineData(0UL, "read", U)]
    [InlineData(0UL, "write", W | U)]
    [InlineData(0UL, "fetch", U | 0x10)]
    [InlineData(P | U, "read", 0UL)]
    [InlineData(P | U, "write", P | W | U)]
    [InlineData(P | U, "fetch", 0UL)]
    [InlineData(P | W | U, "write", 0UL)]
    [InlineData(P | W | U | NX, "fetch", P | U | 0x10)]
    [InlineData(P | W | U | NX, "read", 0UL)]
    [InlineData(P | W, "read", P | U)]
    [InlineData(P | W, "write", P | W | U)]
    [InlineData(P | W, "fetch", P | U | 0x10)]
    [InlineData(P | W | U | 1UL << 51, "read", P | U | 8)]
    [InlineData(P | U | 1UL << 51, "write", P | W | U | 8)]
    public void Rights_of_the_leaf(ulong flags, string access, ulong error)
    {
        const ulong gpa = 0x5000;
        *m.NestedPte(gpa) = flags == 0 ? 0 : ((ulong)m.Guest + gpa) | flags;
        m.Load(gpa, 0xf4);
        m.Code16(a =>
        {
            switch (access)
            {
                case "read": a.mov(al, __byte_ptr[0x5000]); break;
                case "write": a.mov(__byte_ptr[0x5000], al); break;
                default: a.db(0xe9, 0xfd, 0x3f); break; // jmp 0x5000
            }
            a.hlt();
        });
        if (error == 0)
            m.RunTo(SvmExitCode.Hlt);
        else
            Npf(error | Final, gpa);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    public void Rights_are_the_sum_over_all_levels(int level)
    {
        ulong* entry = level switch { 0 => m.NestedPml4e, 1 => m.NestedPdpte, _ => m.NestedPde };
        m.Code16(a => { a.mov(__byte_ptr[0x5000], al); a.hlt(); });
        *entry &= ~W;
        Npf(P | W | U | Final, 0x5000);
        *entry |= W | NX;
        Npf(P | U | 0x10 | Final, SvmMachine.CodeGpa);
        *entry &= ~(NX | U);
        Npf(P | U | 0x10 | Final, SvmMachine.CodeGpa);
        *entry |= U;
        m.Control->TlbControl = TlbControl.FlushAll;
        m.RunTo(SvmExitCode.Hlt);
    }

    // A not-present entry below ends the walk before rights count.
    [Fact]
    public void A_missing_entry_below_a_read_only_level_is_not_present()
    {
        *m.NestedPde &= ~W;
        *m.NestedPte(0x5000) = 0;
        m.Code16(a => { a.mov(__byte_ptr[0x5000], al); a.hlt(); });
        Npf(W | U | Final, 0x5000);
    }

    [Fact]
    public void Accessed_and_dirty_bits_are_set_by_the_walk()
    {
        m.Code16(a => { a.mov(al, __byte_ptr[0x5000]); a.mov(__byte_ptr[0x6000], al); a.hlt(); });
        m.RunTo(SvmExitCode.Hlt);
        (*m.NestedPte(0x5000) & (A | D)).Should().Be(A);
        (*m.NestedPte(0x6000) & (A | D)).Should().Be(A | D);
        (*m.NestedPte(0x7000) & (A | D)).Should().Be(0);
        (*m.NestedPml4e & (A | D)).Should().Be(A, "D belongs to leaves");
    }

    [Fact]
    public void The_first_write_after_a_read_sets_dirty()
    {
        m.Code16(a => { a.mov(al, __byte_ptr[0x5000]); a.cpuid(); a.mov(__byte_ptr[0x5000], al); a.hlt(); });
        m.Control->Intercepts3 |= SvmIntercepts3.Cpuid;
        m.RunTo(SvmExitCode.Cpuid);
        (*m.NestedPte(0x5000) & D).Should().Be(0);
        m.Save->Rip = m.Control->NextRip;
        m.RunTo(SvmExitCode.Hlt);
        (*m.NestedPte(0x5000) & D).Should().Be(D);
    }

    // The guest's own tables: a missing nested page under one is a fault of the walk (bit 33), and walks count as writes.
    [Fact]
    public void A_walk_of_guest_tables_is_a_write_and_not_final()
    {
        m.Code64(a => a.hlt());
        *m.NestedPte(0x11000) = 0;
        Npf(W | U | Walk, 0x11000);
        *m.NestedPte(0x11000) = ((ulong)m.Guest + 0x11000) | P | U;
        Npf(P | W | U | Walk, 0x11000);
        *m.NestedPte(0x11000) |= W;
        m.RunTo(SvmExitCode.Hlt);
    }

    [Fact]
    public void Large_pages_translate_with_their_offset()
    {
        // One 2 MiB entry: the guest's memory need not be aligned for it, so map a fresh aligned block.
        ulong block = m.Machine.Memory.Allocate(0x400000);
        ulong aligned = (block + 0x1fffff) & ~0x1fffffUL;
        *m.NestedPde = aligned | P | W | U | 0x80;
        m.Code16(a => { a.mov(al, __byte_ptr[0x5123]); a.hlt(); });
        new Span<byte>(m.Guest + SvmMachine.CodeGpa, 32).CopyTo(new Span<byte>((byte*)aligned + SvmMachine.CodeGpa, 32));
        *((byte*)aligned + 0x5123) = 0x5a;
        m.RunTo(SvmExitCode.Hlt);
        ((byte)m.Save->Rax).Should().Be(0x5a);
        *m.NestedPde = (aligned | P | W | U | 0x80) + 0x2000; // address bit 13 of a 2 MiB entry is reserved
        m.Control->TlbControl = TlbControl.FlushAll;
        m.Save->Rip = SvmMachine.CodeGpa;
        Npf(P | U | 8 | 0x10 | Final, SvmMachine.CodeGpa);
    }

    [Fact]
    public void Instruction_bytes_are_those_at_rip_and_none_for_a_fetch()
    {
        *m.NestedPte(0x5000) = 0;
        m.Code16(a => { a.nop(); a.mov(__byte_ptr[0x5000], al); a.hlt(); });
        Npf(W | U | Final, 0x5000);
        m.Control->InstructionLength.Should().Be(15);
        new ReadOnlySpan<byte>(m.Control->InstructionBytes, 15).SequenceEqual(new ReadOnlySpan<byte>(m.Guest + SvmMachine.CodeGpa + 1, 15)).Should().BeTrue();
        m.Save->Rip.Should().Be(SvmMachine.CodeGpa + 1);
        m.Control->NextRip.Should().Be(0);

        *m.NestedPte(SvmMachine.CodeGpa) = 0;
        m.Control->TlbControl = TlbControl.FlushAll;
        Npf(U | 0x10 | Final, SvmMachine.CodeGpa + 1);
        m.Control->InstructionLength.Should().Be(0);
    }

    [Fact]
    public void Instruction_bytes_stop_at_a_page_that_cannot_be_fetched()
    {
        *m.NestedPte(0x5000) = 0;
        *m.NestedPte(0x2000) = 0;
        m.Load(0x1ffa, 0xa2, 0x00, 0x50, 0xf4); // mov [0x5000], al; hlt
        m.Save->Rip = 0x1ffa;
        Npf(W | U | Final, 0x5000);
        m.Control->InstructionLength.Should().Be(6);
    }

    // Translations are tagged: a changed table is seen after a flush of that ASID, not before, and another ASID never sees them.
    [Fact]
    public void Asids_tag_translations_and_tlb_control_flushes_them()
    {
        m.Code16(a => { a.mov(al, __byte_ptr[0x5000]); a.hlt(); });
        m.Load(0x5000, 1);
        m.Load(0x6000, 2);
        m.RunTo(SvmExitCode.Hlt);
        ((byte)m.Save->Rax).Should().Be(1);
        *m.NestedPte(0x5000) = ((ulong)m.Guest + 0x6000) | P | W | U;

        byte Read(uint asid, TlbControl control)
        {
            m.Save->Rip = SvmMachine.CodeGpa;
            m.Control->Asid = asid;
            m.Control->TlbControl = control;
            m.RunTo(SvmExitCode.Hlt);
            return (byte)m.Save->Rax;
        }

        Read(1, TlbControl.DoNothing).Should().Be(1, "nothing was flushed");
        Read(2, TlbControl.DoNothing).Should().Be(2);
        Read(2, TlbControl.FlushAsid).Should().Be(2);
        Read(1, TlbControl.DoNothing).Should().Be(1, "the flush was for ASID 2");
        Read(1, TlbControl.FlushAsid).Should().Be(2);
        *m.NestedPte(0x5000) = ((ulong)m.Guest + 0x5000) | P | W | U;
        Read(1, TlbControl.FlushAll).Should().Be(1);
        Read(2, TlbControl.DoNothing).Should().Be(1);
    }

    [Fact]
    public void Invlpga_drops_one_page_of_one_asid()
    {
        m.Code16(a => { a.mov(al, __byte_ptr[0x5000]); a.hlt(); });
        m.Load(0x5000, 1);
        m.Load(0x6000, 2);
        m.RunTo(SvmExitCode.Hlt);
        *m.NestedPte(0x5000) = ((ulong)m.Guest + 0x6000) | P | W | U;
        m.Cpu.Invlpga(0x5000, 2).Ok.Should().BeTrue();
        m.Save->Rip = SvmMachine.CodeGpa;
        m.RunTo(SvmExitCode.Hlt);
        ((byte)m.Save->Rax).Should().Be(1);
        m.Cpu.Invlpga(0x5000, 1).Ok.Should().BeTrue();
        m.Save->Rip = SvmMachine.CodeGpa;
        m.RunTo(SvmExitCode.Hlt);
        ((byte)m.Save->Rax).Should().Be(2);
    }

    [Fact]
    public void A_page_fault_of_the_guest_is_not_a_nested_fault()
    {
        m.Control->InterceptExceptions = 1u << Fault.PF;
        m.Code64(a => { a.mov(rax, 0x1234567890); a.mov(__[rax], rbx); });
        m.Save->Cr2 = 0x777;
        m.RunTo(SvmExitCode.Exception + Fault.PF);
        m.Control->ExitInfo1.Should().Be(2, "write to a page that is not present");
        m.Control->ExitInfo2.Should().Be(0x1234567890);
        m.Save->Cr2.Should().Be(0x777, "an intercepted #PF does not write CR2");
        m.Control->InstructionLength.Should().Be(15);
    }
}
