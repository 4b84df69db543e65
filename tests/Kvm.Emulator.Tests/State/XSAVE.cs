using Iced.Intel;
using Kvm.Emulator.Tests.Engine;
using Kvm.Emulator.Vector;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.State;

/// <summary>SDM vol 1, "Operation of XSAVE", "… XSAVEOPT", "… XSAVEC", "… XSAVES"; XGETBV and XSETBV.</summary>
public sealed unsafe class XSAVE
{
    internal const ulong Area = StateGuest.Area;

    private static Action<Assembler> Save(string form, ulong mask, ulong offset = 0) => a =>
    {
        a.mov(eax, (uint)mask);
        a.mov(edx, (uint)(mask >> 32));
        AssemblerMemoryOperand area = __[Area + offset];
        switch (form)
        {
            case "XSAVE": a.xsave(area); break;
            case "XSAVE64": a.xsave64(area); break;
            case "XSAVEOPT": a.xsaveopt(area); break;
            case "XSAVEOPT64": a.xsaveopt64(area); break;
            case "XSAVEC": a.xsavec(area); break;
            case "XSAVEC64": a.xsavec64(area); break;
            case "XSAVES": a.xsaves(area); break;
            case "XSAVES64": a.xsaves64(area); break;
            case "XRSTOR": a.xrstor(area); break;
            case "XRSTORS": a.xrstors(area); break;
            default: a.xrstor64(area); break;
        }
    };

    public static TheoryData<string> Forms => ["XSAVE", "XSAVE64", "XSAVEOPT", "XSAVEOPT64", "XSAVEC", "XSAVEC64", "XSAVES", "XSAVES64"];

    /// <summary>What is saved is the logical AND of XCR0 and EDX:EAX; everything else in the area stays.</summary>
    [Theory]
    [InlineData(0x207, 0UL)]
    [InlineData(0x207, 1UL)]
    [InlineData(0x207, 2UL)]
    [InlineData(0x207, 4UL)]
    [InlineData(0x207, 0x200UL)]
    [InlineData(0x207, 0x8000_0000_ffff_ffffUL)]
    [InlineData(3, 7UL)]
    [InlineData(1, 7UL)]
    [InlineData(0x201, 0x207UL)]
    public void Stores_the_components_that_are_requested_and_enabled(int xcr0, ulong mask)
    {
        using var g = new StateGuest(xcr0: (ulong)xcr0);
        g.Prepare(64, Save("XSAVE64", mask));
        g.FillArea(0xcc);
        new Span<byte>(g.At(512), 64).Clear();
        g.Quad(512) = 0x8000_0000_0000_0030;
        g.Run().Should().Be(-1);
        ulong rfbm = mask & (ulong)xcr0;
        g.Quad(512).Should().Be(0x8000_0000_0000_0030 | rfbm, "every requested component is in use, the bits of others stay");
        Stored(g, 0, 2).Should().Be((rfbm & 1) != 0);
        Stored(g, 32, 128).Should().Be((rfbm & 1) != 0);
        Stored(g, 24, 8).Should().Be((rfbm & 6) != 0, "MXCSR and its mask go with SSE and with AVX");
        Stored(g, 160, 256).Should().Be((rfbm & 2) != 0);
        Stored(g, 576, 256).Should().Be((rfbm & 4) != 0);
        Stored(g, 0xa80, 8).Should().Be((rfbm & 0x200) != 0);
        Stored(g, 416, 96).Should().BeFalse("software's bytes");
        Stored(g, 832, 0xa80 - 832).Should().BeFalse();
        if ((rfbm & 2) != 0)
            new Span<byte>(g.At(160), 256).SequenceEqual(new Span<byte>(VectorUnit.Xmm(g.State, 0), 256)).Should().BeTrue();
        if ((rfbm & 4) != 0)
            new Span<byte>(g.At(576), 256).SequenceEqual(new Span<byte>(g.State->YmmHi, 256)).Should().BeTrue();
        if ((rfbm & 0x200) != 0)
            g.Quad(0xa80).Should().Be(0x1230);
    }

    /// <summary>Bytes other than the filler.</summary>
    private static bool Stored(StateGuest g, ulong offset, int size) => new Span<byte>(g.At(offset), size).ContainsAnyExcept((byte)0xcc);

    /// <summary>The pointers: 64 bits each with REX.W, 32 bits and a selector without. Selectors are zero on processors that deprecate them.</summary>
    [Theory]
    [InlineData("XSAVE", "intel-skylake", 0x3344_5566UL, 0x4455_6677UL)]
    [InlineData("XSAVE64", "intel-skylake", 0x1122_3344_5566UL, 0x2233_4455_6677UL)]
    [InlineData("XSAVE", "bochs-skylake-x", 0x0077_3344_5566UL, 0x0088_4455_6677UL)]
    [InlineData("XSAVE64", "bochs-skylake-x", 0x1122_3344_5566UL, 0x2233_4455_6677UL)]
    public void Stores_x87_pointers_by_REX_W(string form, string model, ulong instruction, ulong data)
    {
        using var g = new StateGuest(model);
        g.Prepare(64, Save(form, 1)).Run().Should().Be(-1);
        g.Quad(8).Should().Be(instruction);
        g.Quad(16).Should().Be(data);
        g.Quad(0).Should().Be(0x03a5_005a_2800_027f, "FCW, FSW, FTW in a byte, FOP");
    }

    /// <summary>XSTATE_BV[i] tells whether component i is in use; XSAVE stores it anyway, the others do not.</summary>
    [Theory]
    [InlineData("XSAVE64", true)]
    [InlineData("XSAVEOPT64", false)]
    [InlineData("XSAVEC64", false)]
    [InlineData("XSAVES64", false)]
    public void Components_in_their_initial_configuration(string form, bool written)
    {
        using var g = new StateGuest(xcr0: 0x207);
        g.Prepare(64, Save(form, 0x207));
        X87State.Clear(g.State);
        new Span<byte>(VectorUnit.Xmm(g.State, 0), 256).Clear();
        new Span<byte>(g.State->YmmHi, 256).Clear();
        g.Cpu.MxcsrValue = 0x1f80;
        g.Cpu.WritePkru(0);
        g.FillArea(0xcc);
        new Span<byte>(g.At(512), 64).Clear();
        g.Run().Should().Be(-1);
        g.Quad(512).Should().Be(0);
        Stored(g, 0, 24).Should().Be(written);
        Stored(g, 160, 256).Should().Be(written);
        Stored(g, 576, 256).Should().Be(written);
        Stored(g, 24, 8).Should().Be(form is "XSAVE64" or "XSAVEOPT64", "the standard format's MXCSR is outside the init optimization");
    }

    [Theory]
    [InlineData("intel-skylake", 0)]
    [InlineData("amd-zen", 1)]
    public void XGETBV_1_is_what_is_in_use(string model, int x87)
    {
        using var g = new StateGuest(model);
        g.Prepare(64, a =>
        {
            a.mov(ecx, 1);
            a.xgetbv();
        });
        X87State.Clear(g.State);
        new Span<byte>(VectorUnit.Xmm(g.State, 0), 256).Clear();
        new Span<byte>(g.State->YmmHi, 256).Clear();
        g.Cpu.MxcsrValue = 0x1f80;
        g.Run().Should().Be(-1);
        g.State->Gpr[0].Should().Be((ulong)x87, "AMD's processors always count x87");
        g.State->Gpr[2].Should().Be(0);
    }

    /// <summary>One bit that differs from the initial configuration puts a component in use.</summary>
    [Theory]
    [InlineData(0, 1UL)]
    [InlineData(1, 1UL)]
    [InlineData(2, 2UL)]
    [InlineData(3, 2UL)]
    [InlineData(4, 4UL)]
    [InlineData(5, 0x200UL)]
    public void XGETBV_1_sees_every_part(int part, ulong expected)
    {
        using var g = new StateGuest(xcr0: 0x207);
        g.Prepare(64, a =>
        {
            a.mov(ecx, 1);
            a.xgetbv();
        });
        X87State.Clear(g.State);
        new Span<byte>(VectorUnit.Xmm(g.State, 0), 256).Clear();
        new Span<byte>(g.State->YmmHi, 256).Clear();
        g.Cpu.MxcsrValue = 0x1f80;
        g.Cpu.WritePkru(0);
        switch (part)
        {
            case 0: X87State.St(g.State, 7)[9] = 0x80; break;
            case 1: X87State.Opcode(g.State) = 1; break;
            case 2: VectorUnit.Xmm(g.State, 15)[15] = 1; break;
            case 3: g.Cpu.MxcsrValue = 0x1fa0; break;
            case 4: VectorUnit.YmmHigh(g.State, 15)[15] = 1; break;
            default: g.Cpu.WritePkru(0x8000_0000); break;
        }
        g.Run().Should().Be(-1);
        g.State->Gpr[0].Should().Be(expected);
    }

    [Theory]
    [InlineData(0u, "intel-skylake", -1)]
    [InlineData(1u, "intel-skylake", -1)]
    [InlineData(2u, "intel-skylake", Fault.GP)]
    [InlineData(0x8000_0000u, "amd-zen", Fault.GP)]
    public void XGETBV_knows_two_registers(uint index, string model, int fault)
    {
        using var g = new StateGuest(model);
        g.Prepare(64, a =>
        {
            a.mov(ecx, index);
            a.xgetbv();
        });
        g.Run().Should().Be(fault);
    }

    /// <summary>The compacted format: components in order, those that are not in RFBM take no place. Header bytes behind XCOMP_BV stay.</summary>
    [Theory]
    [InlineData("XSAVEC", 0x207UL, 576, 832)]
    [InlineData("XSAVEC64", 0x204UL, 576, 832)]
    [InlineData("XSAVES", 0x201UL, -1, 576)]
    [InlineData("XSAVES64", 5UL, 576, -1)]
    [InlineData("XSAVEC64", 2UL, -1, -1)]
    public void Compacted_format(string form, ulong mask, int avx, int pkru)
    {
        using var g = new StateGuest(xcr0: 0x207);
        g.Prepare(64, Save(form, mask));
        g.FillArea(0xcc);
        g.Run().Should().Be(-1);
        g.Quad(512).Should().Be(mask);
        g.Quad(520).Should().Be(mask | 1UL << 63);
        Stored(g, 528, 48).Should().BeFalse();
        if (avx >= 0)
            new Span<byte>(g.At((ulong)avx), 256).SequenceEqual(new Span<byte>(g.State->YmmHi, 256)).Should().BeTrue();
        if (pkru >= 0)
            g.Quad((ulong)pkru).Should().Be(0x1230);
        Stored(g, 24, 8).Should().Be((mask & 2) != 0, "MXCSR is part of SSE here");
    }

    /// <summary>A component that is in RFBM but initial keeps its place.</summary>
    [Fact]
    public void Compacted_format_keeps_the_place_of_an_initial_component()
    {
        using var g = new StateGuest(xcr0: 0x207);
        g.Prepare(64, Save("XSAVEC64", 0x207));
        new Span<byte>(g.State->YmmHi, 256).Clear();
        g.FillArea(0xcc);
        g.Run().Should().Be(-1);
        g.Quad(512).Should().Be(0x203);
        Stored(g, 576, 256).Should().BeFalse();
        g.Quad(832).Should().Be(0x1230);
    }

    [Theory]
    [MemberData(nameof(Forms))]
    public void Outside_64_bit_mode_there_are_eight_registers(string form)
    {
        if (form.EndsWith("64", StringComparison.Ordinal))
            return;
        using var g = new StateGuest();
        g.Prepare(32, Save(form, 7));
        g.FillArea(0xcc);
        new Span<byte>(g.At(512), 64).Clear();
        g.Run().Should().Be(-1);
        new Span<byte>(g.At(160), 128).SequenceEqual(new Span<byte>(VectorUnit.Xmm(g.State, 0), 128)).Should().BeTrue();
        Stored(g, 288, 128).Should().BeFalse();
        new Span<byte>(g.At(576), 128).SequenceEqual(new Span<byte>(g.State->YmmHi, 128)).Should().BeTrue();
        Stored(g, 704, 128).Should().BeFalse();
    }

    // ---- faults ----

    [Flags]
    public enum Wrong { Nothing = 0, Osxsave = 1, TaskSwitched = 2, Alignment = 4, Page = 8, Emulation = 16 }

    /// <summary>#UD before #NM before #GP for the alignment before #PF; CR0.EM does not matter.</summary>
    [Theory]
    [InlineData(Wrong.Nothing, -1)]
    [InlineData(Wrong.Emulation, -1)]
    [InlineData(Wrong.Page, Fault.PF)]
    [InlineData(Wrong.Alignment | Wrong.Page, Fault.GP)]
    [InlineData(Wrong.TaskSwitched | Wrong.Alignment | Wrong.Page, Fault.NM)]
    [InlineData(Wrong.Osxsave | Wrong.TaskSwitched | Wrong.Alignment | Wrong.Page, Fault.UD)]
    public void Order_of_faults(Wrong wrong, int fault)
    {
        string[] forms = ["XSAVE", "XSAVE64", "XSAVEOPT", "XSAVEC", "XSAVES", "XRSTOR", "XRSTORS"];
        foreach (string form in forms)
        {
            using var g = new StateGuest();
            ulong offset = ((wrong & Wrong.Page) != 0 ? 0xd00UL : 0) + ((wrong & Wrong.Alignment) != 0 ? 32UL : 0);
            g.Prepare(64, Save(form, 7, offset));
            if ((wrong & Wrong.Page) != 0)
                g.EndMemoryAfter(Area);
            if (form == "XRSTORS")
                g.Quad(offset + 520) = 1UL << 63 | 7;
            g.Quad(offset + 512) = 7;
            g.Word32(offset + 24) = 0x1f80;
            if ((wrong & Wrong.Osxsave) != 0)
                g.State->Cr4 &= ~Cr4.OSXSAVE;
            if ((wrong & Wrong.TaskSwitched) != 0)
                g.State->Cr0 |= Cr0.TS;
            if ((wrong & Wrong.Emulation) != 0)
                g.State->Cr0 |= Cr0.EM;
            g.Run().Should().Be(fault, form);
        }
    }

    /// <summary>Nothing is written when a later part of the area can't be.</summary>
    [Theory]
    [MemberData(nameof(Forms))]
    public void A_page_fault_writes_nothing(string form)
    {
        using var g = new StateGuest();
        g.Prepare(64, Save(form, 7, 0xd00));
        g.EndMemoryAfter(Area);
        g.FillArea(0xcc);
        g.Run().Should().Be(Fault.PF);
        g.State->Cr2.Should().Be(Area + 0x1000);
        new Span<byte>(g.At(), 0x1000).ContainsAnyExcept((byte)0xcc).Should().BeFalse();
    }

    /// <summary>Only the parts that RFBM asks for have to be there.</summary>
    [Fact]
    public void Components_that_are_not_requested_are_not_touched()
    {
        using var g = new StateGuest(xcr0: 0x207);
        g.Prepare(64, Save("XSAVE64", 3, 0x1000 - 576));
        g.EndMemoryAfter(Area);
        g.Run().Should().Be(-1);
    }

    [Theory]
    [InlineData("XSAVES", false)]
    [InlineData("XRSTORS", false)]
    [InlineData("XSAVE", true)]
    [InlineData("XSAVEC", true)]
    [InlineData("XSAVEOPT", true)]
    public void Supervisor_forms_need_CPL_0(string form, bool allowed)
    {
        using var g = new StateGuest();
        g.Prepare(64, Save(form, 7));
        EnterUser(g.Machine);
        g.Run().Should().Be(Fault.GP);
        FaultedAtHalt(g.Machine).Should().Be(allowed);
    }

    /// <summary>At CPL 3 a program that gets that far ends with #GP for its HLT.</summary>
    internal static bool FaultedAtHalt(GuestMachine m) => m.Ram[m.FaultRip(Fault.GP, longMode: true)] == 0xf4;

    internal static void EnterUser(GuestMachine m)
    {
        m.State->Cpl = 3;
        m.Segment(Seg.CS) = new SegmentCache { Selector = 0x33, Limit = uint.MaxValue, AccessRights = 0xa0fb };
        m.Segment(Seg.SS) = new SegmentCache { Selector = 0x2b, Limit = uint.MaxValue, AccessRights = 0xc0f3 };
        *(ulong*)(m.Ram + GuestMachine.Tss + 4) = GuestMachine.StackTop;
        m.Cpu.UpdateMode();
    }

    [Theory]
    [InlineData("XSAVE64")]
    [InlineData("XSAVEOPT64")]
    [InlineData("XSAVEC64")]
    [InlineData("XSAVES64")]
    [InlineData("XRSTOR64")]
    [InlineData("XRSTORS")]
    public void Absent_without_the_feature(string form)
    {
        using var g = new StateGuest("minimal-x86-64", xcr0: 1);
        g.Prepare(64, Save(form, 7));
        g.State->Cr4 |= Cr4.OSXSAVE;
        g.Run().Should().Be(Fault.UD);
    }

    /// <summary>x87 stays on, AVX needs SSE, bits that CPUID does not announce fault; only XCR0 exists.</summary>
    [Theory]
    [InlineData("intel-skylake", 0u, 1UL, true)]
    [InlineData("intel-skylake", 0u, 3UL, true)]
    [InlineData("intel-skylake", 0u, 7UL, true)]
    [InlineData("intel-skylake", 0u, 0x207UL, true)]
    [InlineData("intel-skylake", 0u, 0x201UL, true)]
    [InlineData("intel-skylake", 0u, 0UL, false)]
    [InlineData("intel-skylake", 0u, 2UL, false)]
    [InlineData("intel-skylake", 0u, 5UL, false)]
    [InlineData("intel-skylake", 0u, 0xe7UL, false)]
    [InlineData("intel-skylake", 0u, 0x1fUL, false)]
    [InlineData("intel-skylake", 0u, 1UL << 62 | 3, false)]
    [InlineData("intel-skylake", 1u, 1UL, false)]
    [InlineData("amd-zen", 0u, 0x207UL, false)]
    [InlineData("bochs-skylake-x", 0u, 0xe7UL, false)]
    public void XSETBV(string model, uint index, ulong value, bool allowed)
    {
        using var g = new StateGuest(model, xcr0: 1);
        g.Prepare(64, a =>
        {
            a.mov(ecx, index);
            a.mov(eax, (uint)value);
            a.mov(edx, (uint)(value >> 32));
            a.xsetbv();
        });
        g.Run().Should().Be(allowed ? -1 : Fault.GP);
        g.State->Xcr0.Should().Be(allowed ? value : 1);
        g.Cpu.Xsetbv(index, value).Ok.Should().Be(allowed, "kernel code executes the same instruction");
    }
}
