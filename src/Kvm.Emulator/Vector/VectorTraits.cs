using Iced.Intel;

namespace Kvm.Emulator.Vector;

/// <summary>What <see cref="VectorUnit"/> must know of an instruction, from Iced's tables; computed once for a code.</summary>
internal sealed class VectorTraits
{
    private static readonly VectorTraits?[] known = new VectorTraits?[(int)Enum.GetValues<Code>().Max() + 1];

    internal readonly VectorFlags Flags;
    internal readonly ushort MemoryBytes, Alignment, X87Opcode;

    internal static VectorTraits Of(Code code) => Volatile.Read(ref known[(int)code]) ?? Create(code);

    private static VectorTraits Create(Code code)
    {
        var traits = new VectorTraits(code);
        Volatile.Write(ref known[(int)code], traits);
        return traits;
    }

    private VectorTraits(Code code)
    {
        Instruction example = Example(code);
        Flags = FlagsOf(example);
        MemoryBytes = (ushort)code.ToOpCode().MemorySize.GetSize();
        Alignment = AlignmentOf(code, MemoryBytes);
        X87Opcode = OpcodeOf(code);
    }

    /// <summary>The form with a memory operand where there is one.</summary>
    private static Instruction Example(Code code)
    {
        OpCodeInfo info = code.ToOpCode();
        Instruction example = default;
        example.Code = code;
        example.CodeSize = CodeSize.Code64;
        for (int i = 0; i < info.OpCount; i++)
        {
            string kind = info.GetOpKind(i).ToString();
            bool memory = kind == "mem" || kind.EndsWith("_or_mem", StringComparison.Ordinal);
            example.SetOpKind(i, memory ? OpKind.Memory : kind.StartsWith("imm", StringComparison.Ordinal) ? OpKind.Immediate8 : OpKind.Register);
            if (memory)
                example.MemoryBase = Register.RAX;
            else if (!kind.StartsWith("imm", StringComparison.Ordinal))
                example.SetOpRegister(i, First(kind));
        }
        return example;
    }

    private static Register First(string kind) => kind switch
    {
        _ when kind.StartsWith("ymm", StringComparison.Ordinal) => Register.YMM0,
        _ when kind.StartsWith("xmm", StringComparison.Ordinal) => Register.XMM0,
        _ when kind.StartsWith("mm", StringComparison.Ordinal) => Register.MM0,
        _ when kind.StartsWith("st", StringComparison.Ordinal) => Register.ST0,
        _ when kind.StartsWith("r64", StringComparison.Ordinal) => Register.RAX,
        _ => Register.EAX,
    };

    /// <summary>x87, MMX, SSE or AVX computation: everything whose operands are ST, MM, XMM or YMM registers.</summary>
    internal static bool IsVector(Code code)
    {
        if (code.Encoding() is not (EncodingKind.Legacy or EncodingKind.VEX))
            return false;
        foreach (CpuidFeature feature in code.CpuidFeatures())
        {
            if (Engine.OpcodeFeatures.UnitOf(feature) != Engine.OpcodeUnit.Integer)
                return true;
        }
        return false;
    }

    private static VectorFlags FlagsOf(in Instruction instruction)
    {
        Code code = instruction.Code;
        OpCodeInfo info = code.ToOpCode();
        VectorFlags flags = VectorFlags.None;
        bool mm = false, xmm = false, x87 = false;
        for (int i = 0; i < info.OpCount; i++)
        {
            string kind = info.GetOpKind(i).ToString();
            mm |= kind.StartsWith("mm_", StringComparison.Ordinal);
            xmm |= kind.StartsWith("xmm", StringComparison.Ordinal) || kind.StartsWith("ymm", StringComparison.Ordinal);
        }
        foreach (CpuidFeature feature in code.CpuidFeatures())
        {
            x87 |= feature is CpuidFeature.FPU or CpuidFeature.FPU287 or CpuidFeature.FPU387;
            mm |= feature is CpuidFeature.MMX;
        }
        if (x87)
            flags |= VectorFlags.X87 | VectorFlags.Waits;
        if (mm)
            flags |= VectorFlags.Mmx | VectorFlags.Waits;
        if (code.Encoding() == EncodingKind.VEX)
            flags |= VectorFlags.Avx;
        else if (!x87 && (xmm || !mm))
            flags |= VectorFlags.Sse;
        if (code.Mnemonic() is Mnemonic.Movaps or Mnemonic.Movapd or Mnemonic.Movdqa or Mnemonic.Movntdq or Mnemonic.Movntps or Mnemonic.Movntpd or Mnemonic.Movntdqa)
            flags |= VectorFlags.AlignedMove;
        if (code.CpuidFeatures().Contains(CpuidFeature.SHA))
            flags |= VectorFlags.UnalignedOnAmd;
        if (!x87 && RaisesSimdExceptions(code.Mnemonic()))
            flags |= VectorFlags.Float;
        // Iced counts the x87 condition codes as flags too.
        const RflagsBits arithmeticFlags = RflagsBits.OF | RflagsBits.SF | RflagsBits.ZF | RflagsBits.AF | RflagsBits.CF | RflagsBits.PF;
        if ((instruction.RflagsModified & arithmeticFlags) != RflagsBits.None)
            flags |= VectorFlags.WritesFlags;
        if ((instruction.RflagsRead & arithmeticFlags) != RflagsBits.None)
            flags |= VectorFlags.ReadsFlags;
        return flags | Memory(info, instruction);
    }

    private static VectorFlags Memory(OpCodeInfo info, in Instruction instruction)
    {
        VectorFlags flags = VectorFlags.None;
        foreach (UsedMemory memory in new InstructionInfoFactory().GetInfo(instruction).GetUsedMemory())
        {
            if (memory.Access is OpAccess.Read or OpAccess.CondRead or OpAccess.ReadWrite or OpAccess.ReadCondWrite)
                flags |= VectorFlags.ReadsMemory;
            if (memory.Access is OpAccess.Write or OpAccess.CondWrite or OpAccess.ReadWrite or OpAccess.ReadCondWrite)
                flags |= VectorFlags.WritesMemory;
        }
        return flags;
    }

    /// <summary>Legacy-encoded 16-byte operands must be aligned, except those of instructions made for unaligned data; VEX-encoded ones need not be, except of aligned moves.</summary>
    private static ushort AlignmentOf(Code code, ushort size)
    {
        switch (code.Mnemonic())
        {
            case Mnemonic.Vmovaps or Mnemonic.Vmovapd or Mnemonic.Vmovdqa or Mnemonic.Vmovntdq or Mnemonic.Vmovntps or Mnemonic.Vmovntpd or Mnemonic.Vmovntdqa:
                return size;
            case Mnemonic.Movups or Mnemonic.Movupd or Mnemonic.Movdqu or Mnemonic.Lddqu
                or Mnemonic.Pcmpestri or Mnemonic.Pcmpestrm or Mnemonic.Pcmpistri or Mnemonic.Pcmpistrm
                or Mnemonic.Pcmpestri64 or Mnemonic.Pcmpestrm64:
                return 1;
            default:
                return code.Encoding() == EncodingKind.Legacy && size == 16 ? (ushort)16 : (ushort)1;
        }
    }

    /// <summary>The immediate byte, or the number of a register in it; 0 without one.</summary>
    internal static byte Immediate(in Instruction instruction)
    {
        OpCodeInfo info = instruction.Code.ToOpCode();
        for (int i = 0; i < instruction.OpCount; i++)
        {
            if (instruction.GetOpKind(i) == OpKind.Immediate8)
                return instruction.Immediate8;
            if (info.GetOpKind(i) is OpCodeOperandKind.xmm_is4 or OpCodeOperandKind.ymm_is4)
                return (byte)instruction.GetOpRegister(i).GetNumber();
        }
        return 0;
    }

    /// <summary>FOP: bits 2:0 of the first opcode byte and the ModRM byte.</summary>
    private static ushort OpcodeOf(Code code)
    {
        foreach (CpuidFeature feature in code.CpuidFeatures())
        {
            if (feature is not (CpuidFeature.FPU or CpuidFeature.FPU287 or CpuidFeature.FPU387))
                continue;
            uint opcode = code.ToOpCode().OpCode;
            return (ushort)(opcode > 0xff ? opcode & 0x7ff : (opcode & 7) << 8);
        }
        return 0;
    }

    private static bool RaisesSimdExceptions(Mnemonic mnemonic)
    {
        string name = mnemonic.ToString();
        if (name[0] == 'V')
            name = name[1..];
        if (!(name.EndsWith("ps", StringComparison.OrdinalIgnoreCase) || name.EndsWith("pd", StringComparison.OrdinalIgnoreCase)
            || name.EndsWith("ss", StringComparison.OrdinalIgnoreCase) || name.EndsWith("sd", StringComparison.OrdinalIgnoreCase)
            || name.StartsWith("Cvt", StringComparison.OrdinalIgnoreCase)))
            return false;
        string lower = name.ToLowerInvariant();
        return arithmetic.Any(lower.StartsWith);
    }

    private static readonly string[] arithmetic =
        ["add", "sub", "mul", "div", "sqrt", "min", "max", "cmp", "cvt", "round", "comis", "ucomis", "dpp", "hadd", "hsub", "fmadd", "fmsub", "fnmadd", "fnmsub"];
}
