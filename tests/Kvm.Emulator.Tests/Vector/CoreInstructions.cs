using Iced.Intel;
using Kvm.Emulator.Engine;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Tests.Vector;

/// <summary>Instructions with random operands, for comparisons.</summary>
internal static unsafe class CoreInstructions
{
    // Every feature that a model can announce.
    private static readonly bool[] announced = OpcodeFeatures.Announced(CpuModel.IntelSkylake
        .WithCpuid(1, 0, new CpuidLeaf(0, 0, uint.MaxValue, uint.MaxValue))
        .WithCpuid(7, 0, new CpuidLeaf(0, uint.MaxValue, uint.MaxValue, 0))
        .WithCpuid(0x80000001, 0, new CpuidLeaf(0, 0, uint.MaxValue, uint.MaxValue)));

    /// <summary>Every x87, MMX, SSE and AVX instruction that needs a core: some model can announce it, and it has no handler of its own.</summary>
    internal static IReadOnlyList<Code> All { get; } = [.. Enum.GetValues<Code>().Where(NeedsCore)];

    private static bool NeedsCore(Code code) => code != Code.INVALID && !code.ToOpCode().Fwait && VectorTraits.IsVector(code) && OpcodeTable.Instance[code].Handler == null
        && code.CpuidFeatures().All(f => announced[(int)f]);

    /// <summary>Where there can be a memory operand, one form in four has one; one in five uses one register for all operands. Forms 0 to 255 have all immediates.</summary>
    internal static Instruction Create(Code code, int form, CoreOperands random)
    {
        OpCodeInfo info = code.ToOpCode();
        var instruction = new Instruction { Code = code };
        bool memory = form == 0 || random.Next(4) == 0;
        int same = random.Next(5) == 0 ? random.Next(16) : -1, immediates = 0;
        for (int i = 0; i < info.OpCount; i++)
        {
            OpCodeOperandKind kind = info.GetOpKind(i);
            string name = kind.ToString();
            if (name.StartsWith("imm8", StringComparison.Ordinal))
            {
                instruction.SetOpKind(i, immediates++ == 0 ? Iced.Intel.OpKind.Immediate8 : Iced.Intel.OpKind.Immediate8_2nd);
                byte value = form < 256 ? (byte)(form * 167) : (byte)random.Next(256);
                if (immediates == 1)
                    instruction.Immediate8 = kind == OpCodeOperandKind.imm8_const_1 ? (byte)1 : value;
                else
                    instruction.Immediate8_2nd = (byte)random.Next(64);
            }
            else if (name == "mem" || (memory && name.EndsWith("_or_mem", StringComparison.Ordinal)))
            {
                instruction.SetOpKind(i, Iced.Intel.OpKind.Memory);
                instruction.MemoryBase = Register.RBX;
            }
            else
            {
                instruction.SetOpKind(i, Iced.Intel.OpKind.Register);
                instruction.SetOpRegister(i, RegisterOf(name, same >= 0 ? same : random.Next(16)));
            }
        }
        return instruction;
    }

    /// <summary>An immediate byte or a register in one: many forms.</summary>
    internal static bool HasImmediate(Code code) => Enumerable.Range(0, code.ToOpCode().OpCount)
        .Any(i => code.ToOpCode().GetOpKind(i) is OpCodeOperandKind.imm8 or OpCodeOperandKind.xmm_is4 or OpCodeOperandKind.ymm_is4);

    private static Register RegisterOf(string kind, int number) => kind switch
    {
        "st0" => Register.ST0,
        "al" => Register.AL,
        "ax" => Register.AX,
        "eax" => Register.EAX,
        "rax" => Register.RAX,
        _ when kind.StartsWith("mm_", StringComparison.Ordinal) => Register.MM0 + number % 8,
        _ when kind.StartsWith("xmm_", StringComparison.Ordinal) => Register.XMM0 + number,
        _ when kind.StartsWith("ymm_", StringComparison.Ordinal) => Register.YMM0 + number,
        _ when kind.StartsWith("r64_", StringComparison.Ordinal) => Register.RAX + number,
        _ when kind.StartsWith("r32_", StringComparison.Ordinal) => Register.EAX + number,
        _ when kind.StartsWith("r16_", StringComparison.Ordinal) => Register.AX + number,
        _ when kind.StartsWith("sti_", StringComparison.Ordinal) => Register.ST0 + number % 8,
        _ => throw new ArgumentException($"operand {kind} is none of a core", nameof(kind)),
    };
}
