using Iced.Intel;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Engine;

/// <summary>How the decoding of one instruction ended.</summary>
internal enum DecodeResult
{
    Done,
    /// <summary>The instruction goes on behind the bytes given.</summary>
    NeedsMoreBytes,
}

/// <summary>Decodes single instructions into <see cref="Op"/>. One per processor; allocates nothing per instruction.</summary>
internal sealed unsafe class InstructionDecoder
{
    private readonly ByteSource source = new();
    private readonly Decoder[] decoders;
    private readonly bool[] features;
    private readonly VectorOps vectors;
    private readonly bool amd;

    private sealed class ByteSource : CodeReader
    {
        internal byte* Next, End;
        public override int ReadByte() => Next < End ? *Next++ : -1;
    }

    internal InstructionDecoder(CpuModel model, VectorEngine vectorEngine = VectorEngine.Auto)
    {
        vectors = VectorOps.For(vectorEngine);
        features = OpcodeFeatures.Announced(model);
        DecoderOptions options = DecoderOptions.ForceReservedNop;
        amd = model.Vendor == CpuVendor.Amd;
        if (amd)
            options |= DecoderOptions.AMD;
        if (!features[(int)CpuidFeature.BMI1])
            options |= DecoderOptions.NoMPFX_0FBC;
        if (!features[(int)CpuidFeature.LZCNT])
            options |= DecoderOptions.NoMPFX_0FBD;
        if (!model.FeatureExtEcx(0))
            options |= DecoderOptions.NoLahfSahf64;
        decoders = [Decoder.Create(16, source, options), Decoder.Create(32, source, options), Decoder.Create(64, source, options)];
    }

    /// <summary>Decodes the instruction at <paramref name="bytes"/>, of which <paramref name="available"/> (1–15) may be read, for a code size of 0 (16), 1 (32) or 2 (64 bits).</summary>
    internal DecodeResult Decode(byte* bytes, int available, int codeSize, out Op op)
    {
        op = default;
        Decoder decoder = decoders[codeSize];
        source.Next = bytes;
        source.End = bytes + Math.Min(available, 15);
        decoder.IP = 0;
        decoder.Decode(out Instruction instruction);
        int length = (int)(source.Next - bytes);
        if (instruction.Code == Code.INVALID)
        {
            if (decoder.LastError == DecoderError.NoMoreBytes && available < 15)
                return DecodeResult.NeedsMoreBytes;
            op.Handler = TooLong(bytes, length, available, codeSize) ? &Data.Gp : &Data.Ud;
            op.Length = (byte)Math.Clamp(length, 1, 15);
            op.AddressMask = ulong.MaxValue;
            op.Rm = op.Base = op.Index = Op.NoRegister;
            return DecodeResult.Done;
        }
        OperandLayout layout = OperandLayout.Of(instruction.Code);
        op.Code = instruction.Code;
        op.Length = (byte)length;
        op.Width = layout.Width != 0 ? layout.Width : codeSize == 2 ? (byte)8 : (byte)4;
        ScanPrefixes(bytes, codeSize, ref op, instruction);
        Operands(instruction, layout, ref op);
        op.Handler = Handler(ref op, instruction);
        return DecodeResult.Done;
    }

    /// <summary>As <see cref="Decode(byte*, int, int, out Op)"/> sees it, at address zero.</summary>
    internal void Decode(byte* bytes, int available, int codeSize, out Instruction instruction)
    {
        source.Next = bytes;
        source.End = bytes + available;
        Decoder decoder = decoders[codeSize];
        decoder.IP = 0;
        decoder.Decode(out instruction);
    }

    /// <summary>The handler, or one that faults for what the processor does not have (the code is INVALID then).</summary>
    private delegate*<Processor, Op*, ExecStatus> Handler(ref Op op, in Instruction instruction)
    {
        // AMD reserves the prefetch hints for memory operands.
        if (amd && !op.HasMemory && op.Code is Code.Reservednop_rm16_r16_0F0D or Code.Reservednop_rm32_r32_0F0D or Code.Reservednop_rm64_r64_0F0D)
        {
            op.Code = Code.INVALID;
            return &Data.Ud;
        }
        ref readonly OpcodeRow row = ref OpcodeTable.Instance[op.Code];
        bool missing = false;
        OpcodeUnit unit = OpcodeUnit.Integer;
        foreach (CpuidFeature feature in op.Code.CpuidFeatures())
        {
            missing |= !features[(int)feature];
            unit = (OpcodeUnit)Math.Max((int)unit, (int)OpcodeFeatures.UnitOf(feature));
        }
        if (row.Handler != null && (!missing || (row.Flags & OpcodeFlags.AnyFeature) != 0))
            return row.Handler;
        if (unit != OpcodeUnit.Integer && !missing && VectorTraits.IsVector(op.Code) && vectors.Get(instruction) is var vector && vector != null)
        {
            op.Imm = (ulong)vector;
            op.Width = VectorTraits.Immediate(instruction);
            if (!op.HasMemory)
                op.Disp = instruction.Immediate8_2nd;
            return &VectorUnit.Execute;
        }
        op.Code = Code.INVALID;
        return unit switch
        {
            OpcodeUnit.X87 => &Data.X87,
            OpcodeUnit.Mmx => &Data.Mmx,
            OpcodeUnit.Sse => &Data.Sse,
            OpcodeUnit.Avx => &Data.Avx,
            _ => &Data.Ud,
        };
    }

    // An instruction that would be longer than 15 bytes raises #GP; anything else that cannot be decoded raises #UD.
    private bool TooLong(byte* bytes, int length, int available, int codeSize)
    {
        if (length < 15 || available < 15)
            return false;
        int prefixes = 0;
        while (prefixes < 15 && IsPrefix(bytes[prefixes], codeSize))
            prefixes++;
        if (prefixes == 15)
            return true;
        // One prefix of each kind is enough to decode what follows them.
        byte* shorter = stackalloc byte[30];
        int n = 0;
        ulong seen = 0;
        for (int i = prefixes - 1; i >= 0; i--)
        {
            int kind = bytes[i] switch { 0x66 => 0, 0x67 => 1, 0xf0 => 2, 0xf2 or 0xf3 => 3, >= 0x40 and <= 0x4f => 5, _ => 4 };
            if (kind == 5 && i != prefixes - 1)
                continue;
            if ((seen >> kind & 1) == 0)
                shorter[n++] = bytes[i];
            seen |= 1UL << kind;
        }
        new Span<byte>(shorter, n).Reverse();
        for (int i = prefixes; i < 15; i++)
            shorter[n++] = bytes[i];
        // The bytes behind the fifteenth do not matter to the length of what they complete.
        for (int i = 0; i < 10; i++)
            shorter[n++] = 0;
        source.Next = shorter;
        source.End = shorter + Math.Min(n, 15);
        Decoder decoder = decoders[codeSize];
        decoder.IP = 0;
        decoder.Decode(out Instruction instruction);
        return instruction.Code != Code.INVALID;
    }

    private static bool IsPrefix(byte b, int codeSize) => b is 0x26 or 0x2e or 0x36 or 0x3e or 0x64 or 0x65 or 0x66 or 0x67 or 0xf0 or 0xf2 or 0xf3
        || (codeSize == 2 && b is >= 0x40 and <= 0x4f);

    private static void ScanPrefixes(byte* bytes, int codeSize, ref Op op, in Instruction instruction)
    {
        OpPrefixes prefixes = OpPrefixes.None;
        for (byte* p = bytes; IsPrefix(*p, codeSize); p++)
        {
            if (*p == 0x66)
                prefixes |= OpPrefixes.OperandSize;
            else if (*p == 0x67)
                prefixes |= OpPrefixes.AddressSize;
            else if (codeSize == 2 && *p is >= 0x40 and <= 0x4f && !IsPrefix(p[1], codeSize))
                prefixes |= OpPrefixes.Rex | ((*p & 8) != 0 ? OpPrefixes.RexW : 0);
        }
        if (instruction.HasLockPrefix)
            prefixes |= OpPrefixes.Lock;
        if (instruction.HasRepePrefix)
            prefixes |= OpPrefixes.Rep;
        if (instruction.HasRepnePrefix)
            prefixes |= OpPrefixes.Repne;
        bool other = (prefixes & OpPrefixes.AddressSize) != 0;
        op.AddressWidth = codeSize switch { 0 => other ? (byte)4 : (byte)2, 1 => other ? (byte)2 : (byte)4, _ => other ? (byte)4 : (byte)8 };
        op.AddressMask = op.AddressWidth switch { 2 => ushort.MaxValue, 4 => uint.MaxValue, _ => ulong.MaxValue };
        op.Prefixes = prefixes;
    }

    /// <summary>The operands of an instruction, in the fields of the op that its handler looks at.</summary>
    internal static void Operands(in Instruction instruction, OperandLayout layout, ref Op op)
    {
        op.Reg = op.Rm = op.Base = op.Index = Op.NoRegister;
        op.Segment = Seg.DS;
        int immediates = 0;
        for (int i = 0; i < instruction.OpCount; i++)
        {
            if (instruction.GetOpKind(i) == Iced.Intel.OpKind.Register)
                Register(instruction.GetOpRegister(i), layout.Roles[i], ref op);
            else
                Other(instruction, i, ref immediates, ref op);
        }
        Implicit(instruction, layout, ref op);
        if (layout.Condition >= 0)
            op.Imm2 = (ushort)layout.Condition;
        if ((layout.Traits & OperandTraits.SignedImmediate) != 0)
            op.Imm = op.Width switch { 1 => (ulong)(sbyte)op.Imm, 2 => (ulong)(short)op.Imm, 4 => (ulong)(int)op.Imm, _ => op.Imm };
    }

    private static void Register(Register register, OperandRole role, ref Op op)
    {
        byte number = RegisterNumber(register);
        switch (role)
        {
            case OperandRole.Reg: op.Reg = number; break;
            case OperandRole.Rm: op.Rm = number; break;
            case OperandRole.Vvvv: op.Imm2 = number; break;
            default: break;
        }
    }

    // Accumulators and registers in the opcode stand for the ModRM fields their instruction does not have.
    private static void Implicit(in Instruction instruction, OperandLayout layout, ref Op op)
    {
        for (int i = 0; i < instruction.OpCount; i++)
        {
            if (layout.Roles[i] != OperandRole.Implicit || instruction.GetOpKind(i) != Iced.Intel.OpKind.Register)
                continue;
            byte number = RegisterNumber(instruction.GetOpRegister(i));
            if (op.Reg == Op.NoRegister)
                op.Reg = number;
            if (!op.HasMemory && op.Rm == Op.NoRegister)
                op.Rm = number;
        }
        if ((layout.Traits & OperandTraits.OpcodeRegister) != 0 && !op.HasMemory && op.Rm == Op.NoRegister)
            op.Rm = op.Reg;
    }

    private static void Other(in Instruction instruction, int operand, ref int immediates, ref Op op)
    {
        Iced.Intel.OpKind kind = instruction.GetOpKind(operand);
        switch (kind)
        {
            case Iced.Intel.OpKind.NearBranch16:
                op.Imm = (ulong)(short)(instruction.NearBranch16 - op.Length);
                break;
            case Iced.Intel.OpKind.NearBranch32:
                op.Imm = (ulong)(int)(instruction.NearBranch32 - op.Length);
                break;
            case Iced.Intel.OpKind.NearBranch64:
                op.Imm = instruction.NearBranch64 - op.Length;
                break;
            case Iced.Intel.OpKind.FarBranch16:
                op.Imm = instruction.FarBranch16;
                op.Imm2 = instruction.FarBranchSelector;
                break;
            case Iced.Intel.OpKind.FarBranch32:
                op.Imm = instruction.FarBranch32;
                op.Imm2 = instruction.FarBranchSelector;
                break;
            case Iced.Intel.OpKind.Memory:
                Memory(instruction, ref op);
                break;
            case Iced.Intel.OpKind.MemorySegSI or Iced.Intel.OpKind.MemorySegESI or Iced.Intel.OpKind.MemorySegRSI
                or Iced.Intel.OpKind.MemorySegDI or Iced.Intel.OpKind.MemorySegEDI or Iced.Intel.OpKind.MemorySegRDI:
                op.Prefixes |= OpPrefixes.Memory;
                op.Segment = Segment(instruction.MemorySegment);
                break;
            case Iced.Intel.OpKind.MemoryESDI or Iced.Intel.OpKind.MemoryESEDI or Iced.Intel.OpKind.MemoryESRDI:
                op.Prefixes |= OpPrefixes.Memory;
                break;
            default:
                ulong value = instruction.GetImmediate(operand);
                if (immediates++ == 0)
                    op.Imm = value;
                else
                    op.Imm2 = (ushort)value;
                break;
        }
    }

    private static void Memory(in Instruction instruction, ref Op op)
    {
        op.Prefixes |= OpPrefixes.Memory;
        op.Segment = Segment(instruction.MemorySegment);
        op.Disp = (long)instruction.MemoryDisplacement64;
        Register register = instruction.MemoryBase;
        if (register is Iced.Intel.Register.RIP or Iced.Intel.Register.EIP)
        {
            op.Base = Op.RipBase;
            // Decoded at address zero: Iced gives the target, which is the displacement plus the length.
            op.Disp = register == Iced.Intel.Register.RIP ? op.Disp - op.Length : (int)((uint)op.Disp - op.Length);
        }
        else if (register != Iced.Intel.Register.None)
            op.Base = RegisterNumber(register);
        if (instruction.MemoryIndex != Iced.Intel.Register.None)
            op.Index = RegisterNumber(instruction.MemoryIndex);
        op.Scale = instruction.MemoryIndexScale switch { 2 => 1, 4 => 2, 8 => 3, _ => 0 };
    }

    private static Seg Segment(Register register) => register switch
    {
        Iced.Intel.Register.ES => Seg.ES,
        Iced.Intel.Register.CS => Seg.CS,
        Iced.Intel.Register.SS => Seg.SS,
        Iced.Intel.Register.FS => Seg.FS,
        Iced.Intel.Register.GS => Seg.GS,
        _ => Seg.DS,
    };

    private static byte RegisterNumber(Register register)
    {
        if (register is >= Iced.Intel.Register.AL and <= Iced.Intel.Register.R15L)
        {
            int n = register - Iced.Intel.Register.AL;
            return (byte)(n < 4 ? n : n < 8 ? n + 12 : n - 4);
        }
        return register is >= Iced.Intel.Register.ES and <= Iced.Intel.Register.GS ? (byte)(register - Iced.Intel.Register.ES) : (byte)register.GetNumber();
    }
}
