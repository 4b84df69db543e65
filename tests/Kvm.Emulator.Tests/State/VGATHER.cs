using Iced.Intel;
using Kvm.Emulator.Tests.Engine;
using Kvm.Emulator.Vector;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.State;

/// <summary>VGATHER, VPGATHER and masked moves: what a comparison of whole instructions does not show.</summary>
public sealed unsafe class VGATHER
{
    private const ulong area = StateGuest.Area;

    private static StateGuest Gather(string model, Action<Assembler> program, int bits = 64)
    {
        var g = new StateGuest(model);
        g.Prepare(bits, program);
        for (int i = 0; i < 0x400; i++)
            g.Word32((ulong)i * 4) = 0xd000_0000 + (uint)i;
        if (bits == 64)
            g.EndMemoryAfter(area);
        return g;
    }

    private static void Set(StateGuest g, int register, params uint[] elements)
    {
        for (int i = 0; i < elements.Length; i++)
            *(uint*)MaskedMoves.Part(g.State, register, i * 4) = elements[i];
    }

    private static uint[] Get(StateGuest g, int register, int elements) => [.. Enumerable.Range(0, elements).Select(i => *(uint*)MaskedMoves.Part(g.State, register, i * 4))];

    /// <summary>A fault in the middle: done elements are in the destination and their mask elements clear. Intel spreads the rest of the mask first, AMD does not.</summary>
    [Theory]
    [InlineData("bochs-skylake-x", 0xffff_ffffu, 0u)]
    [InlineData("amd-zen", 0x8000_0001u, 0x7fff_ffffu)]
    public void A_fault_keeps_what_is_done(string model, uint selected, uint unselected)
    {
        using StateGuest g = Gather(model, a => a.vgatherdps(ymm0, __dword_ptr[rbx + ymm1 * 4], ymm2));
        g.State->Gpr[3] = area;
        Set(g, 0, 1, 2, 3, 4, 5, 6, 7, 8);
        Set(g, 1, 5, 6, 7, 0x400, 9, 10, 11, 12);
        Set(g, 2, 0x8000_0001, 0x7fff_ffff, 0x8000_0001, 0x8000_0001, 0x8000_0001, 0x7fff_ffff, 0x8000_0001, 0x8000_0001);
        g.Run().Should().Be(Fault.PF);
        g.State->Cr2.Should().Be(area + 0x1000);
        Get(g, 0, 8).Should().Equal(0xd000_0005, 2, 0xd000_0007, 4, 5, 6, 7, 8);
        Get(g, 2, 8).Should().Equal(0, 0, 0, selected, selected, unselected, selected, selected);
        // The page comes, the instruction goes on.
        Set(g, 1, 5, 6, 7, 0x3ff, 9, 10, 11, 12);
        g.State->Rip = GuestMachine.CodeBase;
        g.State->Activity = ActivityState.Active;
        g.Run().Should().Be(-1);
        Get(g, 0, 8).Should().Equal(0xd000_0005, 2, 0xd000_0007, 0xd000_03ff, 0xd000_0009, 6, 0xd000_000b, 0xd000_000c);
        Get(g, 2, 8).Should().OnlyContain(x => x == 0);
    }

    /// <summary>The destination's upper bits become zero, the whole mask too.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    public void Upper_bits(int form)
    {
        using StateGuest g = Gather("amd-zen", a =>
        {
            switch (form)
            {
                case 0: a.vpgatherqd(xmm0, __dword_ptr[rbx + xmm1], xmm2); break;
                case 1: a.vpgatherqd(xmm0, __dword_ptr[rbx + ymm1], xmm2); break;
                default: a.vgatherdpd(xmm0, __qword_ptr[rbx + xmm1], xmm2); break;
            }
        });
        g.State->Gpr[3] = area;
        Set(g, 1, 0, 0, 0, 0, 0, 0, 0, 0);
        Set(g, 2, uint.MaxValue, uint.MaxValue, uint.MaxValue, uint.MaxValue, 9, 9, 9, 9);
        g.Run().Should().Be(-1);
        uint[] expected = form switch
        {
            0 => [0xd000_0000, 0xd000_0000, 0, 0, 0, 0, 0, 0],
            1 => [0xd000_0000, 0xd000_0000, 0xd000_0000, 0xd000_0000, 0, 0, 0, 0],
            _ => [0xd000_0000, 0xd000_0001, 0xd000_0000, 0xd000_0001, 0, 0, 0, 0],
        };
        Get(g, 0, 8).Should().Equal(expected);
        Get(g, 2, 8).Should().OnlyContain(x => x == 0);
    }

    /// <summary>Indices are signed; with 32-bit addresses the sum wraps there; 64-bit indices are cut to the address size.</summary>
    [Fact]
    public void Addresses()
    {
        using StateGuest g = Gather("amd-zen", a =>
        {
            a.vpgatherdd(xmm0, __dword_ptr[rbx + xmm1 * 8 + 0x10], xmm2);
            a.vpgatherqd(xmm3, __dword_ptr[ebx + xmm4 * 1], xmm5);
        });
        g.State->Gpr[3] = area + 0x40;
        Set(g, 1, unchecked((uint)-4), 0, 1, unchecked((uint)-1));
        Set(g, 2, uint.MaxValue, uint.MaxValue, uint.MaxValue, uint.MaxValue);
        Set(g, 4, unchecked((uint)-8), 0x1234, 8, 0x8000_0000);
        Set(g, 5, uint.MaxValue, uint.MaxValue, 0, 0);
        g.Run().Should().Be(-1);
        Get(g, 0, 4).Should().Equal(0xd000_000c, 0xd000_0014, 0xd000_0016, 0xd000_0012);
        Get(g, 3, 4).Should().Equal(0xd000_000e, 0xd000_0012, 0, 0);
    }

    /// <summary>Destination, index and mask must be three registers: VEX.0F38 92 /r vgatherdps with bytes that name one twice.</summary>
    [Theory]
    [InlineData(0, 1, 2, -1)]
    [InlineData(0, 0, 2, Fault.UD)]
    [InlineData(0, 1, 0, Fault.UD)]
    [InlineData(0, 2, 2, Fault.UD)]
    public void Registers_must_differ(int destination, int index, int mask, int fault)
    {
        using StateGuest g = Gather("intel-skylake", a => a.db(0xc4, 0xe2, (byte)(0x79 & ~(mask << 3)), 0x92, (byte)(0x04 | destination << 3), (byte)(index << 3 | 3)));
        g.State->Gpr[3] = area;
        Set(g, 1, 0, 0, 0, 0);
        g.Run().Should().Be(fault);
    }

    [Theory]
    [InlineData(3UL, 0UL, Fault.UD)]
    [InlineData(7UL, Cr0.TS, Fault.NM)]
    public void Availability(ulong xcr0, ulong cr0, int fault)
    {
        foreach (Action<Assembler> program in new Action<Assembler>[]
        {
            a => a.vgatherdps(xmm0, __dword_ptr[rbx + xmm1 * 4], xmm2),
            a => a.vmaskmovps(xmm0, xmm1, __xmmword_ptr[rbx]),
            a => a.vpmaskmovq(__ymmword_ptr[rbx], ymm0, ymm1),
            a => a.vmaskmovdqu(xmm0, xmm1),
        })
        {
            using StateGuest g = Gather("amd-zen", program);
            g.State->Xcr0 = xcr0;
            g.State->Cr0 |= cr0;
            g.Run().Should().Be(fault);
        }
    }

    /// <summary>MASKMOVDQU uses DS unless overridden, and rDI in the address size.</summary>
    [Fact]
    public void MASKMOVDQU_address()
    {
        using StateGuest g = Gather("amd-zen", a =>
        {
            a.db(0x64, 0x67, 0x66, 0x0f, 0xf7, 0xc1);
        });
        g.Machine.Segment(Seg.FS).Base = 0x100;
        g.State->Gpr[7] = 0xffff_ffff_0000_0000 | area;
        Set(g, 0, 0x11223344, 0x55667788, 0, 0);
        Set(g, 1, 0x80000000, 0x00800080, 0, 0);
        g.Run().Should().Be(-1);
        (g.Word32(0x100), g.Word32(0x104), g.Word32(0x108)).Should().Be((0x11000040u, 0xd0660088u, 0xd0000042u));
    }

    /// <summary>MXCSR.MM lets computations have misaligned operands on AMD's processors; aligned moves fault all the same.</summary>
    [Theory]
    [InlineData(false, 0, Fault.GP)]
    [InlineData(true, 0, -1)]
    [InlineData(true, 1, Fault.GP)]
    [InlineData(true, 2, Fault.GP)]
    [InlineData(false, 3, -1)]
    public void Misaligned_exception_mask(bool mask, int form, int fault)
    {
        using StateGuest g = Gather("amd-zen", a =>
        {
            switch (form)
            {
                case 0: a.paddd(xmm0, __xmmword_ptr[rbx]); break;
                case 1: a.movaps(xmm0, __xmmword_ptr[rbx]); break;
                case 2: a.movdqa(__xmmword_ptr[rbx], xmm0); break;
                default: a.movups(xmm0, __xmmword_ptr[rbx]); break;
            }
        });
        g.State->Gpr[3] = area + 4;
        Set(g, 0, 1, 1, 1, 1);
        g.Cpu.MxcsrValue = 0x1f80 | (mask ? 0x2_0000u : 0);
        g.Run().Should().Be(fault);
        if (fault < 0 && form == 0)
            Get(g, 0, 4).Should().Equal(0xd000_0002, 0xd000_0003, 0xd000_0004, 0xd000_0005);
    }
}
