using Iced.Intel;
using Kvm.Emulator.Tests.Engine;
using Kvm.Emulator.Vector;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Vector;

/// <summary>x87 in programs: what is left of a computation when an exception is not masked, and when it is reported.</summary>
public sealed unsafe class X87Programs
{
    private const ulong data = GuestMachine.DataBase;
    private static readonly CpuModel model = CpuModel.IntelSkylake.WithCpuid(1, 0, new CpuidLeaf(0, 0, 1, 1 | 1 << 15 | 1 << 24 | 1 << 25 | 1 << 26));

    public static TheoryData<VectorEngine> Engines => [VectorEngine.Auto, VectorEngine.Managed, VectorEngine.Host];

    private static GuestMachine Run(VectorEngine engine, ushort control, Action<Assembler> program)
    {
        var m = new GuestMachine(model, vectorEngine: engine);
        m.Start(64, a =>
        {
            a.fninit();
            a.mov(__word_ptr[data + 64], control);
            a.fldcw(__word_ptr[data + 64]);
            a.mov(rax, 0x1122334455667788);
            a.mov(__qword_ptr[data], rax);
            program(a);
            a.hlt();
        });
        m.State->Cr0 = (m.State->Cr0 & ~(Cr0.EM | Cr0.TS)) | Cr0.NE | Cr0.MP;
        m.Run();
        return m;
    }

    private static ulong Stored(GuestMachine m) => *(ulong*)(m.Ram + data);

    /// <summary>SDM vol 1, "Numeric Overflow Exception": with a destination in memory, nothing is stored and the stack is not popped.</summary>
    [Theory]
    [MemberData(nameof(Engines))]
    public void An_unmasked_overflow_leaves_a_memory_destination_and_the_stack_alone(VectorEngine engine)
    {
        using GuestMachine m = Run(engine, 0x377, a =>
        {
            a.fldpi();
            a.fldpi();
            a.fscale(); // 25.13
            a.fld(st0);
            for (int i = 0; i < 8; i++)
                a.fmul(st0, st0);
            a.fstp(__qword_ptr[data]);
            a.fnstsw(ax);
        });
        m.Fault.Should().Be(-1);
        Stored(m).Should().Be(0x1122334455667788);
        ((ushort)m.State->Gpr[0] & 0x3800).Should().Be(5 << 11, "three values are on the stack");
        ((ushort)m.State->Gpr[0] & 0x80ff).Should().Be(0x80a8, "PE from the multiplications, OE, ES and B");
    }

    [Theory]
    [MemberData(nameof(Engines))]
    public void An_unmasked_invalid_store_is_reported_by_the_next_waiting_instruction(VectorEngine engine)
    {
        using GuestMachine m = Run(engine, 0x37e, a =>
        {
            a.fld1();
            a.fldz();
            a.fdivp(st1, st0);
            a.fistp(__dword_ptr[data]);
            a.nop();
            a.fldz();
        });
        m.Fault.Should().Be(Fault.MF);
        Stored(m).Should().Be(0x1122334455667788);
    }

    [Theory]
    [MemberData(nameof(Engines))]
    public void An_unmasked_inexact_result_is_stored_all_the_same(VectorEngine engine)
    {
        using GuestMachine m = Run(engine, 0x35f, a =>
        {
            a.fldpi();
            a.fistp(__qword_ptr[data]);
            a.fnstsw(ax);
        });
        m.Fault.Should().Be(-1);
        Stored(m).Should().Be(3);
        ((ushort)m.State->Gpr[0]).Should().Be(0x80a0);
    }

    /// <summary>The fields of the control word reach the computation: one third in 24, 53 and 64 bits, in each direction.</summary>
    [Theory]
    [InlineData(VectorEngine.Auto)]
    [InlineData(VectorEngine.Managed)]
    [InlineData(VectorEngine.Host)]
    public void Rounding_and_precision_control(VectorEngine engine)
    {
        ulong[] expected = [0xaaaaab0000000000, 0xaaaaaaaaaaaaa800, 0xaaaaaaaaaaaaaaab, 0xaaaaaa0000000000, 0xaaaaaaaaaaaaa800, 0xaaaaaaaaaaaaaaaa];
        for (int i = 0; i < 6; i++)
        {
            int precision = (i % 3) switch { 0 => 0, 1 => 2, _ => 3 };
            using GuestMachine m = Run(engine, (ushort)(0x7f | precision << 8 | (i / 3) << 10), a =>
            {
                a.mov(__dword_ptr[data + 16], 3);
                a.fld1();
                a.fidiv(__dword_ptr[data + 16]);
                a.fstp(__tbyte_ptr[data]);
            });
            Stored(m).Should().Be(expected[i]);
        }
    }

    [Theory]
    [MemberData(nameof(Engines))]
    public void The_ninth_push_is_a_stack_fault(VectorEngine engine)
    {
        using GuestMachine m = Run(engine, 0x37f, a =>
        {
            for (int i = 0; i < 9; i++)
                a.fld1();
            a.fnstsw(ax);
            a.fstp(__qword_ptr[data]);
        });
        ((ushort)m.State->Gpr[0]).Should().Be(0x3a41, "IE, SF and C1; TOP has come round");
        Stored(m).Should().Be(0xfff8000000000000);
    }
}
