using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests;

/// <summary>Ports and their permission bitmap; SYSCALL, SYSENTER, SWAPGS and their ways back; INVPCID; self-modifying page tables from code.</summary>
public sealed unsafe class IoAndFastCallTests
{
    private const ulong Handler = 0x9000;

    private static BareMachine Long(int cpl = 0, CpuModel? model = null, CountingBus? bus = null)
    {
        var m = new BareMachine(model, bus: bus);
        m.Long(cpl);
        foreach (int vector in (int[])[Fault.GP, Fault.UD, Fault.PF])
            m.SetGate64(vector, SegmentRights.InterruptGate32, BareMachine.Code64, Handler + ((ulong)vector * 16));
        m.SetGate64(Fault.BP, SegmentRights.InterruptGate32, BareMachine.Code64, Handler, dpl: 3);
        for (ulong i = 0; i < 32; i++)
            m.Bytes(Handler + (i * 16), 0xf4);
        return m;
    }

    private static int Vector(BareMachine m) => (int)(m.State->Rip - Handler - 1) / 16;

    /// <summary>SDM vol 1, "I/O Permission Bit Map": every port of the access needs a clear bit.</summary>
    [Theory]
    [InlineData(0x3f8, 1, 0x3f8, false)]
    [InlineData(0x3f8, 1, 0x3f9, true)]
    [InlineData(0x3f8, 2, 0x3f9, false)]
    [InlineData(0x3f7, 4, 0x3fa, false)]
    [InlineData(0x3f7, 4, 0x3fb, true)]
    public void The_bitmap_is_consulted_at_CPL_above_IOPL(int port, int size, int denied, bool allowed)
    {
        var bus = new CountingBus();
        using BareMachine m = Long(cpl: 3, bus: bus);
        m.Cpu.Segment(Seg.TR).Limit = 0x67 + 0x200;
        *(ushort*)(m.At(BareMachine.Tss) + 0x66) = 0x68;
        m.At(BareMachine.Tss + 0x68 + (ulong)(denied >> 3))[0] |= (byte)(1 << (denied & 7));
        m.State->Gpr[2] = (ulong)port;
        m.Bytes(BareMachine.UserCode, size switch { 1 => [0xee, 0xcc], 2 => [0x66, 0xef, 0xcc], _ => [0xef, 0xcc] });
        m.Run();
        Vector(m).Should().Be(allowed ? 0 : Fault.GP);
        bus.Log.Count.Should().Be(allowed ? 1 : 0);
    }

    [Fact]
    public void A_bitmap_beyond_the_TSS_limit_denies()
    {
        using BareMachine m = Long(cpl: 3);
        *(ushort*)(m.At(BareMachine.Tss) + 0x66) = 0x68;
        m.Bytes(BareMachine.UserCode, 0xe4, 0x10);
        m.Run();
        Vector(m).Should().Be(Fault.GP);
    }

    [Fact]
    public void IOPL_3_needs_no_bitmap()
    {
        using BareMachine m = Long(cpl: 3);
        m.State->Rflags |= Flags.IOPL;
        m.Bytes(BareMachine.UserCode, 0xe4, 0x10, 0xcc);
        m.State->Gpr[0] = 0xffff_ff00;
        m.Run();
        Vector(m).Should().Be(0);
        m.State->Gpr[0].Should().Be(0xffff_ffff, "the open bus, 8 bits of it");
    }

    [Fact]
    public void IN_EAX_clears_the_upper_half_and_IN_AX_does_not()
    {
        var bus = new CountingBus();
        using BareMachine m = Long(bus: bus);
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(rax, -1);
            a.@in(eax, 0x12);
            a.mov(rbx, rax);
            a.mov(rax, -1);
            a.@in(ax, 0x12);
            a.hlt();
        });
        m.Run();
        m.State->Gpr[3].Should().Be(0x12);
        m.State->Gpr[0].Should().Be(0xffff_ffff_ffff_0012);
        bus.Log.Should().Equal("in 12 4", "in 12 2");
    }

    [Fact]
    public void REP_OUTS_and_INS_move_through_memory_in_the_direction_of_DF()
    {
        byte next = 1;
        var bus = new CountingBus { Port = _ => next++ };
        using BareMachine m = Long(bus: bus);
        m.Bytes(BareMachine.Data, 0x41, 0x42, 0x43);
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(esi, (uint)BareMachine.Data);
            a.mov(ecx, 3);
            a.mov(edx, 0xe9);
            a.rep.outsb();
            a.mov(edi, (uint)BareMachine.Data + 0x13);
            a.mov(ecx, 4);
            a.std();
            a.rep.insb();
            a.hlt();
        });
        m.Run().Should().Be(StopReason.Halted);
        bus.Log[..3].Should().Equal("out e9 1 41", "out e9 1 42", "out e9 1 43");
        new Span<byte>(m.At(BareMachine.Data + 0x10), 4).ToArray().Should().Equal(4, 3, 2, 1);
        m.State->Gpr[1].Should().Be(0);
        m.State->Gpr[7].Should().Be(BareMachine.Data + 0xf);
    }

    [Fact]
    public void INS_into_an_unmapped_page_does_not_read_the_port()
    {
        var bus = new CountingBus();
        using BareMachine m = Long(bus: bus);
        *m.Pte(0x1ff000) = 0;
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(edi, 0x1ff000);
            a.insb();
        });
        m.Run();
        Vector(m).Should().Be(Fault.PF);
        bus.Log.Should().BeEmpty();
    }

    [Fact]
    public void SYSCALL_and_SYSRET_round_trip()
    {
        using BareMachine m = Long(cpl: 3);
        m.Cpu.WriteMsr(Msr.IA32_STAR, 0x0023_0010UL << 32 | 0);
        m.SetGdt(0x10, BareMachine.Segment(0, uint.MaxValue, 0x209b));
        m.Cpu.WriteMsr(Msr.IA32_LSTAR, 0x8100);
        m.Cpu.WriteMsr(Msr.IA32_FMASK, Flags.IF | Flags.DF);
        m.Cpu.Rflags = Flags.DF | Flags.CF;
        m.Assemble(BareMachine.UserCode, a =>
        {
            a.syscall();
            a.int3();
        });
        m.Assemble(0x8100, a =>
        {
            a.pushfq();
            a.pop(rbx);
            a.mov(r8, r11);
            a.mov(r9d, cs);
            a.mov(r10d, ss);
            a.sysretq();
        });
        m.Run();
        Vector(m).Should().Be(0);
        (m.State->Gpr[3] & (Flags.DF | Flags.CF)).Should().Be(Flags.CF);
        (m.State->Gpr[8] & (Flags.DF | Flags.CF)).Should().Be(Flags.DF | Flags.CF);
        m.State->Gpr[1].Should().Be(BareMachine.UserCode + 2);
        m.State->Gpr[9].Should().Be(0x10);
        m.State->Gpr[10].Should().Be(0x18);
        (*m.Qword(m.State->Gpr[4] + 8)).Should().Be(0x33, "SYSRETQ: STAR[63:48] + 16, RPL 3");
        (*m.Qword(m.State->Gpr[4] + 32)).Should().Be(0x2b);
        (*m.Qword(m.State->Gpr[4] + 16) & Flags.DF).Should().Be(Flags.DF);
    }

    [Theory]
    [InlineData("intel-skylake", Fault.GP)]
    [InlineData("amd-zen", 0)]
    public void SYSRETQ_to_a_noncanonical_address_faults_in_the_kernel_on_Intel_only(string model, int vector)
    {
        using BareMachine m = Long(model: CpuModel.Load(model));
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(rcx, 0x8000_0000_0000);
            a.mov(r11d, 2);
            a.sysretq();
        });
        m.Run(3);
        m.State->Cpl.Should().Be(vector == 0 ? (byte)3 : (byte)0);
    }

    [Theory]
    [InlineData("intel-skylake", true)]
    [InlineData("amd-zen", false)]
    public void SYSENTER_in_long_mode_is_Intels(string model, bool works)
    {
        using BareMachine m = Long(cpl: 3, model: CpuModel.Load(model));
        m.Cpu.WriteMsr(Msr.IA32_SYSENTER_CS, BareMachine.Code64);
        m.Cpu.WriteMsr(Msr.IA32_SYSENTER_EIP, 0x8100);
        m.Cpu.WriteMsr(Msr.IA32_SYSENTER_ESP, BareMachine.Stack);
        m.Bytes(0x8100, 0xf4);
        m.Bytes(BareMachine.UserCode, 0x0f, 0x34);
        m.Run();
        if (works)
        {
            m.State->Rip.Should().Be(0x8101);
            m.State->Gpr[4].Should().Be(BareMachine.Stack);
            m.Cpu.Segment(Seg.SS).Selector.Should().Be(BareMachine.Code64 + 8);
        }
        else
        {
            Vector(m).Should().Be(Fault.UD);
        }
    }

    [Fact]
    public void SYSENTER_with_a_null_SYSENTER_CS_faults()
    {
        using BareMachine m = Long(cpl: 3);
        m.Bytes(BareMachine.UserCode, 0x0f, 0x34);
        m.Run();
        Vector(m).Should().Be(Fault.GP);
    }

    [Fact]
    public void SWAPGS_and_WRGSBASE()
    {
        using BareMachine m = Long();
        m.State->Cr4 |= Cr4.FSGSBASE;
        m.Cpu.WriteMsr(Msr.IA32_KERNEL_GS_BASE, 0xffff_8000_0000_0000);
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(rax, 0x1234_5678_9abc);
            a.wrgsbase(rax);
            a.swapgs();
            a.rdgsbase(rbx);
            a.rdgsbase(ecx);
            a.mov(rax, 0x8000_0000_0000_0000);
            a.wrfsbase(rax);
        });
        m.Run();
        m.State->Gpr[3].Should().Be(0xffff_8000_0000_0000);
        m.State->Gpr[1].Should().Be(0);
        m.State->KernelGsBase.Should().Be(0x1234_5678_9abc);
        Vector(m).Should().Be(Fault.GP);
    }

    [Fact]
    public void WRGSBASE_needs_CR4_FSGSBASE()
    {
        using BareMachine m = Long();
        m.Assemble(BareMachine.Code, a => a.wrgsbase(rax));
        m.Run();
        Vector(m).Should().Be(Fault.UD);
    }

    [Fact]
    public void Code_that_edits_its_page_tables_sees_the_old_page_until_INVLPG()
    {
        using BareMachine m = Long();
        *m.Qword(0x20000) = 0x2222;
        *m.Qword(BareMachine.Data) = 0x1111;
        ulong pte = BareMachine.Pt + ((BareMachine.Data >> 12) * 8);
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(rax, __qword_ptr[BareMachine.Data]);
            a.mov(__qword_ptr[pte], 0x20007);
            a.mov(rbx, __qword_ptr[BareMachine.Data]);
            a.invlpg(__[BareMachine.Data]);
            a.mov(rcx, __qword_ptr[BareMachine.Data]);
            a.hlt();
        });
        m.Run().Should().Be(StopReason.Halted);
        m.State->Gpr[0].Should().Be(0x1111);
        m.State->Gpr[3].Should().Be(0x1111, "the translation is cached");
        m.State->Gpr[1].Should().Be(0x2222);
    }

    [Theory]
    [InlineData(0u, 0UL, BareMachine.Data, 0x2222UL)]
    [InlineData(0u, 0UL, 0x1000UL, 0x1111UL)]
    [InlineData(1u, 0UL, 0UL, 0x2222UL)]
    [InlineData(1u, 3UL, 0UL, 0x1111UL)]
    [InlineData(2u, 0UL, 0UL, 0x2222UL)]
    [InlineData(3u, 0UL, 0UL, 0x2222UL)]
    public void INVPCID(uint type, ulong pcid, ulong linear, ulong seen)
    {
        using BareMachine m = Long();
        m.State->Cr4 |= Cr4.PCIDE;
        m.Cpu.UpdateMode();
        *m.Qword(0x20000) = 0x2222;
        *m.Qword(BareMachine.Data) = 0x1111;
        *m.Qword(0xe000) = pcid;
        *m.Qword(0xe008) = linear;
        ulong pte = BareMachine.Pt + ((BareMachine.Data >> 12) * 8);
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(rax, __qword_ptr[BareMachine.Data]);
            a.mov(__qword_ptr[pte], 0x20007);
            a.mov(edx, type);
            a.invpcid(rdx, __[0xe000]);
            a.mov(rbx, __qword_ptr[BareMachine.Data]);
            a.hlt();
        });
        m.Run().Should().Be(StopReason.Halted);
        m.State->Gpr[3].Should().Be(seen);
    }

    [Theory]
    [InlineData(4u, 0UL)]
    [InlineData(1u, 0x1000UL)]
    public void INVPCID_faults_for_a_bad_type_and_reserved_bits(uint type, ulong pcid)
    {
        using BareMachine m = Long();
        *m.Qword(0xe000) = pcid;
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(edx, type);
            a.invpcid(rdx, __[0xe000]);
        });
        m.Run();
        Vector(m).Should().Be(Fault.GP);
    }

    [Fact]
    public void STAC_lifts_SMAP_and_CLAC_restores_it()
    {
        using BareMachine m = Long();
        // The kernel's own pages must be supervisor pages now.
        for (ulong page = 0; page < 0x1ff; page++)
            m.Qword(BareMachine.Pt)[page] = page << 12 | (page == BareMachine.Data >> 12 ? 7UL : 3UL);
        m.State->Cr4 |= Cr4.SMAP;
        m.Cpu.UpdateMode();
        m.Assemble(BareMachine.Code, a =>
        {
            a.stac();
            a.mov(rax, __qword_ptr[BareMachine.Data]);
            a.inc(rbx);
            a.clac();
            a.mov(rax, __qword_ptr[BareMachine.Data]);
            a.inc(rbx);
        });
        m.Run();
        Vector(m).Should().Be(Fault.PF);
        m.State->Gpr[3].Should().Be(1);
        (*m.Qword(m.State->Gpr[4])).Should().Be(1);
    }
}
