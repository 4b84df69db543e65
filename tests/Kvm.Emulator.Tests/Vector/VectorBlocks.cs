using Iced.Intel;
using Kvm.Emulator.Tests.Engine;
using Kvm.Emulator.Vector;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Vector;

/// <summary>
/// The engine runs SSE and AVX instructions of a block in a loop of their own, some of them with the host's arithmetic; one at a time they go through their handlers.
/// Both must give the same.
/// </summary>
public sealed unsafe class VectorBlocks
{
    private const ulong data = GuestMachine.DataBase;
    private const int dataSize = 512, length = 24;

    private static readonly CpuModel model = CpuModel.IntelSkylake
        .WithCpuid(1, 0, new CpuidLeaf(0, 0, 1 | 1 << 1 | 1 << 9 | 1 << 12 | 1 << 19 | 1 << 20 | 1 << 25 | 1 << 26 | 1 << 28 | 1 << 29, 0))
        .WithCpuid(7, 0, new CpuidLeaf(0, 1 << 5, 0, 0));

    private static readonly Code[] codes = [.. Enum.GetValues<Code>().Where(IsKnown)];

    // The instructions that have a case of their own come up more often.
    private static readonly Code[] frequent = [.. codes.Where(c => c.Encoding() == EncodingKind.Legacy && c.CpuidFeatures().Any(f => f is CpuidFeature.SSE or CpuidFeature.SSE2))];

    private static bool IsKnown(Code code)
    {
        if (VectorTable.Instance[code] == null || !Kvm.Emulator.Engine.OpcodeFeatures.Announced(model)[(int)code.CpuidFeatures()[0]] || Kvm.Emulator.Engine.OpcodeTable.Instance[code].Handler != null)
            return false;
        OpCodeInfo info = code.ToOpCode();
        return Enumerable.Range(0, info.OpCount).All(i => info.GetOpKind(i) is OpCodeOperandKind.xmm_reg or OpCodeOperandKind.xmm_rm or OpCodeOperandKind.xmm_vvvv or OpCodeOperandKind.xmm_or_mem
            or OpCodeOperandKind.ymm_reg or OpCodeOperandKind.ymm_rm or OpCodeOperandKind.ymm_vvvv or OpCodeOperandKind.ymm_or_mem or OpCodeOperandKind.r32_reg or OpCodeOperandKind.r64_reg
            or OpCodeOperandKind.r32_or_mem or OpCodeOperandKind.r64_or_mem or OpCodeOperandKind.mem or OpCodeOperandKind.imm8 or OpCodeOperandKind.xmm_is4 or OpCodeOperandKind.ymm_is4);
    }

    /// <summary>KVM_TEST_CASES: instructions in all.</summary>
    [Theory]
    [InlineData(VectorEngine.Auto)]
    [InlineData(VectorEngine.Managed)]
    public void Give_what_single_instructions_give(VectorEngine engine)
    {
        codes.Length.Should().BeGreaterThan(600);
        using var blocks = new GuestMachine(model, vectorEngine: engine);
        using var single = new GuestMachine(model, vectorEngine: engine);
        long programs = CoreComparison.Cases(72_000, 1) / length;
        for (long n = 0; n < programs; n++)
        {
            var random = new CaseRandom(CoreComparison.Seed + (ulong)n);
            byte[] program = Program(ref random, out string text);
            ulong seed = random.Next64();
            Prepare(blocks, program, seed);
            Prepare(single, program, seed);
            ulong budget = random.One(2) ? (ulong)random.Next(100) + 1 : ulong.MaxValue;
            while (blocks.Run(budget) == StopReason.Budget)
            {
            }
            while (single.Run(1) == StopReason.Budget)
            {
            }
            if (Difference(blocks, single) is { } difference)
                Assert.Fail($"program {n}: {difference}\n{text}");
        }
    }

    /// <summary>A decoded block is good for a mode: the same instructions fault when the next turn finds them switched off, and work again afterwards.</summary>
    [Theory]
    [InlineData("TS", Fault.NM, true)]
    [InlineData("TS", Fault.NM, false)]
    [InlineData("EM", Fault.UD, false)]
    [InlineData("OSFXSR", Fault.UD, false)]
    [InlineData("OSXSAVE", Fault.UD, true)]
    [InlineData("XCR0", Fault.UD, true)]
    public void See_that_they_are_switched_off(string by, int fault, bool vex)
    {
        using var m = new GuestMachine(CpuModel.Load("bochs-skylake-x"));
        m.Start(64, a =>
        {
            Label again = a.CreateLabel(), use = a.CreateLabel(), start = a.CreateLabel();
            a.jmp(start);
            a.Label(ref use);
            for (int i = 0; i < 3; i++)
            {
                if (vex)
                    a.vaddsd(xmm0, xmm0, xmm1);
                else
                    a.addsd(xmm0, xmm1);
            }
            a.ret();
            a.Label(ref start);
            a.mov(ebx, 2);
            a.Label(ref again);
            a.call(use);
            if (by == "TS")
                a.clts();
            a.call(use);
            switch (by)
            {
                case "TS" or "EM":
                    a.mov(rax, cr0);
                    a.or(eax, (int)(by == "TS" ? Cr0.TS : Cr0.EM));
                    a.mov(cr0, rax);
                    break;
                case "XCR0":
                    a.xor(ecx, ecx);
                    a.xor(edx, edx);
                    a.mov(eax, 3);
                    a.xsetbv();
                    break;
                default:
                    a.mov(rax, cr4);
                    a.and(eax, (int)~(by == "OSFXSR" ? Cr4.OSFXSR : Cr4.OSXSAVE));
                    a.mov(cr4, rax);
                    break;
            }
            a.dec(ebx);
            a.jnz(again);
            a.hlt();
        });
        m.State->Cr0 = (m.State->Cr0 & ~Cr0.EM) | Cr0.MP;
        m.State->Cr4 |= Cr4.OSFXSR | Cr4.OSXSAVE;
        m.State->Xcr0 = 7;
        m.Cpu.UpdateMode();
        *(double*)VectorUnit.Xmm(m.State, 1) = 1;
        m.Run();
        m.Fault.Should().Be(fault);
        (*(double*)VectorUnit.Xmm(m.State, 0)).Should().Be(6);
        m.State->Gpr[3].Should().Be(1);
    }

    public static IEnumerable<object[]> Arithmetic => from code in arithmetic from engine in new[] { VectorEngine.Auto, VectorEngine.Managed } select (object[])[code, engine];

    private static readonly Code[] arithmetic =
    [
        Code.Addsd_xmm_xmmm64, Code.Subsd_xmm_xmmm64, Code.Mulsd_xmm_xmmm64, Code.Divsd_xmm_xmmm64, Code.Sqrtsd_xmm_xmmm64, Code.Cvtsd2ss_xmm_xmmm64,
        Code.Addss_xmm_xmmm32, Code.Subss_xmm_xmmm32, Code.Mulss_xmm_xmmm32, Code.Divss_xmm_xmmm32, Code.Cvtss2sd_xmm_xmmm32, Code.Comisd_xmm_xmmm64, Code.Comiss_xmm_xmmm32,
        Code.Addpd_xmm_xmmm128, Code.Subpd_xmm_xmmm128, Code.Mulpd_xmm_xmmm128, Code.Divpd_xmm_xmmm128,
        Code.Addps_xmm_xmmm128, Code.Subps_xmm_xmmm128, Code.Mulps_xmm_xmmm128, Code.Divps_xmm_xmmm128,
        Code.Cvttsd2si_r32_xmmm64, Code.Cvttsd2si_r64_xmmm64, Code.Cvttss2si_r32_xmmm32, Code.Cvtsi2sd_xmm_rm64, Code.Cvtsi2ss_xmm_rm32,
    ];

    /// <summary>Operands for which the host's arithmetic and the architecture part: next to the ends of the range, to each other, to whole numbers.</summary>
    [Theory]
    [MemberData(nameof(Arithmetic))]
    public void Compute_the_rare_cases_too(Code code, VectorEngine engine)
    {
        using var blocks = new GuestMachine(model, vectorEngine: engine);
        using var single = new GuestMachine(model, vectorEngine: VectorEngine.Managed);
        Instruction instruction = Instruction.Create(code, code.ToOpCode().GetOpKind(0) is OpCodeOperandKind.r32_reg ? Register.EBX : code.ToOpCode().GetOpKind(0) is OpCodeOperandKind.r64_reg ? Register.RBX
            : Register.XMM0, code.ToOpCode().GetOpKind(1) is OpCodeOperandKind.r64_or_mem ? Register.RAX : code.ToOpCode().GetOpKind(1) is OpCodeOperandKind.r32_or_mem ? Register.EAX : Register.XMM1);
        byte[] program = GuestMachine.Assemble(64, GuestMachine.CodeBase, a =>
        {
            a.AddInstruction(instruction);
            a.hlt();
        });
        for (int n = 0; n < 2_000; n++)
        {
            var random = new CaseRandom((ulong)code << 32 | (uint)n);
            ulong seed = random.Next64();
            bool singles = code.ToOpCode().MemorySize is MemorySize.Float32 or MemorySize.Packed128_Float32;
            foreach (GuestMachine m in (GuestMachine[])[blocks, single])
            {
                Prepare(m, program, seed);
                VectorUnit.Mxcsr(m.State) = 0x1fa0U ^ (n % 3 == 0 ? 0x20U : 0);
                var same = new CaseRandom(seed);
                Extremes(ref same, m.State, singles);
            }
            blocks.Run();
            while (single.Run(1) == StopReason.Budget)
            {
            }
            if (Difference(blocks, single) is { } difference)
                Assert.Fail($"{instruction}, case {n}: {difference}");
        }
    }

    private static void Extremes(ref CaseRandom random, CpuState* s, bool singles)
    {
        double least = singles ? 1.1754943508222875e-38 : 2.2250738585072014e-308, most = singles ? float.MaxValue : double.MaxValue;
        int size = singles ? 4 : 8, exponentBits = singles ? 8 : 11, fractionBits = singles ? 23 : 52;
        int how = random.Next(7);
        for (int i = 0; i < 16; i += size)
        {
            // Packed operands are ordinary but for one element.
            ulong first = how == 6 || random.One(3) ? FloatValues.Next(ref random, exponentBits, fractionBits) : Bits((random.Next(100_000) / 7.0 + 1e-3) * (how == 1 ? 1e-8 : 1), singles);
            double a = singles ? BitConverter.UInt32BitsToSingle((uint)first) : BitConverter.UInt64BitsToDouble(first);
            ulong second = how switch
            {
                0 => FloatValues.Near(ref random, first, exponentBits, fractionBits),
                1 => FloatValues.Near(ref random, Bits(least / a, singles), exponentBits, fractionBits),
                2 => FloatValues.Near(ref random, Bits(most / a, singles), exponentBits, fractionBits),
                3 => FloatValues.Near(ref random, Bits(a / least, singles), exponentBits, fractionBits),
                4 => FloatValues.Near(ref random, Bits(random.One(2) ? least : 1.1754943508222875e-38, singles), exponentBits, fractionBits),
                5 => Bits(Math.ScaleB(1, random.Next(66)) - random.Next(3), singles),
                _ => FloatValues.Next(ref random, exponentBits, fractionBits),
            };
            Store(VectorUnit.Xmm(s, 0) + i, first, singles);
            Store(VectorUnit.Xmm(s, 1) + i, second, singles);
        }
    }

    private static ulong Bits(double value, bool single) => single ? BitConverter.SingleToUInt32Bits((float)value) : BitConverter.DoubleToUInt64Bits(value);

    private static void Store(byte* to, ulong value, bool single)
    {
        if (single)
            *(uint*)to = (uint)value;
        else
            *(ulong*)to = value;
    }

    private static byte[] Program(ref CaseRandom random, out string text)
    {
        var a = new Assembler(64);
        int focus = random.Next(3);
        Label again = a.CreateLabel();
        a.Label(ref again);
        for (int i = 0; i < length; i++)
        {
            switch (random.Next(24))
            {
                case 0 or 1:
                    Integer(ref random, a);
                    break;
                case 2 or 3:
                    Branch(ref random, a);
                    break;
                case 4:
                    Control(ref random, a);
                    break;
                default:
                    a.AddInstruction(Next(ref random, Pick(ref random, focus == 0 || random.One(4) ? codes : frequent)));
                    break;
            }
        }
        a.dec(r15d);
        a.jne(again);
        a.hlt();
        text = string.Join('\n', a.Instructions);
        using var stream = new MemoryStream();
        a.Assemble(new StreamCodeWriter(stream), GuestMachine.CodeBase);
        return stream.ToArray();
    }

    private static Code Pick(ref CaseRandom random, Code[] from) => from[random.Next(from.Length)];

    private static void Integer(ref CaseRandom random, Assembler a)
    {
        var wide = new AssemblerRegister64(Register.RAX + General(ref random));
        var narrow = new AssemblerRegister32(Register.EAX + General(ref random));
        Label label = a.CreateLabel();
        var wideSource = new AssemblerRegister64(Register.RAX + General(ref random));
        var narrowSource = new AssemblerRegister32(Register.EAX + General(ref random));
        AssemblerMemoryOperand at = __[rdi + random.Next(6) * 32];
        switch (random.Next(28))
        {
            case 0: a.add(wide, (int)random.Next64()); return;
            case 1: a.add(narrow, (int)random.Next64()); return;
            case 2: a.add(wide, wideSource); return;
            case 3: a.add(narrow, narrowSource); return;
            case 4: a.sub(wide, (int)random.Next64()); return;
            case 5: a.mov(narrow, narrowSource); return;
            case 6: a.mov(wide, wideSource); return;
            case 7: a.mov(narrow, random.Next(100)); return;
            case 8: a.mov(narrow, __dword_ptr[at]); return;
            case 9: a.mov(wide, __qword_ptr[at]); return;
            case 10: a.mov(__dword_ptr[at], narrow); return;
            case 11: a.mov(__qword_ptr[at], wide); return;
            case 12: a.lea(wide, __[wideSource + (random.Next(3) * 8)]); return;
            case 13: a.movsxd(wide, narrowSource); return;
            case 14: a.inc(wide); return;
            case 15: a.inc(narrow); return;
            case 16: a.xor(narrow, narrowSource); return;
            case 17: a.sub(narrow, 1); a.jne(label); break;
            case 18: a.sub(wide, 8); a.jne(label); break;
            case 19: a.dec(narrow); a.jne(label); break;
            case 20: a.dec(wide); a.jne(label); break;
            case 21: a.jmp(label); break;
            case 22: a.test(narrow, random.One(2) ? narrow : narrowSource); Jump(ref random, a, label); break;
            case 23: a.test(wide, random.One(2) ? wide : wideSource); Jump(ref random, a, label); break;
            case 24: a.cmp(narrow, random.Next(3)); Jump(ref random, a, label); break;
            case 25: a.cmp(wide, random.Next(3)); Jump(ref random, a, label); break;
            case 26: a.cmp(narrow, random.One(2) ? narrow : narrowSource); Jump(ref random, a, label); break;
            default: a.cmp(wide, random.One(2) ? wide : wideSource); Jump(ref random, a, label); break;
        }
        a.AddInstruction(Next(ref random, Pick(ref random, frequent)));
        a.Label(ref label);
        a.nop();
    }

    private static void Branch(ref CaseRandom random, Assembler a)
    {
        Code[] comparisons = [Code.Comisd_xmm_xmmm64, Code.Ucomisd_xmm_xmmm64, Code.Comiss_xmm_xmmm32, Code.Ucomiss_xmm_xmmm32];
        Label label = a.CreateLabel();
        a.AddInstruction(Next(ref random, Pick(ref random, comparisons)));
        if (random.One(4))
            a.setb(new AssemblerRegister8(Register.R8L));
        Jump(ref random, a, label);
        a.AddInstruction(Next(ref random, Pick(ref random, frequent)));
        a.Label(ref label);
        a.nop();
    }

    private static void Jump(ref CaseRandom random, Assembler a, Label label)
    {
        Action<Label>[] branches = [a.jo, a.jno, a.jb, a.jae, a.je, a.jne, a.jbe, a.ja, a.js, a.jns, a.jp, a.jnp, a.jl, a.jge, a.jle, a.jg];
        branches[random.Next(16)](label);
    }

    /// <summary>The flags of what has been computed are in memory, other controls come from there.</summary>
    private static void Control(ref CaseRandom random, Assembler a)
    {
        AssemblerMemoryOperand at = __dword_ptr[rdi + random.Next(6) * 32];
        if (random.One(2))
        {
            a.stmxcsr(at);
            return;
        }
        uint[] values = [0x1f80, 0x1fa0, 0x1fa0, 0x1f80 | (uint)random.Next(64), 0x9fc0, 0x5fa0, 0x1f00];
        a.mov(at, values[random.Next(values.Length)]);
        a.ldmxcsr(at);
    }

    /// <summary>Not RSP, not RDI where the data is, not R15 which counts the turns.</summary>
    private static int General(ref CaseRandom random)
    {
        ReadOnlySpan<byte> numbers = [0, 1, 2, 3, 5, 6, 8, 9, 10, 11, 12, 13, 14];
        return numbers[random.Next(numbers.Length)];
    }

    private static Instruction Next(ref CaseRandom random, Code code)
    {
        OpCodeInfo info = code.ToOpCode();
        var instruction = new Instruction { Code = code };
        for (int i = 0; i < info.OpCount; i++)
        {
            string kind = info.GetOpKind(i).ToString();
            if (kind == "imm8")
            {
                instruction.SetOpKind(i, OpKind.Immediate8);
                instruction.Immediate8 = (byte)random.Next(256);
            }
            else if (kind == "mem" || (kind.EndsWith("_or_mem", StringComparison.Ordinal) && random.One(2)))
            {
                instruction.SetOpKind(i, OpKind.Memory);
                instruction.MemoryBase = Register.RDI;
                instruction.MemoryDisplSize = 8;
                int at = random.One(40) ? random.Next(256) : random.Next(6) * 32 + (random.One(3) ? 16 : 0);
                instruction.MemoryDisplacement64 = (ulong)at;
            }
            else
            {
                instruction.SetOpKind(i, OpKind.Register);
                int number = random.One(4) ? random.Next(16) : random.Next(5);
                instruction.SetOpRegister(i, kind[0] switch
                {
                    'x' => Register.XMM0 + number,
                    'y' => Register.YMM0 + number,
                    _ => (kind[1] == '3' ? Register.EAX : Register.RAX) + General(ref random),
                });
            }
        }
        return instruction;
    }

    private static void Prepare(GuestMachine m, byte[] program, ulong seed)
    {
        var random = new CaseRandom(seed);
        m.Start(64, program);
        CpuState* s = m.State;
        s->Cr0 |= Cr0.NE | Cr0.MP;
        s->Cr4 |= Cr4.OSFXSR | Cr4.OSXMMEXCPT | Cr4.OSXSAVE;
        s->Xcr0 = 7;
        m.Cpu.UpdateMode();
        for (int i = 0; i < 16; i++)
            s->Gpr[i] = i == 4 ? GuestMachine.StackTop : i == 7 ? data : i == 15 ? 3 : random.One(2) ? (ulong)random.Next(4) : FloatValues.NextInteger(ref random);
        bool usual = !random.One(3), singles = random.One(2);
        Fill(ref random, s->Fx + VectorUnit.FxXmm, 256, usual, singles);
        Fill(ref random, s->YmmHi, 256, usual, singles);
        Fill(ref random, m.Ram + data, dataSize, usual, singles);
        *(ushort*)(s->Fx + VectorUnit.FxControl) = 0x37f;
        *(ushort*)(s->Fx + VectorUnit.FxStatus) = 0;
        VectorUnit.Mxcsr(s) = random.Next(6) switch
        {
            0 => 0x1f80,
            1 => 0x1f80 | ((uint)random.Next64() & 0xe07f),
            2 => (uint)random.Next64() & 0xffff,
            _ => 0x1fa0,
        };
    }

    private static void Fill(ref CaseRandom random, byte* to, int bytes, bool usual, bool singles)
    {
        for (int i = 0; i < bytes; i += singles ? 4 : 8)
        {
            bool special = !usual || random.One(20);
            if (singles)
                *(uint*)(to + i) = special ? (uint)FloatValues.Next(ref random, 8, 23) : BitConverter.SingleToUInt32Bits((random.Next(2001) - 1000) / 16f * (1 + random.Next(3)) / 3);
            else
                *(ulong*)(to + i) = special ? FloatValues.Next(ref random, 11, 52) : BitConverter.DoubleToUInt64Bits((random.Next(2001) - 1000) / 16.0 * (1 + random.Next(3)) / 3);
        }
    }

    private static string? Difference(GuestMachine a, GuestMachine b)
    {
        CpuState* s = a.State, t = b.State;
        if (a.Fault != b.Fault || s->Rip != t->Rip)
            return $"exception {a.Fault} and {b.Fault}, RIP {s->Rip:x} and {t->Rip:x}";
        if (s->InstructionsRetired != t->InstructionsRetired)
            return $"{s->InstructionsRetired} and {t->InstructionsRetired} instructions";
        if (a.Cpu.Rflags != b.Cpu.Rflags)
            return $"RFLAGS {a.Cpu.Rflags:x} and {b.Cpu.Rflags:x}";
        if (VectorUnit.Mxcsr(s) != VectorUnit.Mxcsr(t))
            return $"MXCSR {VectorUnit.Mxcsr(s):x} and {VectorUnit.Mxcsr(t):x}";
        for (int i = 0; i < 16; i++)
        {
            if (s->Gpr[i] != t->Gpr[i])
                return $"general register {i}: {s->Gpr[i]:x} and {t->Gpr[i]:x}";
            var x = new Span<ulong>(VectorUnit.Xmm(s, i), 2);
            var y = new Span<ulong>(VectorUnit.Xmm(t, i), 2);
            if (!x.SequenceEqual(y))
                return $"XMM{i}: {x[1]:x16}{x[0]:x16} and {y[1]:x16}{y[0]:x16}";
            if (!new Span<byte>(VectorUnit.YmmHigh(s, i), 16).SequenceEqual(new Span<byte>(VectorUnit.YmmHigh(t, i), 16)))
                return $"YMM{i}, high half";
        }
        if (a.Fault >= 0 && a.FaultRip(a.Fault, longMode: true) != b.FaultRip(b.Fault, longMode: true))
            return "place of the exception";
        return new Span<byte>(a.Ram + data, dataSize).SequenceEqual(new Span<byte>(b.Ram + data, dataSize)) ? null : "memory";
    }
}
