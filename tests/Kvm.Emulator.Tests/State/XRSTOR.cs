using Iced.Intel;
using Kvm.Emulator.Tests.Engine;
using Kvm.Emulator.Vector;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.State;

/// <summary>SDM vol 1, "Operation of XRSTOR", "Operation of XRSTORS".</summary>
public sealed unsafe class XRSTOR
{
    private const ulong area = StateGuest.Area, compacted = 1UL << 63;

    private static StateGuest Guest(ulong mask, bool supervisor = false, ulong offset = 0, int bits = 64, string model = "intel-skylake", ulong xcr0 = 0x207)
    {
        var g = new StateGuest(model, xcr0);
        g.Prepare(bits, a =>
        {
            a.mov(eax, (uint)mask);
            a.mov(edx, (uint)(mask >> 32));
            if (supervisor)
                a.xrstors(__[area + offset]);
            else
                a.xrstor(__[area + offset]);
        });
        new Span<byte>(g.At(offset), 0x1000 - (int)offset).Clear();
        g.Word16(offset) = 0x37f;
        g.Word32(offset + 24) = 0x1f80;
        return g;
    }

    /// <summary>What is refused, found with a processor as judge: standard format looks at 24 header bytes, the compacted one at all 64.</summary>
    [Theory]
    [InlineData(false, 0x207UL, 0UL, -1, true)]
    [InlineData(false, 8UL, 0UL, -1, false)]
    [InlineData(false, 1UL << 63, 0UL, -1, false)]
    [InlineData(false, 0UL, 1UL, -1, false)]
    [InlineData(false, 0UL, 0UL, 16, false)]
    [InlineData(false, 0UL, 0UL, 23, false)]
    [InlineData(false, 0UL, 0UL, 24, true)]
    [InlineData(false, 0UL, 0UL, 63, true)]
    [InlineData(false, 0x207UL, compacted | 0x207, -1, true)]
    [InlineData(false, 0UL, compacted, -1, true)]
    [InlineData(false, 1UL, compacted, -1, false)]
    [InlineData(false, 0UL, compacted | 8, -1, false)]
    [InlineData(false, 1UL << 63, compacted, -1, false)]
    [InlineData(false, 0UL, compacted, 16, false)]
    [InlineData(false, 0UL, compacted, 63, false)]
    [InlineData(true, 0UL, 0UL, -1, false)]
    [InlineData(true, 0x207UL, compacted | 0x207, -1, true)]
    [InlineData(true, 4UL, compacted | 3, -1, false)]
    [InlineData(true, 0UL, compacted | 0x100, -1, false)]
    [InlineData(true, 0UL, compacted | 7, 24, false)]
    public void Header(bool supervisor, ulong bv, ulong layout, int reservedByte, bool accepted)
    {
        using StateGuest g = Guest(0x207, supervisor);
        g.Quad(512) = bv;
        g.Quad(520) = layout;
        if (reservedByte >= 0)
            *g.At(512 + (ulong)reservedByte) = 1;
        g.Run().Should().Be(accepted ? -1 : Fault.GP);
        if (!accepted)
            (X87State.Opcode(g.State), g.Cpu.MxcsrValue, g.State->Pkru).Should().Be(((ushort)0x3a5, 0x1f81u, 0x1230u), "nothing is loaded");
    }

    /// <summary>XCR0, not the instruction mask, decides which components the header may name.</summary>
    [Theory]
    [InlineData(7, true)]
    [InlineData(3, false)]
    public void Header_names_only_enabled_components(int xcr0, bool accepted)
    {
        using StateGuest g = Guest(1, xcr0: (ulong)xcr0);
        g.Quad(512) = 4;
        g.Run().Should().Be(accepted ? -1 : Fault.GP);
    }

    /// <summary>MXCSR: from memory with SSE or AVX in the standard format whatever XSTATE_BV says; part of SSE in the compacted one. 0 = unchanged, 1 = memory, 2 = initial.</summary>
    [Theory]
    [InlineData(1UL, 7UL, 0, 0)]
    [InlineData(2UL, 0UL, 1, 2)]
    [InlineData(2UL, 2UL, 1, 1)]
    [InlineData(4UL, 0UL, 1, 0)]
    [InlineData(4UL, 7UL, 1, 0)]
    [InlineData(6UL, 4UL, 1, 2)]
    [InlineData(7UL, 3UL, 1, 1)]
    public void MXCSR(ulong mask, ulong bv, int standard, int compact)
    {
        foreach ((ulong layout, int expected) in new[] { (0UL, standard), (compacted | 7, compact) })
        {
            using StateGuest g = Guest(mask);
            g.Word32(24) = 0x1fa0;
            g.Quad(512) = bv;
            g.Quad(520) = layout;
            g.Run().Should().Be(-1);
            g.Cpu.MxcsrValue.Should().Be(expected switch { 0 => 0x1f81u, 1 => 0x1fa0u, _ => 0x1f80u });
        }
    }

    /// <summary>Reserved MXCSR bits fault where MXCSR would be loaded, and nothing is.</summary>
    [Theory]
    [InlineData(1UL, 1UL, 0UL, "intel-skylake", 0x10000u, -1)]
    [InlineData(2UL, 0UL, 0UL, "intel-skylake", 0x10000u, Fault.GP)]
    [InlineData(4UL, 0UL, 0UL, "intel-skylake", 0x10000u, Fault.GP)]
    [InlineData(7UL, 0UL, compacted, "intel-skylake", 0x10000u, -1)]
    [InlineData(7UL, 2UL, compacted | 7, "intel-skylake", 0x10000u, Fault.GP)]
    [InlineData(7UL, 4UL, compacted | 7, "intel-skylake", 0x10000u, -1)]
    [InlineData(2UL, 2UL, 0UL, "intel-skylake", 0x20000u, Fault.GP)]
    [InlineData(2UL, 2UL, 0UL, "amd-zen", 0x20000u, -1)]
    [InlineData(2UL, 2UL, 0UL, "amd-zen", 0x40000u, Fault.GP)]
    public void MXCSR_reserved_bits(ulong mask, ulong bv, ulong layout, string model, uint bits, int fault)
    {
        using StateGuest g = Guest(mask, model: model, xcr0: 7);
        g.Word32(24) |= bits;
        g.Quad(512) = bv;
        g.Quad(520) = layout;
        g.Run().Should().Be(fault);
        if (fault >= 0)
            (X87State.Opcode(g.State), *(ulong*)VectorUnit.Xmm(g.State, 0), g.Cpu.MxcsrValue).Should().Be(((ushort)0x3a5, 0x5c5d_5e5f_5859_5a5bUL, 0x1f81u));
    }

    /// <summary>RFBM[i] = 1: XSTATE_BV[i] loads or initializes; RFBM[i] = 0: unchanged.</summary>
    [Theory]
    [InlineData(0x207UL, 0x207UL)]
    [InlineData(0x207UL, 0UL)]
    [InlineData(5UL, 1UL)]
    [InlineData(2UL, 7UL)]
    [InlineData(0UL, 0x207UL)]
    public void Loads_initializes_or_leaves(ulong mask, ulong bv)
    {
        foreach (bool supervisor in new[] { false, true })
        {
            using StateGuest g = Guest(mask, supervisor);
            ulong layout = supervisor ? compacted | 0x207 : 0;
            new Span<byte>(g.At(32), 384).Fill(0x99);
            new Span<byte>(g.At(576), 256).Fill(0x66);
            g.Quad(supervisor ? 832UL : 0xa80) = 0x4c;
            g.Quad(512) = bv;
            g.Quad(520) = layout;
            g.Run().Should().Be(-1);
            Expect(X87State.St(g.State, 3)[5], 0, 0x99, 0, 0x36);
            Expect(VectorUnit.Xmm(g.State, 9)[1], 1, 0x99, 0, (9 * 16 + 1) ^ 0x5b);
            Expect(VectorUnit.YmmHigh(g.State, 9)[1], 2, 0x66, 0, (9 * 16 + 1) ^ 0xa7);
            Expect(g.State->Pkru, 9, 0x4c, 0, 0x1230);
            Expect(X87State.Control(g.State), 0, 0x37f, 0x37f, 0x27f);
        }
        void Expect(uint value, int component, uint loaded, uint initial, uint before)
            => value.Should().Be((mask >> component & 1) == 0 ? before : (bv >> component & 1) != 0 ? loaded : initial, $"component {component}");
    }

    /// <summary>What SAVE forms wrote, RSTOR forms read back.</summary>
    [Theory]
    [InlineData("XSAVE", 64)]
    [InlineData("XSAVEC", 64)]
    [InlineData("XSAVE", 32)]
    [InlineData("XSAVEC", 32)]
    [InlineData("XSAVES", 32)]
    public void Round_trip(string form, int bits)
    {
        using var g = new StateGuest(xcr0: 0x207);
        g.Prepare(bits, a =>
        {
            a.mov(eax, 0x207);
            a.xor(edx, edx);
            if (form == "XSAVE")
                a.xsave(__[area]);
            else if (form == "XSAVEC")
                a.xsavec(__[area]);
            else
                a.xsaves(__[area]);
            a.fninit();
            a.vzeroall();
            if (form == "XSAVES")
                a.xrstors(__[area]);
            else
                a.xrstor(__[area]);
        });
        byte[] before = new Span<byte>(g.State->Fx, 512).ToArray(), ymm = new Span<byte>(g.State->YmmHi, 256).ToArray();
        int registers = bits == 64 ? 16 : 8;
        new Span<byte>(g.At(512), 64).Clear();
        g.Run().Should().Be(-1);
        new Span<byte>(VectorUnit.Xmm(g.State, 0), registers * 16).SequenceEqual(before.AsSpan(160, registers * 16)).Should().BeTrue();
        new Span<byte>(g.State->YmmHi, registers * 16).SequenceEqual(ymm.AsSpan(0, registers * 16)).Should().BeTrue();
        new Span<byte>(g.State->Fx, 8).SequenceEqual(before.AsSpan(0, 8)).Should().BeTrue();
        new Span<byte>(g.State->Fx + 32, 128).SequenceEqual(before.AsSpan(32, 128)).Should().BeTrue();
        X87State.InstructionPointer(g.State).Should().Be(0x3344_5566, "32 bits without REX.W");
    }

    /// <summary>Outside 64-bit mode XMM8–XMM15 and YMM8–YMM15 are left alone, loaded or initialized.</summary>
    [Theory]
    [InlineData(7UL)]
    [InlineData(0UL)]
    public void Outside_64_bit_mode_eight_registers_stay(ulong bv)
    {
        using StateGuest g = Guest(7, bits: 32);
        g.Quad(512) = bv;
        g.Run().Should().Be(-1);
        VectorUnit.Xmm(g.State, 7)[3].Should().Be(0);
        VectorUnit.Xmm(g.State, 8)[3].Should().Be((8 * 16 + 3) ^ 0x5b);
        VectorUnit.YmmHigh(g.State, 7)[3].Should().Be(0);
        VectorUnit.YmmHigh(g.State, 8)[3].Should().Be((8 * 16 + 3) ^ 0xa7);
    }

    /// <summary>A fault in the last component leaves the first ones as they were.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_page_fault_loads_nothing(bool supervisor)
    {
        using StateGuest g = Guest(7, supervisor, offset: 0xd00);
        g.EndMemoryAfter(area);
        g.Quad(0xd00 + 512) = 7;
        g.Quad(0xd00 + 520) = supervisor ? compacted | 7 : 0;
        g.Run().Should().Be(Fault.PF);
        g.State->Cr2.Should().Be(area + 0x1000);
        (X87State.Opcode(g.State), VectorUnit.Xmm(g.State, 0)[0], g.State->YmmHi[0], g.Cpu.MxcsrValue).Should().Be(((ushort)0x3a5, (byte)0x5b, (byte)0xa7, 0x1f81u));
    }

    /// <summary>ES and B follow from the loaded flags and masks.</summary>
    [Theory]
    [InlineData(0x37f, 0x8080, 0)]
    [InlineData(0x37e, 0x0001, 0x8081)]
    [InlineData(0x37b, 0x3801, 0x3801)]
    public void Summary_bits_are_recomputed(int fcw, int fsw, int expected)
    {
        using StateGuest g = Guest(1);
        g.Word16(0) = (ushort)fcw;
        g.Word16(2) = (ushort)fsw;
        g.Quad(512) = 1;
        g.Run().Should().Be(-1);
        X87State.Status(g.State).Should().Be((ushort)expected);
    }

    /// <summary>PKRU takes effect with the next access: the data page has key 1; CPL 0 is not exempt on a user page.</summary>
    [Theory]
    [InlineData(0u, -1)]
    [InlineData(4u, Fault.PF)]
    [InlineData(8u, -1)]
    [InlineData(1u, -1)]
    public void PKRU_is_in_force_at_once(uint pkru, int fault)
    {
        const ulong data = 0x30_0000;
        using var g = new StateGuest(xcr0: 0x207);
        g.Prepare(64, a =>
        {
            a.mov(ebx, __dword_ptr[data]);
            a.mov(eax, 0x200);
            a.xor(edx, edx);
            a.xrstor(__[area]);
            a.mov(ebx, __dword_ptr[data]);
        });
        g.Cpu.WritePkru(0);
        g.State->Cr4 |= Cr4.PKE;
        *(ulong*)(g.Machine.Ram + GuestMachine.PageTables + 0x2008) |= 1UL << 59;
        // What delivers the exception is in the first 2 MiB: supervisor pages have no key.
        *(ulong*)(g.Machine.Ram + GuestMachine.PageTables + 0x2000) &= ~4UL;
        g.Cpu.Mmu.FlushAll();
        g.Cpu.UpdateMode();
        g.Quad(512) = 0x200;
        g.Word32(0xa80) = pkru;
        g.Word32(24) = 0x1f80;
        g.Run().Should().Be(fault);
        g.State->Pkru.Should().Be(pkru);
        if (fault == Fault.PF)
            (*(ulong*)(g.Machine.Ram + g.State->Gpr[4]), g.State->Cr2).Should().Be((0x21UL, data), "present, and a protection-key violation");
    }
}
