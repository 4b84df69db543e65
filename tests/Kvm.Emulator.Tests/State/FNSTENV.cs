using Iced.Intel;
using Kvm.Emulator.Tests.Engine;
using Kvm.Emulator.Vector;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.State;

/// <summary>FLDENV, FNSTENV, FNSAVE, FRSTOR in their four layouts; FNINIT, FNCLEX, FLDCW, WAIT, EMMS.</summary>
/// <remarks>SDM vol 1, figures "Protected Mode x87 FPU State Image in Memory, 32-Bit Format" and following.</remarks>
public sealed unsafe class FNSTENV
{
    private const ulong low = 0xe000;

    /// <summary>In real-address and virtual-8086 mode the pointers are linear addresses, without selectors.</summary>
    [Theory]
    [InlineData(64, 4, "7f02ffff 0028ffff bbeeffff 66554433 7700a503 77665544 8800ffff")]
    [InlineData(32, 4, "7f02ffff 0028ffff bbeeffff 66554433 7700a503 77665544 8800ffff")]
    [InlineData(32, 2, "7f02 0028 bbee 6655 7700 7766 8800")]
    [InlineData(64, 2, "7f02 0028 bbee 6655 7700 7766 8800")]
    [InlineData(16, 2, "7f02 0028 bbee d65c a543 f76e 0050")]
    [InlineData(16, 4, "7f02ffff 0028ffff bbeeffff d65cffff a5433403 f76effff 00504504")]
    public void Layout(int bits, int field, string expected)
    {
        using var g = new StateGuest("bochs-skylake-x");
        bool other = bits == 16 ? field == 4 : field == 2;
        g.Prepare(bits, a =>
        {
            if (other)
                a.db(0x66);
            if (bits == 16)
                a.db(0xd9, 0x36, 0x00, 0xe0);
            else if (bits == 32)
                a.db(0xd9, 0x35, 0x00, 0xe0, 0x00, 0x00);
            else
                a.db(0xd9, 0x34, 0x25, 0x00, 0xe0, 0x00, 0x00);
        });
        new Span<byte>(g.Machine.Ram + low, 32).Fill(0xcc);
        g.Run().Should().Be(-1);
        byte[] bytes = Convert.FromHexString(expected.Replace(" ", "", StringComparison.Ordinal));
        new ReadOnlySpan<byte>(g.Machine.Ram + low, bytes.Length).ToArray().Should().Equal(bytes);
        g.Machine.Ram[low + (ulong)bytes.Length].Should().Be(0xcc);
        X87State.Control(g.State).Should().Be(0x27f, "exceptions are masked already");
    }

    /// <summary>Stored, then every exception is masked, so none is pending.</summary>
    [Fact]
    public void Masks_exceptions()
    {
        using var g = new StateGuest();
        g.Prepare(64, a => a.fnstenv(__[StateGuest.Area]));
        X87State.SetControl(g.State, 0x240);
        X87State.SetStatus(g.State, 0x04);
        g.Run().Should().Be(-1);
        (g.Word16(0), g.Word16(4)).Should().Be(((ushort)0x240, (ushort)0x8084));
        (X87State.Control(g.State), X87State.Status(g.State)).Should().Be(((ushort)0x27f, (ushort)0x0004));
    }

    public static TheoryData<ulong, ushort, int> Registers => new()
    {
        { 0, 0, 1 },
        { 0, 0x8000, 1 },
        { 1UL << 63, 0x3fff, 0 },
        { 1, 0, 2 },
        { 1UL << 63, 0, 2 },
        { 1UL << 63, 0x7fff, 2 },
        { 0xc000_0000_0000_0000, 0xffff, 2 },
        { 1, 0x3fff, 2 },
        { 0, 0x4000, 2 },
        { ulong.MaxValue, 0x7ffe, 0 },
        { 1UL << 63, 1, 0 },
    };

    /// <summary>Tags are found out when they are stored: valid, zero, special, empty.</summary>
    [Theory]
    [MemberData(nameof(Registers))]
    public void Tag_of_a_register(ulong significand, ushort exponent, int tag)
    {
        using var g = new StateGuest();
        g.Prepare(64, a => a.fnstenv(__[StateGuest.Area]));
        // ST(2) with TOP 5 is register 7.
        *(ulong*)X87State.St(g.State, 2) = significand;
        *(ushort*)(X87State.St(g.State, 2) + 8) = exponent;
        X87State.Tags(g.State) = 0x80;
        g.Run().Should().Be(-1);
        g.Word16(8).Should().Be((ushort)(tag << 14 | 0x3fff));
    }

    /// <summary>FLDENV: of the tags only empty or not counts; the summary bits are recomputed; reserved bits drop; the registers stay where they are.</summary>
    [Fact]
    public void FLDENV()
    {
        using var g = new StateGuest("bochs-skylake-x");
        g.Prepare(64, a => a.fldenv(__[StateGuest.Area]));
        byte r5 = *X87State.St(g.State, 0);
        (g.Word32(0), g.Word32(4), g.Word32(8)) = (0xffff_ff40, 0x003f, 0x5557);
        (g.Word32(12), g.Word32(16), g.Word32(20), g.Word32(24)) = (0xaabb_ccdd, 0xffff_1234, 0x9988_7766, 0xffff_5678);
        g.Run().Should().Be(-1);
        CpuState* s = g.State;
        X87State.Control(s).Should().Be(0x1f40);
        X87State.Status(s).Should().Be(0x80bf);
        X87State.Tags(s).Should().Be(0xfe, "only register 0 is empty");
        (X87State.InstructionPointer(s), s->FxCs, X87State.Opcode(s)).Should().Be((0xaabb_ccddUL, (ushort)0x1234, (ushort)0x7ff));
        (X87State.DataPointer(s), s->FxDs).Should().Be((0x9988_7766UL, (ushort)0x5678));
        (*X87State.St(s, 5)).Should().Be(r5, "with the top at 0, register 5 is ST(5)");
    }

    /// <summary>FNSAVE stores environment and registers from ST(0) on, then initializes; FRSTOR brings all back.</summary>
    [Theory]
    [InlineData(64, false, 28)]
    [InlineData(32, true, 14)]
    [InlineData(16, false, 14)]
    [InlineData(16, true, 28)]
    public void FNSAVE_and_FRSTOR(int bits, bool prefix, int environment)
    {
        using var g = new StateGuest("bochs-skylake-x");
        g.Prepare(bits, a =>
        {
            void One(int reg)
            {
                if (prefix)
                    a.db(0x66);
                if (bits == 16)
                    a.db(0xdd, (byte)(reg << 3 | 6), 0x00, 0xe0);
                else if (bits == 32)
                    a.db(0xdd, (byte)(reg << 3 | 5), 0x00, 0xe0, 0x00, 0x00);
                else
                    a.db(0xdd, (byte)(reg << 3 | 4), 0x25, 0x00, 0xe0, 0x00, 0x00);
            }
            One(6);
            a.nop();
            One(4);
        });
        new Span<byte>(g.Machine.Ram + low, 128).Fill(0xcc);
        byte[] registers = new Span<byte>(X87State.St(g.State, 0), 128).ToArray();
        // After FNSAVE: the initial state, registers unchanged but seen from top 0.
        g.Machine.Cpu.Run(1);
        (X87State.Control(g.State), X87State.Status(g.State), X87State.Tags(g.State), X87State.Opcode(g.State)).Should().Be(((ushort)0x37f, (ushort)0, (byte)0, (ushort)0));
        (*X87State.St(g.State, 5)).Should().Be(registers[0]);
        for (int i = 0; i < 8; i++)
            new Span<byte>(g.Machine.Ram + low + environment + 10 * i, 10).SequenceEqual(registers.AsSpan(16 * i, 10)).Should().BeTrue();
        g.Machine.Ram[low + (ulong)environment + 80].Should().Be(0xcc);
        g.Run().Should().Be(-1);
        (X87State.Control(g.State), X87State.Status(g.State), X87State.Tags(g.State)).Should().Be(((ushort)0x27f, (ushort)0x2800, (byte)0x5a));
        new Span<byte>(X87State.St(g.State, 0), 128).SequenceEqual(registers).Should().BeTrue();
        g.State->FxCs.Should().Be(bits == 16 ? (ushort)0 : (ushort)0x77);
    }

    /// <summary>Waiting instructions report a pending exception, the others do not (found with a processor as judge).</summary>
    [Theory]
    [InlineData("fldcw", Fault.MF)]
    [InlineData("fldenv", Fault.MF)]
    [InlineData("frstor", Fault.MF)]
    [InlineData("wait", Fault.MF)]
    [InlineData("emms", Fault.MF)]
    [InlineData("maskmovq", Fault.MF)]
    [InlineData("fnop", Fault.MF)]
    [InlineData("fninit", -1)]
    [InlineData("fnclex", -1)]
    [InlineData("fnstenv", -1)]
    [InlineData("fnsave", -1)]
    [InlineData("fnstcw", -1)]
    [InlineData("fnstsw", -1)]
    [InlineData("fnstsw ax", -1)]
    [InlineData("fneni", -1)]
    [InlineData("fndisi", -1)]
    [InlineData("fnsetpm", -1)]
    [InlineData("fxsave", -1)]
    [InlineData("fxrstor", -1)]
    [InlineData("xsave", -1)]
    [InlineData("ldmxcsr", -1)]
    public void Pending_exceptions(string instruction, int fault)
    {
        using StateGuest g = One(instruction);
        X87State.SetControl(g.State, 0x37e);
        X87State.SetStatus(g.State, 1);
        g.Run().Should().Be(fault);
    }

    /// <summary>CR0.TS and CR0.EM: #NM for x87, #UD for EM where MMX or SSE registers are meant; WAIT looks at MP and TS.</summary>
    [Theory]
    [InlineData("fldcw", Cr0.EM, Fault.NM)]
    [InlineData("fldcw", Cr0.TS, Fault.NM)]
    [InlineData("fnstenv", Cr0.EM, Fault.NM)]
    [InlineData("fnsave", Cr0.TS, Fault.NM)]
    [InlineData("frstor", Cr0.TS, Fault.NM)]
    [InlineData("fneni", Cr0.TS, Fault.NM)]
    [InlineData("fnstsw ax", Cr0.EM, Fault.NM)]
    [InlineData("emms", Cr0.EM, Fault.UD)]
    [InlineData("emms", Cr0.TS, Fault.NM)]
    [InlineData("maskmovq", Cr0.EM, Fault.UD)]
    [InlineData("maskmovdqu", Cr0.TS, Fault.NM)]
    [InlineData("ldmxcsr", Cr0.EM, Fault.UD)]
    [InlineData("ldmxcsr", Cr0.TS, Fault.NM)]
    [InlineData("vldmxcsr", Cr0.EM, -1)]
    [InlineData("vldmxcsr", Cr0.TS, Fault.NM)]
    [InlineData("wait", Cr0.EM, -1)]
    [InlineData("wait", Cr0.TS | Cr0.MP, Fault.NM)]
    public void Availability(string instruction, ulong cr0, int fault)
    {
        using StateGuest g = One(instruction);
        g.State->Cr0 |= cr0;
        g.Run().Should().Be(fault);
    }

    [Fact]
    public void WAIT_goes_on_with_TS_alone()
    {
        using StateGuest g = One("wait");
        g.State->Cr0 = (g.State->Cr0 & ~Cr0.MP) | Cr0.TS;
        g.Run().Should().Be(-1);
    }

    private static StateGuest One(string instruction)
    {
        var g = new StateGuest();
        g.Prepare(64, a =>
        {
            AssemblerMemoryOperand m = __[StateGuest.Area];
            switch (instruction)
            {
                case "fldcw": a.fldcw(m); break;
                case "fldenv": a.fldenv(m); break;
                case "frstor": a.frstor(m); break;
                case "wait": a.wait(); break;
                case "emms": a.emms(); break;
                case "fnop": a.fnop(); break;
                case "fninit": a.fninit(); break;
                case "fnclex": a.fnclex(); break;
                case "fnstenv": a.fnstenv(m); break;
                case "fnsave": a.fnsave(m); break;
                case "fnstcw": a.fnstcw(m); break;
                case "fnstsw": a.fnstsw(m); break;
                case "fnstsw ax": a.fnstsw(ax); break;
                case "fneni": a.fneni(); break;
                case "fndisi": a.fndisi(); break;
                case "fnsetpm": a.fnsetpm(); break;
                case "fxsave": a.fxsave(m); break;
                case "fxrstor": a.fxrstor(m); break;
                case "xsave": a.xsave(m); break;
                case "ldmxcsr": a.ldmxcsr(__dword_ptr[StateGuest.Area + 24]); break;
                case "vldmxcsr": a.vldmxcsr(__dword_ptr[StateGuest.Area + 24]); break;
                case "maskmovq": a.mov(edi, (uint)StateGuest.Area); a.maskmovq(mm0, mm1); break;
                default: a.mov(edi, (uint)StateGuest.Area); a.maskmovdqu(xmm0, xmm1); break;
            }
        });
        g.Word16(0) = 0x37f;
        g.Word32(24) = 0x1f80;
        return g;
    }

    /// <summary>FLDCW: bit 6 reads 1, reserved bits 0; unmasking a flag that is set makes the exception pending, masking it takes that back.</summary>
    [Theory]
    [InlineData(0xffff, 0, 0x1f7f, 0)]
    [InlineData(0x0000, 0, 0x0040, 0)]
    [InlineData(0x037e, 1, 0x037e, 0x8081)]
    [InlineData(0x037f, 1, 0x037f, 0x0001)]
    public void FLDCW(int value, int flags, int control, int status)
    {
        using StateGuest g = One("fldcw");
        X87State.SetStatus(g.State, (ushort)flags);
        g.Word16(0) = (ushort)value;
        g.Run().Should().Be(-1);
        (X87State.Control(g.State), X87State.Status(g.State)).Should().Be(((ushort)control, (ushort)status));
    }

    [Theory]
    [InlineData("fnclex", 0xb8ff, 0x3800)]
    [InlineData("fnclex", 0x4700, 0x4700)]
    public void FNCLEX_clears_flags_summary_and_busy(string instruction, int before, int after)
    {
        using StateGuest g = One(instruction);
        X87State.SetStatus(g.State, (ushort)before);
        g.Run().Should().Be(-1);
        X87State.Status(g.State).Should().Be((ushort)after);
    }

    /// <summary>EMMS: tags empty and top 0; the registers stay.</summary>
    [Fact]
    public void EMMS()
    {
        using StateGuest g = One("emms");
        byte r5 = *X87State.St(g.State, 0);
        g.Run().Should().Be(-1);
        (X87State.Tags(g.State), X87State.Top(g.State), *X87State.St(g.State, 5)).Should().Be(((byte)0, 0, r5));
    }

    /// <summary>Control instructions leave FIP, FDP and FOP; FNOP is none.</summary>
    [Theory]
    [InlineData("fldcw", false)]
    [InlineData("fnclex", false)]
    [InlineData("wait", false)]
    [InlineData("fneni", false)]
    [InlineData("emms", false)]
    [InlineData("fnop", true)]
    public void Last_instruction_pointer(string instruction, bool changes)
    {
        using StateGuest g = One(instruction);
        g.Run().Should().Be(-1);
        X87State.InstructionPointer(g.State).Should().Be(changes ? GuestMachine.CodeBase : 0x1122_3344_5566);
        X87State.Opcode(g.State).Should().Be(changes ? (ushort)0x1d0 : (ushort)0x3a5);
        g.State->FxCs.Should().Be(changes ? (ushort)0x10 : (ushort)0x77);
        X87State.DataPointer(g.State).Should().Be(0x2233_4455_6677);
    }

    public static TheoryData<VectorEngine> Engines => [VectorEngine.Auto, VectorEngine.Managed];

    /// <summary>FDP is that of the last instruction with a memory operand; MMX instructions touch none of the pointers.</summary>
    [Theory]
    [MemberData(nameof(Engines))]
    public void Pointers_of_register_forms_and_MMX(VectorEngine engine)
    {
        using var m = new GuestMachine(vectorEngine: engine);
        m.Start(64, a =>
        {
            a.fninit();
            a.fld(__qword_ptr[GuestMachine.DataBase + 8]);
            a.fadd(st0, st0);
            a.fnstenv(__[GuestMachine.DataBase + 0x40]);
            a.movd(mm1, eax);
            a.paddd(mm1, mm1);
            a.emms();
            a.fnstenv(__[GuestMachine.DataBase + 0x80]);
            a.hlt();
        });
        m.Run();
        m.Fault.Should().Be(-1);
        uint* first = (uint*)(m.Ram + GuestMachine.DataBase + 0x40), second = (uint*)(m.Ram + GuestMachine.DataBase + 0x80);
        (first[3], first[4] >> 16, first[5]).Should().Be(((uint)GuestMachine.CodeBase + 9, 0x0c0u, (uint)GuestMachine.DataBase + 8));
        (second[3], second[4] >> 16, second[5]).Should().Be((first[3], first[4] >> 16, first[5]));
    }

    /// <summary>Faults leave everything: registers are not initialized, nothing is written, nothing loaded.</summary>
    [Theory]
    [InlineData(6)]
    [InlineData(4)]
    public void A_page_fault_changes_nothing(int reg)
    {
        using var g = new StateGuest();
        g.Prepare(64, a =>
        {
            a.mov(ecx, (uint)(StateGuest.Area + 0xfc0));
            a.db(0xdd, (byte)(reg << 3 | 1));
        });
        g.EndMemoryAfter(StateGuest.Area);
        g.FillArea(0xcc);
        g.Run().Should().Be(Fault.PF);
        (X87State.Control(g.State), X87State.Tags(g.State), X87State.Opcode(g.State)).Should().Be(((ushort)0x27f, (byte)0x5a, (ushort)0x3a5));
        new Span<byte>(g.At(), 0x1000).ContainsAnyExcept((byte)0xcc).Should().BeFalse();
    }

    /// <summary>With alignment checks: the environment's fields must be aligned, whatever follows them.</summary>
    [Theory]
    [InlineData(0xd9, 4, 0, false)]
    [InlineData(0xd9, 4, 2, true)]
    [InlineData(0xdd, 4, 4, false)]
    [InlineData(0xdd, 4, 1, true)]
    [InlineData(0xd9, 2, 2, false)]
    [InlineData(0xd9, 2, 1, true)]
    public void Alignment_check(int opcode, int field, int offset, bool fault)
    {
        using var g = new StateGuest();
        g.Prepare(64, a =>
        {
            a.mov(ecx, (uint)StateGuest.Area + (uint)offset);
            if (field == 2)
                a.db(0x66);
            a.db((byte)opcode, 0x31);
        });
        XSAVE.EnterUser(g.Machine);
        g.State->Cr0 |= Cr0.AM;
        g.Cpu.Rflags |= Flags.AC;
        g.Cpu.UpdateMode();
        g.Run().Should().Be(fault ? Fault.AC : Fault.GP);
    }
}
