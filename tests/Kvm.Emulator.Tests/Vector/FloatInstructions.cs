using Iced.Intel;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Tests.Vector;

/// <summary>Random floating-point instructions of a given code, and operands for them.</summary>
internal static unsafe class FloatInstructions
{
    /// <summary>Registers, memory or register operand, and immediate at random.</summary>
    internal static Instruction Next(ref CaseRandom random, Code code)
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
            else if (kind.EndsWith("_or_mem", StringComparison.Ordinal) && random.One(2))
            {
                instruction.SetOpKind(i, OpKind.Memory);
                instruction.MemoryBase = Register.RBX;
                instruction.MemoryDisplSize = 1;
                instruction.MemoryDisplacement64 = 0x40;
            }
            else
            {
                instruction.SetOpKind(i, OpKind.Register);
                // Few registers, so that sources and destination are often the same one.
                int number = random.One(3) ? random.Next(16) : random.Next(3);
                instruction.SetOpRegister(i, kind[..2] switch
                {
                    "mm" => Register.MM0 + (number & 7),
                    "ym" => Register.YMM0 + number,
                    "xm" => Register.XMM0 + number,
                    "r3" => Register.EAX + number,
                    _ => Register.RAX + number,
                });
            }
        }
        return instruction;
    }

    /// <summary>All registers, whatever they are for.</summary>
    internal static void Registers(ref CaseRandom random, CoreComparison comparison)
    {
        comparison.Randomize(ref random);
        CpuState* s = comparison.State;
        *(ushort*)(s->Fx + VectorUnit.FxControl) = 0x37f;
        *(ushort*)(s->Fx + VectorUnit.FxStatus) = (ushort)(random.Next64() & 0x7f00);
        s->Fx[VectorUnit.FxTags] = (byte)random.Next64();
        Format format = Format.Of(comparison.Selected.Code);
        for (int i = 0; i < 16; i++)
        {
            Fill(ref random, VectorUnit.Xmm(s, i), 16, format);
            Fill(ref random, VectorUnit.YmmHigh(s, i), 16, format);
        }
    }

    /// <summary>The operands of the instruction, some of them related to each other; MXCSR with every control but the masks.</summary>
    internal static void Operands(ref CaseRandom random, CoreComparison comparison)
    {
        CpuState* s = comparison.State;
        Instruction instruction = comparison.Selected;
        Format format = Format.Of(instruction.Code);
        for (int i = 0; i < instruction.OpCount; i++)
        {
            if (instruction.GetOpKind(i) != OpKind.Register)
                continue;
            Register register = instruction.GetOpRegister(i);
            int number = register.GetNumber();
            if (register.IsMM())
                Fill(ref random, s->Fx + VectorUnit.FxSt + ((number - (*(ushort*)(s->Fx + VectorUnit.FxStatus) >> 11)) & 7) * 16, 8, format);
            else if (register.IsGPR())
                s->Gpr[number] = FloatValues.NextInteger(ref random);
            else
                Fill(ref random, VectorUnit.Xmm(s, number), 16, format);
            if (register.IsYMM())
                Fill(ref random, VectorUnit.YmmHigh(s, number), 16, format);
        }
        Fill(ref random, comparison.Area, 32, format);
        if (random.One(2))
            Relate(ref random, comparison, format);
        VectorUnit.Mxcsr(s) = Mxcsr(ref random);
    }

    private static uint Mxcsr(ref CaseRandom random)
    {
        uint flags = (uint)random.Next64() & VectorUnit.MxcsrFlags;
        return random.Next(6) switch
        {
            0 => 0x1f80,
            1 => 0x1fa0,
            2 => 0x1fa0 | flags,
            3 => 0x1f80 | ((uint)random.Next64() & 0x6000),
            4 => 0x1f80 | ((uint)random.Next64() & 0x8040),
            _ => 0x1f80 | ((uint)random.Next64() & 0xe040) | flags,
        };
    }

    private static void Fill(ref CaseRandom random, byte* to, int bytes, Format format)
    {
        bool usual = random.One(3);
        for (int i = 0; i < bytes; i += format.Bytes)
        {
            ulong value = format.ExponentBits == 0 ? FloatValues.NextInteger(ref random)
                : usual ? Ordinary(ref random, format) : FloatValues.Next(ref random, format.ExponentBits, format.FractionBits);
            Store(to + i, value, format.Bytes);
        }
    }

    /// <summary>A number not far from 1, so that whole vectors are without special cases now and then.</summary>
    private static ulong Ordinary(ref CaseRandom random, Format format)
    {
        ulong bias = (1UL << (format.ExponentBits - 1)) - 1;
        return (random.Next64() & 1) << (format.ExponentBits + format.FractionBits) | (bias + (ulong)random.Next(8) - 4) << format.FractionBits
            | (random.Next64() & ((1UL << format.FractionBits) - 1));
    }

    /// <summary>Elements of one operand become close to those of another, to their negative, to products, quotients and squares of elements, or such that product or quotient is at an end of the range.</summary>
    private static void Relate(ref CaseRandom random, CoreComparison comparison, Format format)
    {
        if (format.ExponentBits is not (8 or 11))
            return;
        byte* first = Operand(comparison, random.Next(4)), second = Operand(comparison, random.Next(4)), to = Operand(comparison, random.Next(4));
        int how = random.Next(6);
        double least = format.Bytes == 8 ? 2.2250738585072014e-308 : 1.1754943508222875e-38, most = format.Bytes == 8 ? double.MaxValue : float.MaxValue;
        double end = random.Next(4) switch { 0 or 1 => least, 2 => most, _ => least * (format.Bytes == 8 ? double.BitDecrement(1) - 1 : -1.1920928955078125e-07) };
        for (int i = 0; i < 16; i += format.Bytes)
        {
            double a = Load(first + i, format.Bytes), b = Load(second + i, format.Bytes);
            double value = how switch { 0 => a, 1 => -(a * b), 2 => a / b, 3 => a * a, 4 => end / a, _ => a / end };
            ulong bits = format.Bytes == 8 ? BitConverter.DoubleToUInt64Bits(value) : BitConverter.SingleToUInt32Bits((float)value);
            Store(to + i, FloatValues.Near(ref random, bits, format.ExponentBits, format.FractionBits), format.Bytes);
        }
    }

    /// <summary>Low half of a vector operand of the instruction; its memory operand where that is one.</summary>
    private static byte* Operand(CoreComparison comparison, int index)
    {
        Instruction instruction = comparison.Selected;
        if (index < instruction.OpCount && instruction.GetOpKind(index) == OpKind.Register && instruction.GetOpRegister(index) is var register
            && (register.IsXMM() || register.IsYMM()))
            return VectorUnit.Xmm(comparison.State, register.GetNumber());
        return comparison.Area;
    }

    private static double Load(byte* from, int bytes) => bytes == 8 ? *(double*)from : *(float*)from;

    private static void Store(byte* to, ulong value, int bytes)
    {
        switch (bytes)
        {
            case 2: *(ushort*)to = (ushort)value; break;
            case 4: *(uint*)to = (uint)value; break;
            default: *(ulong*)to = value; break;
        }
    }

    /// <summary>What the sources of an instruction consist of; no exponent: integers.</summary>
    private readonly record struct Format(int Bytes, int ExponentBits, int FractionBits)
    {
        private static readonly Dictionary<Code, Format> known = [];

        internal static Format Of(Code code)
        {
            lock (known)
                return known.TryGetValue(code, out Format format) ? format : known[code] = Find(code);
        }

        private static Format Find(Code code)
        {
            string name = code.Mnemonic().ToString().ToLowerInvariant();
            int to = name.IndexOf('2', StringComparison.Ordinal);
            string source = name.Contains("cvt", StringComparison.Ordinal) ? name[(to - 2)..to] : name[^2..];
            return source switch
            {
                "ps" or "ss" => new Format(4, 8, 23),
                "pd" or "sd" => new Format(8, 11, 52),
                "ph" => new Format(2, 5, 10),
                "dq" or "pi" => new Format(4, 0, 0),
                _ => new Format(8, 0, 0),
            };
        }
    }
}
