using Iced.Intel;
using Kvm.Emulator.Tests.Engine;
using Kvm.Emulator.Vector;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.State;

/// <summary>SDM vol 2A, FXSAVE, FXRSTOR; APM vol 5.</summary>
public sealed unsafe class FXSAVE
{
    private const ulong area = StateGuest.Area;

    private static StateGuest Save(string model = "intel-skylake", int bits = 64, bool wide = false, ulong offset = 0)
    {
        var g = new StateGuest(model);
        g.Prepare(bits, a =>
        {
            if (wide)
                a.fxsave64(__[area + offset]);
            else
                a.fxsave(__[area + offset]);
        });
        g.FillArea(0xcc);
        return g;
    }

    private static StateGuest Load(string model = "intel-skylake", int bits = 64, bool wide = false, ulong offset = 0)
    {
        var g = new StateGuest(model);
        g.Prepare(bits, a =>
        {
            if (wide)
                a.fxrstor64(__[area + offset]);
            else
                a.fxrstor(__[area + offset]);
        });
        new Span<byte>(g.At(offset), 512).Fill(0x3d);
        g.Word32(offset + 24) = 0x1fa0;
        return g;
    }

    /// <summary>Which bytes are written: everything but bytes 416–511, and XMM8–XMM15 in 64-bit mode only.</summary>
    [Theory]
    [InlineData(64, 416)]
    [InlineData(32, 288)]
    [InlineData(16, 288)]
    public void Layout(int bits, int end)
    {
        using var g = new StateGuest("bochs-skylake-x");
        g.Prepare(bits, a =>
        {
            if (bits == 16)
                a.fxsave(__[0xe000]);
            else
                a.fxsave(__[area]);
        });
        byte* image = bits == 16 ? g.Machine.Ram + 0xe000 : g.At();
        new Span<byte>(image, 512).Fill(0xcc);
        g.Run().Should().Be(-1);
        new Span<byte>(image + end, 512 - end).ContainsAnyExcept((byte)0xcc).Should().BeFalse();
        (*(ulong*)image).Should().Be(0x03a5_005a_2800_027f);
        (*(ulong*)(image + 8)).Should().Be(0x0077_3344_5566);
        (*(ulong*)(image + 16)).Should().Be(0x0088_4455_6677);
        new Span<byte>(image + 32, 128).SequenceEqual(new Span<byte>(X87State.St(g.State, 0), 128)).Should().BeTrue();
        new Span<byte>(image + 160, end - 160).SequenceEqual(new Span<byte>(VectorUnit.Xmm(g.State, 0), end - 160)).Should().BeTrue();
    }

    /// <summary>The mask is the processor's constant, not what a host instruction left in the state block.</summary>
    [Theory]
    [InlineData("intel-skylake", 0xffffu)]
    [InlineData("amd-zen", 0x2ffffu)]
    [InlineData("minimal-x86-64", 0xffffu)]
    public void MXCSR_MASK(string model, uint mask)
    {
        using var g = new StateGuest(model);
        g.Prepare(64, a =>
        {
            a.fninit();
            a.fld1();
            a.fadd(st0, st0);
            a.fxsave(__[area]);
        });
        *(uint*)(g.State->Fx + 28) = 0x12345;
        g.Run().Should().Be(-1);
        g.Word32(24).Should().Be(0x1f81);
        g.Word32(28).Should().Be(mask);
    }

    /// <summary>
    /// AMD saves the error pointers only while an exception is pending: zeros otherwise where CPUID says that they are always saved and restored (found with a
    /// processor as judge), nothing at all where it does not.
    /// </summary>
    [Theory]
    [InlineData("intel-skylake", 0, 0x1122_3344_5566UL)]
    [InlineData("amd-zen", 0, 0UL)]
    [InlineData("bochs-ryzen", 0, 0xcccc_cccc_cccc_ccccUL)]
    [InlineData("intel-skylake", 1, 0x1122_3344_5566UL)]
    [InlineData("amd-zen", 1, 0x1122_3344_5566UL)]
    [InlineData("bochs-ryzen", 1, 0x1122_3344_5566UL)]
    public void Error_pointers_are_saved(string model, int pending, ulong expected)
    {
        using StateGuest g = Save(model, wide: true);
        if (pending != 0)
        {
            X87State.SetControl(g.State, 0x27e);
            X87State.SetStatus(g.State, 1);
        }
        g.Run().Should().Be(-1);
        g.Quad(8).Should().Be(expected);
        g.Word16(6).Should().Be(expected == 0x1122_3344_5566 ? (ushort)0x3a5 : (ushort)expected);
    }

    [Theory]
    [InlineData("intel-skylake", 0, true)]
    [InlineData("amd-zen", 0, true)]
    [InlineData("bochs-ryzen", 0, false)]
    [InlineData("bochs-ryzen", 1, true)]
    public void Error_pointers_are_restored(string model, int pending, bool restored)
    {
        using StateGuest g = Load(model, wide: true);
        g.Word16(0) = 0x37e;
        g.Word16(2) = (ushort)pending;
        g.Run().Should().Be(-1);
        X87State.InstructionPointer(g.State).Should().Be(restored ? 0x3d3d_3d3d_3d3d_3d3dUL : 0x1122_3344_5566UL);
        X87State.Opcode(g.State).Should().Be(restored ? (ushort)0x53d : (ushort)0x3a5);
    }

    /// <summary>Reserved bits of FCW and FOP read back clear, ES and B follow from flags and masks, the bytes behind each register are zero.</summary>
    [Fact]
    public void Restored_values_are_what_the_registers_can_hold()
    {
        using StateGuest g = Load("bochs-skylake-x");
        g.Word16(0) = 0xffff;
        g.Word16(2) = 0xb8bf;
        g.Run().Should().Be(-1);
        CpuState* s = g.State;
        X87State.Control(s).Should().Be(0x1f7f);
        X87State.Status(s).Should().Be(0x383f);
        X87State.Tags(s).Should().Be(0x3d);
        X87State.Opcode(s).Should().Be(0x53d);
        (s->FxCs, s->FxDs).Should().Be(((ushort)0x3d3d, (ushort)0x3d3d));
        X87State.InstructionPointer(s).Should().Be(0x3d3d_3d3d);
        (*(ulong*)(X87State.St(s, 4) + 8)).Should().Be(0x3d3d);
        g.Cpu.MxcsrValue.Should().Be(0x1fa0);
        VectorUnit.Xmm(s, 15)[0].Should().Be(0x3d);
    }

    /// <summary>EFER.FFXSR: at CPL 0 in 64-bit mode without XMM registers; MXCSR is still saved and loaded.</summary>
    [Theory]
    [InlineData(64, true, false)]
    [InlineData(32, true, true)]
    [InlineData(64, false, true)]
    public void FFXSR(int bits, bool set, bool withXmm)
    {
        using StateGuest save = Save("amd-zen", bits), load = Load("amd-zen", bits);
        foreach (StateGuest g in (StateGuest[])[save, load])
        {
            if (set)
                g.State->Efer |= Efer.FFXSR;
            g.Run().Should().Be(-1);
        }
        (*save.At(160) != 0xcc).Should().Be(withXmm);
        save.Word32(24).Should().Be(0x1f81);
        (VectorUnit.Xmm(load.State, 0)[0] == 0x3d).Should().Be(withXmm);
        load.Cpu.MxcsrValue.Should().Be(0x1fa0);
    }

    [Fact]
    public void FFXSR_does_not_apply_at_CPL_3()
    {
        using StateGuest g = Save("amd-zen");
        g.State->Efer |= Efer.FFXSR;
        XSAVE.EnterUser(g.Machine);
        g.Run().Should().Be(Fault.GP);
        XSAVE.FaultedAtHalt(g.Machine).Should().BeTrue();
        (*g.At(160)).Should().NotBe(0xcc);
    }

    /// <summary>Without CR4.OSFXSR neither XMM registers nor MXCSR are touched.</summary>
    [Fact]
    public void Without_OSFXSR()
    {
        using StateGuest save = Save(), load = Load();
        load.Word32(24) = 0xffff_ffff;
        foreach (StateGuest g in (StateGuest[])[save, load])
        {
            g.State->Cr4 &= ~Cr4.OSFXSR;
            g.Run().Should().Be(-1);
        }
        (save.Word32(24), save.Quad(160)).Should().Be((0xcccc_ccccu, 0xcccc_cccc_cccc_ccccUL));
        (load.Cpu.MxcsrValue, VectorUnit.Xmm(load.State, 0)[0], X87State.Tags(load.State)).Should().Be((0x1f81u, (byte)0x5b, (byte)0x3d));
    }

    [Flags]
    public enum Wrong { Nothing = 0, Emulation = 1, TaskSwitched = 2, Alignment = 4, Page = 8 }

    /// <summary>CR0.EM is #UD on Intel's processors and #NM on AMD's; then CR0.TS, alignment to 16, the page.</summary>
    [Theory]
    [InlineData("intel-skylake", Wrong.Nothing, -1)]
    [InlineData("intel-skylake", Wrong.Page, Fault.PF)]
    [InlineData("intel-skylake", Wrong.Page | Wrong.Alignment, Fault.GP)]
    [InlineData("intel-skylake", Wrong.Page | Wrong.Alignment | Wrong.TaskSwitched, Fault.NM)]
    [InlineData("intel-skylake", Wrong.Alignment | Wrong.Emulation | Wrong.TaskSwitched, Fault.UD)]
    [InlineData("amd-zen", Wrong.Emulation | Wrong.Alignment, Fault.NM)]
    [InlineData("amd-zen", Wrong.TaskSwitched, Fault.NM)]
    public void Faults(string model, Wrong wrong, int fault)
    {
        ulong offset = ((wrong & Wrong.Page) != 0 ? 0xf00UL : 0) + ((wrong & Wrong.Alignment) != 0 ? 8UL : 0);
        using StateGuest save = Save(model, offset: offset), load = Load(model, offset: offset);
        foreach (StateGuest g in (StateGuest[])[save, load])
        {
            if ((wrong & Wrong.Page) != 0)
                g.EndMemoryAfter(area);
            g.State->Cr0 |= ((wrong & Wrong.Emulation) != 0 ? Cr0.EM : 0) | ((wrong & Wrong.TaskSwitched) != 0 ? Cr0.TS : 0);
            g.Run().Should().Be(fault);
        }
        if (fault < 0)
            return;
        new Span<byte>(save.At(), 0x1000).ContainsAnyExcept((byte)0xcc).Should().BeFalse("nothing is written");
        (load.Cpu.MxcsrValue, X87State.Tags(load.State)).Should().Be((0x1f81u, (byte)0x5a), "nothing is loaded");
    }

    [Theory]
    [InlineData("intel-skylake", 0x1_0000u, Fault.GP)]
    [InlineData("intel-skylake", 0x2_0000u, Fault.GP)]
    [InlineData("amd-zen", 0x2_0000u, -1)]
    [InlineData("amd-zen", 0x1_0000u, Fault.GP)]
    public void Reserved_MXCSR_bits(string model, uint bits, int fault)
    {
        using StateGuest g = Load(model);
        g.Word32(24) |= bits;
        g.Run().Should().Be(fault);
        X87State.Tags(g.State).Should().Be(fault < 0 ? (byte)0x3d : (byte)0x5a);
        g.Cpu.MxcsrValue.Should().Be(fault < 0 ? 0x1fa0 | bits : 0x1f81);
    }
}
