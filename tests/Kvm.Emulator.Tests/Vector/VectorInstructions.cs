using Iced.Intel;
using Kvm.Emulator.Tests.Engine;
using Kvm.Emulator.Vector;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Vector;

/// <summary>x87, MMX, SSE and AVX in programs: results, flags, availability, exceptions.</summary>
public sealed unsafe class VectorInstructions
{
    private static readonly CpuModel model = CpuModel.IntelSkylake
        .WithCpuid(1, 0, new CpuidLeaf(0, 0, 1 | 1 << 1 | 1 << 9 | 1 << 12 | 1 << 19 | 1 << 20 | 1 << 25 | 1 << 26 | 1 << 28 | 1 << 29, 0))
        .WithCpuid(7, 0, new CpuidLeaf(0, 1 << 5, 0, 0));

    public static TheoryData<VectorEngine> Engines => [VectorEngine.Auto, VectorEngine.Managed];

    private static GuestMachine Run(VectorEngine engine, Action<Assembler> program, int bits = 64)
    {
        var m = new GuestMachine(model, vectorEngine: engine);
        m.Start(bits, a =>
        {
            program(a);
            a.hlt();
        });
        m.State->Cr0 = (m.State->Cr0 & ~Cr0.EM) | Cr0.NE | Cr0.MP;
        m.State->Cr4 |= Cr4.OSFXSR | Cr4.OSXMMEXCPT | Cr4.OSXSAVE;
        m.State->Xcr0 = 7;
        m.Cpu.UpdateMode();
        m.Run();
        return m;
    }

    private static AssemblerMemoryOperand Data(int offset = 0) => __qword_ptr[GuestMachine.DataBase + (ulong)offset];

    [Theory]
    [MemberData(nameof(Engines))]
    public void SSE2_scalar_arithmetic(VectorEngine engine)
    {
        using GuestMachine m = Run(engine, a =>
        {
            a.mov(eax, 3);
            a.cvtsi2sd(xmm1, eax);
            a.mov(eax, 4);
            a.cvtsi2sd(xmm9, eax);
            a.addsd(xmm1, xmm9);
            a.movsd(Data(), xmm1);
            a.divsd(xmm1, xmm9);
            a.cvttsd2si(rbx, xmm1);
            a.stmxcsr(__dword_ptr[GuestMachine.DataBase + 8]);
        });
        m.Fault.Should().Be(-1);
        (*(double*)(m.Ram + GuestMachine.DataBase)).Should().Be(7);
        m.State->Gpr[3].Should().Be(1);
        (*(uint*)(m.Ram + GuestMachine.DataBase + 8)).Should().Be(0x1fa0, "7/4 is exact, its truncation is not");
    }

    [Theory]
    [MemberData(nameof(Engines))]
    public void AVX_writes_whole_registers(VectorEngine engine)
    {
        using GuestMachine m = Run(engine, a =>
        {
            a.vpcmpeqd(ymm3, ymm3, ymm3);
            a.vpsrld(ymm2, ymm3, 31);
            a.vpaddd(ymm4, ymm2, ymm3);
            a.vpsubd(xmm3, xmm2, xmm4);
            a.vmovdqu(__ymmword_ptr[GuestMachine.DataBase + 1], ymm2);
        });
        m.Fault.Should().Be(-1);
        new ReadOnlySpan<uint>(m.Ram + GuestMachine.DataBase + 1, 8).ToArray().Should().AllBeEquivalentTo(1u);
        (*(ulong*)VectorUnit.YmmHigh(m.State, 4)).Should().Be(0);
        (*(ulong*)VectorUnit.YmmHigh(m.State, 3)).Should().Be(0, "a 128-bit instruction clears the rest");
        (*(uint*)VectorUnit.Xmm(m.State, 3)).Should().Be(1);
    }

    [Theory]
    [MemberData(nameof(Engines))]
    public void X87_arithmetic_in_80_bits(VectorEngine engine)
    {
        using GuestMachine m = Run(engine, a =>
        {
            a.fninit();
            a.fldpi();
            a.fld1();
            a.faddp(st1, st0);
            a.fld(st0);
            a.fstp(__tbyte_ptr[GuestMachine.DataBase]);
            a.fistp(__dword_ptr[GuestMachine.DataBase + 16]);
            a.fnstsw(ax);
        });
        m.Fault.Should().Be(-1);
        (*(ulong*)(m.Ram + GuestMachine.DataBase)).Should().Be(0x8487ed5110b4611a);
        (*(ushort*)(m.Ram + GuestMachine.DataBase + 8)).Should().Be(0x4001);
        (*(int*)(m.Ram + GuestMachine.DataBase + 16)).Should().Be(4);
        ((ushort)m.State->Gpr[0] & 0x3800).Should().Be(0, "the stack is empty again");
    }

    [Theory]
    [MemberData(nameof(Engines))]
    public void Comparisons_set_flags(VectorEngine engine)
    {
        using GuestMachine m = Run(engine, a =>
        {
            a.xorps(xmm0, xmm0);
            a.pcmpeqd(xmm1, xmm1);
            a.stc();
            a.ucomisd(xmm0, xmm1);
            a.setp(al);
            a.ptest(xmm0, xmm1);
            a.setz(bl);
            a.fninit();
            a.fldz();
            a.fld1();
            a.fcomip(st0, st1);
            a.seta(cl);
        });
        m.Fault.Should().Be(-1);
        ((byte)m.State->Gpr[0]).Should().Be(1, "a NaN is unordered");
        ((byte)m.State->Gpr[3]).Should().Be(1);
        ((byte)m.State->Gpr[1]).Should().Be(1);
    }

    [Theory]
    [MemberData(nameof(Engines))]
    public void MMX_uses_the_x87_registers(VectorEngine engine)
    {
        using GuestMachine m = Run(engine, a =>
        {
            a.fninit();
            a.mov(eax, 0x01020304);
            a.movd(mm3, eax);
            a.paddb(mm3, mm3);
            a.movd(ebx, mm3);
            a.fnstenv(__dword_ptr[GuestMachine.DataBase]);
            a.emms();
        });
        m.State->Gpr[3].Should().Be(0x02040608);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Unmasked_SIMD_exceptions_fault_and_leave_the_destination_alone(bool osxmmexcpt)
    {
        using var m = new GuestMachine(model);
        m.Start(64, a =>
        {
            a.mov(__dword_ptr[GuestMachine.DataBase], 0x1f80 & ~(1 << 9));
            a.ldmxcsr(__dword_ptr[GuestMachine.DataBase]);
            a.pcmpeqd(xmm0, xmm0);
            a.psrlq(xmm0, 63);
            a.cvtdq2pd(xmm0, xmm0);
            a.xorps(xmm1, xmm1);
            a.divsd(xmm0, xmm1);
            a.hlt();
        });
        m.State->Cr4 |= Cr4.OSFXSR | (osxmmexcpt ? Cr4.OSXMMEXCPT : 0);
        if (!osxmmexcpt)
            m.State->Cr4 &= ~Cr4.OSXMMEXCPT;
        m.Run();
        m.Fault.Should().Be(osxmmexcpt ? Fault.XM : Fault.UD);
        (*(double*)VectorUnit.Xmm(m.State, 0)).Should().Be(1);
        (VectorUnit.Mxcsr(m.State) & 0x3f).Should().Be(4);
    }

    [Fact]
    public void An_unmasked_x87_exception_is_reported_by_the_next_waiting_instruction()
    {
        using GuestMachine m = Run(VectorEngine.Auto, a =>
        {
            a.fninit();
            a.mov(__word_ptr[GuestMachine.DataBase], 0x37b); // zero divide unmasked
            a.fldcw(__word_ptr[GuestMachine.DataBase]);
            a.fld1();
            a.fldz();
            a.fdivp(st1, st0);
            a.fnstsw(ax);
            a.fld1();
        });
        m.Fault.Should().Be(Fault.MF);
        ((ushort)m.State->Gpr[0] & 0x84).Should().Be(0x84);
    }

    [Theory]
    [InlineData(0, Fault.GP)]
    [InlineData(1, -1)]
    public void Legacy_SSE_operands_are_aligned_but_for_unaligned_moves(int form, int fault)
    {
        using GuestMachine m = Run(VectorEngine.Auto, a =>
        {
            if (form == 0)
                a.paddd(xmm0, __xmmword_ptr[GuestMachine.DataBase + 8]);
            else
                a.movups(xmm0, __[GuestMachine.DataBase + 8]);
        });
        m.Fault.Should().Be(fault);
    }

    [Theory]
    [InlineData(Cr0.TS, 0UL, Fault.NM)]
    [InlineData(Cr0.EM, 0UL, Fault.UD)]
    [InlineData(0UL, Cr4.OSFXSR, Fault.UD)]
    [InlineData(0UL, 0UL, -1)]
    public void SSE_availability(ulong setCr0, ulong clearCr4, int fault)
    {
        using var m = new GuestMachine(model);
        m.Start(64, a =>
        {
            a.paddd(xmm0, xmm1);
            a.hlt();
        });
        m.State->Cr0 |= setCr0;
        m.State->Cr4 = (m.State->Cr4 | Cr4.OSFXSR) & ~clearCr4;
        m.Cpu.UpdateMode();
        m.Run();
        m.Fault.Should().Be(fault);
    }

    [Theory]
    [InlineData(7UL, Cr4.OSXSAVE, -1)]
    [InlineData(3UL, Cr4.OSXSAVE, Fault.UD)]
    [InlineData(7UL, 0UL, Fault.UD)]
    public void AVX_availability(ulong xcr0, ulong cr4, int fault)
    {
        using var m = new GuestMachine(model);
        m.Start(64, a =>
        {
            a.vpaddd(xmm0, xmm1, xmm2);
            a.hlt();
        });
        m.State->Cr4 |= cr4;
        m.State->Xcr0 = xcr0;
        m.Cpu.UpdateMode();
        m.Run();
        m.Fault.Should().Be(fault);
    }

    [Fact]
    public void The_FXSAVE_image_of_the_state_block_is_aligned()
    {
        CpuState state = default;
        ((state.Fx - (byte*)&state) % 16).Should().Be(0);
        ((state.YmmHi - (byte*)&state) % 16).Should().Be(0);
    }

    /// <summary>What distinguishes host functions is the instruction, not the address that it uses: memory for them is bounded.</summary>
    [SkippableFact]
    public void One_host_function_serves_every_displacement()
    {
        Skip.IfNot(HostStubs.HostHas(Code.VEX_Vrcpss_xmm_xmm_xmmm32), "this host has no AVX");
        VectorOps ops = VectorOps.For(VectorEngine.Host);
        VectorOp* first = ops.Get(Instruction.Create(Code.VEX_Vrcpss_xmm_xmm_xmmm32, Register.XMM1, Register.XMM2, new Iced.Intel.MemoryOperand(Register.RBX, 1L, 1)));
        int compiled = ops.CompiledCount;
        for (int displacement = 2; displacement < 300; displacement += 7)
        {
            VectorOp* op = ops.Get(Instruction.Create(Code.VEX_Vrcpss_xmm_xmm_xmmm32, Register.XMM3, Register.XMM2, new Iced.Intel.MemoryOperand(Register.RCX, (long)displacement, displacement < 128 ? 1 : 4)));
            ((nint)op).Should().Be((nint)first);
        }

        ops.CompiledCount.Should().BeLessThan(compiled + 20, "others may have been compiled at the same time, not one for each");
    }
}
