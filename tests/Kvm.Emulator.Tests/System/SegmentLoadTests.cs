using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests;

/// <summary>SDM vol 2A, MOV (segment registers in protected mode) and the instructions that look at descriptors.</summary>
public sealed unsafe class SegmentLoadTests
{
    private const ushort Sel = 0x68;
    private const uint Present = 0x80, Seg32 = 0x4000;

    private static uint Rights(int type, int dpl, bool present = true, bool s = true) => (uint)type | (s ? 0x10u : 0) | (uint)dpl << 5 | (present ? Present : 0) | Seg32;

    private static Fault? Load(BareMachine m, Seg seg, ushort selector)
        => m.Cpu.LoadSegment(seg, selector) ? null : m.Pending;

    /// <summary>All 16 code and data types, DPL, RPL, CPL, present, for DS: the whole rule.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    public void DS_needs_a_readable_segment_that_is_visible_and_present(int cpl)
    {
        using var m = new BareMachine();
        m.Protected(cpl);
        for (int type = 0; type < 16; type++)
        {
            for (int dpl = 0; dpl < 4; dpl++)
            {
                for (int rpl = 0; rpl < 4; rpl++)
                {
                    for (int flags = 0; flags < 4; flags++)
                    {
                        bool present = (flags & 1) != 0, s = (flags & 2) != 0;
                        m.SetGdt(Sel, BareMachine.Segment(0x1000, 0xffff, Rights(type, dpl, present, s)));
                        bool code = type >= 8, readable = !code || (type & 2) != 0, conforming = code && (type & 4) != 0;
                        Fault? expected = !s || !readable || (!conforming && Math.Max(cpl, rpl) > dpl) ? Fault.Gp(Sel)
                            : !present ? new Fault(Fault.NP, true, Sel) : null;
                        Load(m, Seg.DS, (ushort)(Sel | rpl)).Should().Be(expected, $"type {type} dpl {dpl} rpl {rpl} p {present} s {s}");
                        if (expected is null)
                        {
                            m.Cpu.Segment(Seg.DS).Base.Should().Be(0x1000);
                            (m.GetGdt(Sel) >> 40 & 1).Should().Be(1, "the accessed bit is set");
                        }
                    }
                }
            }
        }
    }

    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    public void SS_needs_writable_data_with_DPL_and_RPL_equal_to_CPL(int cpl)
    {
        using var m = new BareMachine();
        m.Protected(cpl);
        for (int type = 0; type < 16; type++)
        {
            for (int dpl = 0; dpl < 4; dpl++)
            {
                for (int rpl = 0; rpl < 4; rpl++)
                {
                    for (int present = 0; present < 2; present++)
                    {
                        m.SetGdt(Sel, BareMachine.Segment(0, 0xffff, Rights(type, dpl, present != 0)));
                        bool writable = type < 8 && (type & 2) != 0;
                        Fault? expected = rpl != cpl || dpl != cpl || !writable ? Fault.Gp(Sel) : present == 0 ? new Fault(Fault.SS, true, Sel) : null;
                        Load(m, Seg.SS, (ushort)(Sel | rpl)).Should().Be(expected, $"type {type} dpl {dpl} rpl {rpl} p {present}");
                    }
                }
            }
        }
    }

    [Fact]
    public void A_null_selector_loads_into_data_segments_and_makes_them_unusable()
    {
        using var m = new BareMachine();
        m.Protected();
        Load(m, Seg.ES, 3).Should().BeNull();
        m.Cpu.Segment(Seg.ES).Unusable.Should().BeTrue();
        m.Cpu.Segment(Seg.ES).Selector.Should().Be(3);
        m.Cpu.Mmu.Read(Seg.ES, 0, 1, out _).Should().BeFalse();
        m.Pending.Should().Be(Fault.Gp());
        Load(m, Seg.SS, 0).Should().Be(Fault.Gp());
    }

    [Theory]
    [InlineData(0, 0, true)]
    [InlineData(0, 1, false)]
    [InlineData(3, 3, false)]
    public void A_null_SS_is_allowed_in_64_bit_mode_below_CPL_3_with_RPL_equal_to_CPL(int cpl, int rpl, bool allowed)
    {
        using var m = new BareMachine();
        m.Long(cpl);
        Load(m, Seg.SS, (ushort)rpl).Should().Be(allowed ? null : Fault.Gp());
    }

    [Fact]
    public void A_selector_beyond_the_table_faults_with_its_index()
    {
        using var m = new BareMachine();
        m.Protected();
        Load(m, Seg.DS, 0x80).Should().Be(Fault.Gp(0x80));
        Load(m, Seg.DS, 0xf).Should().Be(Fault.Gp(0xc), "there is no LDT");
        m.State->Gdtr.Limit = 0x16;
        Load(m, Seg.DS, BareMachine.Data32).Should().Be(Fault.Gp(BareMachine.Data32), "the limit must cover all eight bytes");
    }

    [Fact]
    public void TI_selects_the_LDT()
    {
        using var m = new BareMachine();
        m.Protected();
        m.Cpu.Segment(Seg.LDTR) = new SegmentCache { Selector = BareMachine.LdtSelector, Base = BareMachine.Ldt, Limit = 0x3f, AccessRights = 0x82 };
        *m.Qword(BareMachine.Ldt + 8) = BareMachine.Segment(0x4000, 0xfff, Rights(3, 0));
        Load(m, Seg.DS, 0xc).Should().BeNull();
        m.Cpu.Segment(Seg.DS).Base.Should().Be(0x4000);
    }

    [Fact]
    public void Real_mode_loads_base_and_keeps_the_limit()
    {
        using var m = new BareMachine();
        m.Real();
        m.Cpu.Segment(Seg.DS).Limit = uint.MaxValue;
        Load(m, Seg.DS, 0x1234).Should().BeNull();
        m.Cpu.Segment(Seg.DS).Base.Should().Be(0x12340);
        m.Cpu.Segment(Seg.DS).Limit.Should().Be(uint.MaxValue, "unreal mode");
    }

    // ---- limits ----

    [Theory]
    [InlineData(0x92, 0xffcUL, 4, true)]
    [InlineData(0x92, 0xffdUL, 4, false)]
    [InlineData(0x96, 0xfffUL, 1, false)]
    [InlineData(0x96, 0x1000UL, 1, true)]
    [InlineData(0x96, 0xfffcUL, 4, true)]
    [InlineData(0x96, 0xfffdUL, 4, false)]
    [InlineData(0x4096, 0xfffffffcUL, 4, true)]
    [InlineData(0x4096, 0xfffffffdUL, 4, false)]
    public void Limit_checks_of_expand_up_and_expand_down_segments(uint rights, ulong offset, int size, bool ok)
    {
        using var m = new BareMachine();
        m.Protected();
        m.Cpu.Segment(Seg.DS) = new SegmentCache { Selector = Sel, Limit = 0xfff, AccessRights = rights };
        m.Cpu.Segment(Seg.SS) = m.Cpu.Segment(Seg.DS);
        m.Cpu.UpdateMode();
        m.Cpu.Mmu.CheckedLinear(Seg.DS, offset, size, AccessKind.Write, out _).Should().Be(ok);
        if (!ok)
            m.Pending.Should().Be(Fault.Gp());
        m.Cpu.Mmu.CheckedLinear(Seg.SS, offset, size, AccessKind.Write, out _).Should().Be(ok);
        if (!ok)
            m.Pending.Should().Be(new Fault(Fault.SS, true));
    }

    [Theory]
    [InlineData(0x90, AccessKind.Read, true)]
    [InlineData(0x90, AccessKind.Write, false)]
    [InlineData(0x98, AccessKind.Read, false)]
    [InlineData(0x9a, AccessKind.Read, true)]
    [InlineData(0x9a, AccessKind.Write, false)]
    [InlineData(0x92, AccessKind.ReadWrite, true)]
    public void Type_checks(uint rights, AccessKind kind, bool ok)
    {
        using var m = new BareMachine();
        m.Protected();
        m.Cpu.Segment(Seg.DS) = new SegmentCache { Selector = Sel, Limit = 0xfff, AccessRights = rights };
        m.Cpu.Mmu.CheckedLinear(Seg.DS, 0, 1, kind, out _).Should().Be(ok);
    }

    [Theory]
    [InlineData(Seg.DS, 0x0000_7fff_ffff_fff8UL, true)]
    [InlineData(Seg.DS, 0x0000_7fff_ffff_fff9UL, false)]
    [InlineData(Seg.DS, 0xffff_7fff_ffff_ffffUL, false)]
    [InlineData(Seg.SS, 0x0000_8000_0000_0000UL, false)]
    [InlineData(Seg.FS, 0xffff_8000_0000_0000UL, true)]
    public void Canonical_checks_in_64_bit_mode(Seg seg, ulong offset, bool ok)
    {
        using var m = new BareMachine();
        m.Long();
        m.Cpu.Mmu.CheckedLinear(seg, offset, 8, AccessKind.Read, out _).Should().Be(ok);
        if (!ok)
            m.Pending.Should().Be(new Fault(seg == Seg.SS ? Fault.SS : Fault.GP, true));
    }

    [Fact]
    public void Alignment_checks_need_CPL_3_AM_and_AC()
    {
        using var m = new BareMachine();
        m.Long(cpl: 3);
        m.State->Cr0 |= Cr0.AM;
        m.State->Rflags |= Flags.AC;
        m.Cpu.UpdateMode();
        m.Cpu.Mmu.Read(Seg.DS, BareMachine.Data + 1, 4, out _).Should().BeFalse();
        m.Pending.Should().Be(new Fault(Fault.AC, true));
        m.Cpu.Mmu.Read(Seg.DS, BareMachine.Data + 4, 4, out _).Should().BeTrue();
        m.State->Rflags &= ~Flags.AC;
        m.Cpu.UpdateMode();
        m.Cpu.Mmu.Read(Seg.DS, BareMachine.Data + 1, 4, out _).Should().BeTrue();
    }

    // ---- instructions ----

    [Fact]
    public void MOV_SS_holds_interrupts_for_one_instruction()
    {
        using var m = new BareMachine();
        m.Long();
        m.SetGate64(0x30, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9000);
        m.Bytes(0x9000, 0xf4);
        m.State->Rflags |= Flags.IF;
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(eax, (uint)BareMachine.Data32);
            a.mov(ss, ax);
            a.inc(rbx);
            a.inc(rbx);
        });
        m.Run(1);
        m.Run(1);
        m.Cpu.RaiseInterrupt(0x30);
        m.Run();
        m.State->Gpr[3].Should().Be(1);
    }

    [Fact]
    public void MOV_CS_is_undefined()
    {
        using var m = new BareMachine();
        m.Long();
        m.SetGate64(Fault.UD, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9000);
        m.Bytes(0x9000, 0xf4);
        m.Bytes(BareMachine.Code, 0x8e, 0xc8);
        m.Run();
        m.State->Rip.Should().Be(0x9001);
    }

    [Fact]
    public void LAR_LSL_VERR_VERW_answer_in_ZF_and_leave_the_destination_alone_otherwise()
    {
        using var m = new BareMachine();
        m.Long();
        m.SetGdt(Sel, BareMachine.Segment(0, 0x12345, Rights(1, 3)));
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(esi, Sel);
            a.mov(eax, 0x5555);
            a.lar(eax, esi);
            a.setz(r8b);
            a.mov(edx, 0x5555);
            a.lsl(edx, esi);
            a.setz(r9b);
            a.verr(si);
            a.setz(r10b);
            a.verw(si);
            a.setz(r11b);
            a.mov(esi, 0xff8);
            a.mov(ebx, 0x5555);
            a.lsl(ebx, esi);
            a.setz(r12b);
            a.hlt();
        });
        m.Run().Should().Be(StopReason.Halted);
        m.State->Gpr[0].Should().Be(0x0041_f100, "the upper bits of the limit come along with the rights");
        m.State->Gpr[2].Should().Be(0x12345);
        (m.State->Gpr[8] & 0xff).Should().Be(1);
        (m.State->Gpr[9] & 0xff).Should().Be(1);
        (m.State->Gpr[10] & 0xff).Should().Be(1);
        (m.State->Gpr[11] & 0xff).Should().Be(0, "read-only data is not writable");
        m.State->Gpr[3].Should().Be(0x5555);
        (m.State->Gpr[12] & 0xff).Should().Be(0);
    }

    [Fact]
    public void LTR_marks_the_TSS_busy_and_refuses_a_busy_one()
    {
        using var m = new BareMachine();
        m.Long();
        m.SetGate64(Fault.GP, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9000);
        m.Bytes(0x9000, 0xf4);
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(eax, (uint)BareMachine.Tss2Selector);
            a.ltr(ax);
            a.inc(rbx);
            a.ltr(ax);
        });
        m.Run();
        m.State->Gpr[3].Should().Be(1);
        m.Cpu.Segment(Seg.TR).Base.Should().Be(BareMachine.Tss2);
        (m.GetGdt(BareMachine.Tss2Selector) >> 40 & 0xf).Should().Be(SegmentRights.TssBusy32);
        (*m.Qword(m.State->Gpr[4])).Should().Be(BareMachine.Tss2Selector);
    }

    [Fact]
    public void LLDT_takes_an_LDT_descriptor_of_the_GDT_only()
    {
        using var m = new BareMachine();
        m.Long();
        m.SetGate64(Fault.GP, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9000);
        m.Bytes(0x9000, 0xf4);
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(eax, (uint)BareMachine.LdtSelector);
            a.lldt(ax);
            a.sldt(rbx);
            a.mov(eax, (uint)BareMachine.Tss2Selector);
            a.lldt(ax);
        });
        m.Run();
        m.State->Gpr[3].Should().Be(BareMachine.LdtSelector);
        m.Cpu.Segment(Seg.LDTR).Base.Should().Be(BareMachine.Ldt);
        (*m.Qword(m.State->Gpr[4])).Should().Be(BareMachine.Tss2Selector);
    }

    [Fact]
    public void LGDT_and_SGDT_move_ten_bytes_in_64_bit_mode()
    {
        using var m = new BareMachine();
        m.Long();
        m.Assemble(BareMachine.Code, a =>
        {
            a.sgdt(__[BareMachine.Data]);
            a.lidt(__[BareMachine.Data]);
            a.sidt(__[BareMachine.Data + 0x10]);
            a.hlt();
        });
        m.Run().Should().Be(StopReason.Halted);
        (*(ushort*)m.At(BareMachine.Data)).Should().Be(0x7f);
        (*(ulong*)m.At(BareMachine.Data + 2)).Should().Be(BareMachine.Gdt);
        m.State->Idtr.Base.Should().Be(BareMachine.Gdt);
        (*(ulong*)m.At(BareMachine.Data + 0x12)).Should().Be(BareMachine.Gdt);
    }

    [Fact]
    public void LFS_loads_segment_and_register()
    {
        using var m = new BareMachine();
        m.Long();
        *m.Qword(BareMachine.Data) = 0x1122334455667788;
        *m.Qword(BareMachine.Data + 8) = BareMachine.Data32;
        m.Assemble(BareMachine.Code, a =>
        {
            a.lfs(rax, __[BareMachine.Data]);
            a.hlt();
        });
        m.Run();
        m.State->Gpr[0].Should().Be(0x1122334455667788);
        m.Cpu.Segment(Seg.FS).Selector.Should().Be(BareMachine.Data32);
    }
}
