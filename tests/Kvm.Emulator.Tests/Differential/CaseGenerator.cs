using Iced.Intel;

namespace Kvm.Emulator.Tests.Differential;

/// <summary>Random operands for an instruction form, in 64-bit code. Memory operands are based on R15; RSP and R15 are no operands.</summary>
internal sealed class CaseGenerator(Random random)
{
    private readonly ByteList bytes = new();

    private sealed class ByteList : CodeWriter
    {
        internal readonly List<byte> Bytes = [];

        public override void WriteByte(byte value) => Bytes.Add(value);
    }

    /// <summary>Null: these operands do not go together.</summary>
    internal byte[]? Encode(Code code, out Instruction instruction)
    {
        OpCodeInfo info = code.ToOpCode();
        instruction = default;
        instruction.Code = code;
        bool memory = random.Next(2) == 0;
        bool high = random.Next(4) == 0;
        for (int i = 0; i < info.OpCount; i++)
        {
            if (!Operand(ref instruction, i, info.GetOpKind(i), info, memory, high))
                return null;
        }
        bytes.Bytes.Clear();
        return Encoder.Create(64, bytes).TryEncode(instruction, 0x10000, out _, out _) ? [.. bytes.Bytes] : null;
    }

    private int General()
    {
        int n;
        do
            n = random.Next(15);
        while (n == 4);
        return n;
    }

    private Register Byte(bool high) => high ? Register.AH + random.Next(4) : General() is var n && n < 4 ? Register.AL + n : n < 8 ? Register.SPL + (n - 4) : Register.R8L + (n - 8);

    private bool Operand(ref Instruction instruction, int i, OpCodeOperandKind kind, OpCodeInfo info, bool memory, bool high)
    {
        string name = kind.ToString();
        if (name == "mem" || (memory && name.EndsWith("_or_mem", StringComparison.Ordinal)))
        {
            instruction.SetOpKind(i, OpKind.Memory);
            if (instruction.Mnemonic == Mnemonic.Lea)
            {
                Address(ref instruction);
                return true;
            }
            instruction.MemoryBase = Register.R15;
            int size = Math.Max(1, info.MemorySize.GetSize());
            // Now and then across the end of a page, and not where alignment would want it.
            int offset = random.Next(8) == 0 ? 0x1000 - random.Next(size + 1) : random.Next(4) == 0 ? random.Next(0x80) : random.Next(4) * 32;
            instruction.MemoryDisplacement64 = (ulong)offset;
            instruction.MemoryDisplSize = 8;
            return true;
        }
        Register register = kind switch
        {
            OpCodeOperandKind.al => Register.AL,
            OpCodeOperandKind.cl => Register.CL,
            OpCodeOperandKind.ax => Register.AX,
            OpCodeOperandKind.eax => Register.EAX,
            OpCodeOperandKind.rax => Register.RAX,
            OpCodeOperandKind.st0 => Register.ST0,
            OpCodeOperandKind.sti_opcode => Register.ST0 + random.Next(8),
            _ when name.StartsWith("r8_", StringComparison.Ordinal) => Byte(high),
            _ when name.StartsWith("r16_", StringComparison.Ordinal) => Register.AX + General(),
            _ when name.StartsWith("r32_", StringComparison.Ordinal) => Register.EAX + General(),
            _ when name.StartsWith("r64_", StringComparison.Ordinal) => Register.RAX + General(),
            _ when name.StartsWith("xmm_", StringComparison.Ordinal) => Register.XMM0 + random.Next(16),
            _ when name.StartsWith("ymm_", StringComparison.Ordinal) => Register.YMM0 + random.Next(16),
            _ when name.StartsWith("mm_", StringComparison.Ordinal) => Register.MM0 + random.Next(8),
            _ => Register.None,
        };
        if (register != Register.None)
        {
            instruction.SetOpKind(i, OpKind.Register);
            instruction.SetOpRegister(i, register);
            return true;
        }
        return Immediate(ref instruction, i, kind, name);
    }

    /// <summary>LEA reads nothing: its address may be any.</summary>
    private void Address(ref Instruction instruction)
    {
        Register first = random.Next(3) == 0 ? Register.EAX : Register.RAX;
        instruction.MemoryBase = first + General();
        if (random.Next(3) != 0)
        {
            instruction.MemoryIndex = first + General();
            instruction.MemoryIndexScale = 1 << random.Next(4);
        }
        int displacement = (int)Value();
        instruction.MemoryDisplacement64 = first == Register.EAX ? (uint)displacement : (ulong)displacement;
        instruction.MemoryDisplSize = first == Register.EAX ? 4 : 8;
    }

    private bool Immediate(ref Instruction instruction, int i, OpCodeOperandKind kind, string name)
    {
        if (!name.StartsWith("imm", StringComparison.Ordinal))
            return false;
        switch (kind)
        {
            case OpCodeOperandKind.imm8_const_1:
                instruction.SetOpKind(i, OpKind.Immediate8);
                instruction.Immediate8 = 1;
                return true;
            case OpCodeOperandKind.imm4_m2z:
                return false;
        }
        OpKind to = kind switch
        {
            OpCodeOperandKind.imm8 => i > 0 && instruction.GetOpKind(i - 1) is OpKind.Immediate8 or OpKind.Immediate16 ? OpKind.Immediate8_2nd : OpKind.Immediate8,
            OpCodeOperandKind.imm8sex16 => OpKind.Immediate8to16,
            OpCodeOperandKind.imm8sex32 => OpKind.Immediate8to32,
            OpCodeOperandKind.imm8sex64 => OpKind.Immediate8to64,
            OpCodeOperandKind.imm16 => OpKind.Immediate16,
            OpCodeOperandKind.imm32 => OpKind.Immediate32,
            OpCodeOperandKind.imm32sex64 => OpKind.Immediate32to64,
            _ => OpKind.Immediate64,
        };
        instruction.SetOpKind(i, to);
        ulong value = Value();
        switch (to)
        {
            case OpKind.Immediate8: instruction.Immediate8 = (byte)value; break;
            case OpKind.Immediate8_2nd: instruction.Immediate8_2nd = (byte)value; break;
            case OpKind.Immediate8to16: instruction.Immediate8to16 = (sbyte)value; break;
            case OpKind.Immediate8to32: instruction.Immediate8to32 = (sbyte)value; break;
            case OpKind.Immediate8to64: instruction.Immediate8to64 = (sbyte)value; break;
            case OpKind.Immediate16: instruction.Immediate16 = (ushort)value; break;
            case OpKind.Immediate32: instruction.Immediate32 = (uint)value; break;
            case OpKind.Immediate32to64: instruction.Immediate32to64 = (int)value; break;
            default: instruction.Immediate64 = value; break;
        }
        return true;
    }

    /// <summary>Operands near the edges of every width find more than uniform ones.</summary>
    internal ulong Value()
    {
        ulong value = (ulong)random.NextInt64(long.MinValue, long.MaxValue);
        return random.Next(6) switch
        {
            0 => (ulong)random.Next(-3, 4),
            1 => 1UL << random.Next(64),
            2 => (1UL << random.Next(64)) - 1,
            3 => value >> random.Next(64),
            _ => value,
        };
    }

    private static readonly ulong[] specials =
    [
        0, 0x8000000000000000, 0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000, 0x7ff0000000000001, 0x000fffffffffffff, 1,
        0x7fefffffffffffff, 0x0010000000000000, 0x3f8000003f800000, 0x7f8000007fc00001, 0xff8000007f800001, 0x0000000100800000, 0x807fffff7f7fffff, 0x41e0000000000000, 0x43e0000000000000, 0x4f0000004effffff,
    ];

    /// <summary>Eight bytes of a vector register: integers, or floating-point numbers of interest.</summary>
    internal ulong VectorValue() => random.Next(4) switch
    {
        0 => specials[random.Next(specials.Length)],
        1 => (ulong)BitConverter.DoubleToInt64Bits((random.NextDouble() - 0.5) * Math.Pow(2, random.Next(-40, 70))),
        2 => (ulong)BitConverter.SingleToUInt32Bits((float)((random.NextDouble() - 0.5) * Math.Pow(2, random.Next(-20, 40)))) << 32 | BitConverter.SingleToUInt32Bits((float)(random.Next(-1000, 1000) / 8.0)),
        _ => Value(),
    };
}
