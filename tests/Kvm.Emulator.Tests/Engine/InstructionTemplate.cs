namespace Kvm.Emulator.Tests.Engine;

/// <summary>Which ModRM forms a template may take.</summary>
[Flags]
internal enum Forms { Register = 1, Memory = 2, Both = 3, NoModRm = 4 }

/// <summary>
/// An instruction to try: opcode bytes (map prefix included, mandatory prefix apart), the /digit or -1 for a register, operand widths, immediate,
/// and the flags that the manuals leave undefined given the operation's count or operands.
/// </summary>
internal sealed record InstructionTemplate(string Name, byte[] Opcode, Forms Forms = Forms.Both, int Digit = -1, int[]? Widths = null, int Immediate = 0,
    ulong Undefined = 0, byte Prefix = 0, TemplateKind Kind = TemplateKind.Plain, bool InOpcode = false, int Vex = -1, (int Leaf, int Register, int Bit)? Feature = null)
{
    internal const ulong CF = 1, PF = 4, AF = 0x10, ZF = 0x40, SF = 0x80, OF = 0x800, Arithmetic = CF | PF | AF | ZF | SF | OF;

    internal int[] EffectiveWidths => Widths ?? [16, 32, 64];

    /// <summary>All templates. Eight-bit forms are rows of their own, as in the opcode map.</summary>
    internal static IReadOnlyList<InstructionTemplate> All { get; } = [.. Build()];

    private static IEnumerable<InstructionTemplate> Build()
    {
        int[] w8 = [8];
        string[] alu = ["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"];
        for (int i = 0; i < 8; i++)
        {
            ulong undefined = i is 1 or 4 or 6 ? AF : 0;
            byte b = (byte)(i * 8);
            yield return new(alu[i] + " rm8,r8", [b], Widths: w8, Undefined: undefined);
            yield return new(alu[i] + " rm,r", [(byte)(b + 1)], Undefined: undefined);
            yield return new(alu[i] + " r8,rm8", [(byte)(b + 2)], Widths: w8, Undefined: undefined);
            yield return new(alu[i] + " r,rm", [(byte)(b + 3)], Undefined: undefined);
            yield return new(alu[i] + " al,imm8", [(byte)(b + 4)], Forms.NoModRm, Widths: w8, Immediate: 1, Undefined: undefined);
            yield return new(alu[i] + " eax,imm", [(byte)(b + 5)], Forms.NoModRm, Immediate: 4, Undefined: undefined);
            yield return new(alu[i] + " rm8,imm8", [0x80], Digit: i, Widths: w8, Immediate: 1, Undefined: undefined);
            yield return new(alu[i] + " rm,imm", [0x81], Digit: i, Immediate: 4, Undefined: undefined);
            yield return new(alu[i] + " rm,imm8", [0x83], Digit: i, Immediate: 1, Undefined: undefined);
        }
        yield return new("test rm8,r8", [0x84], Widths: w8, Undefined: AF);
        yield return new("test rm,r", [0x85], Undefined: AF);
        yield return new("test rm8,imm8", [0xf6], Digit: 0, Widths: w8, Immediate: 1, Undefined: AF);
        yield return new("test rm,imm", [0xf7], Digit: 0, Immediate: 4, Undefined: AF);
        foreach ((string name, int digit, ulong undefined, TemplateKind kind) in ((string, int, ulong, TemplateKind)[])[("not", 2, 0, TemplateKind.Plain), ("neg", 3, 0, TemplateKind.Plain),
            ("mul", 4, SF | ZF | AF | PF, TemplateKind.Plain), ("imul", 5, SF | ZF | AF | PF, TemplateKind.Plain), ("div", 6, Arithmetic, TemplateKind.Divide), ("idiv", 7, Arithmetic, TemplateKind.SignedDivide)])
        {
            yield return new(name + " rm8", [0xf6], Digit: digit, Widths: w8, Undefined: undefined, Kind: kind);
            yield return new(name + " rm", [0xf7], Digit: digit, Undefined: undefined, Kind: kind);
        }
        yield return new("inc rm8", [0xfe], Digit: 0, Widths: w8);
        yield return new("dec rm8", [0xfe], Digit: 1, Widths: w8);
        yield return new("inc rm", [0xff], Digit: 0);
        yield return new("dec rm", [0xff], Digit: 1);
        string[] shifts = ["rol", "ror", "rcl", "rcr", "shl", "shr", "sal", "sar"];
        for (int i = 0; i < 8; i++)
        {
            TemplateKind kind = i < 4 ? TemplateKind.Rotate : TemplateKind.Shift;
            yield return new(shifts[i] + " rm8,imm8", [0xc0], Digit: i, Widths: w8, Immediate: 1, Kind: kind);
            yield return new(shifts[i] + " rm,imm8", [0xc1], Digit: i, Immediate: 1, Kind: kind);
            yield return new(shifts[i] + " rm8,1", [0xd0], Digit: i, Widths: w8, Undefined: i < 4 ? 0 : AF);
            yield return new(shifts[i] + " rm,1", [0xd1], Digit: i, Undefined: i < 4 ? 0 : AF);
            yield return new(shifts[i] + " rm8,cl", [0xd2], Digit: i, Widths: w8, Kind: kind);
            yield return new(shifts[i] + " rm,cl", [0xd3], Digit: i, Kind: kind);
        }
        yield return new("shld imm8", [0x0f, 0xa4], Immediate: 1, Kind: TemplateKind.DoubleShift);
        yield return new("shld cl", [0x0f, 0xa5], Kind: TemplateKind.DoubleShift);
        yield return new("shrd imm8", [0x0f, 0xac], Immediate: 1, Kind: TemplateKind.DoubleShift);
        yield return new("shrd cl", [0x0f, 0xad], Kind: TemplateKind.DoubleShift);
        string[] bits = ["bt", "bts", "btr", "btc"];
        for (int i = 0; i < 4; i++)
        {
            yield return new(bits[i] + " rm,r", [0x0f, (byte)(0xa3 + i * 8)], Forms.Register, Undefined: OF | SF | AF | PF);
            yield return new(bits[i] + " m,r", [0x0f, (byte)(0xa3 + i * 8)], Forms.Memory, Undefined: OF | SF | AF | PF, Kind: TemplateKind.BitString);
            yield return new(bits[i] + " rm,imm8", [0x0f, 0xba], Digit: 4 + i, Immediate: 1, Undefined: OF | SF | AF | PF);
        }
        yield return new("bsf", [0x0f, 0xbc], Undefined: CF | OF | SF | AF | PF, Kind: TemplateKind.NonZeroSource);
        yield return new("bsr", [0x0f, 0xbd], Undefined: CF | OF | SF | AF | PF, Kind: TemplateKind.NonZeroSource);
        yield return new("tzcnt", [0x0f, 0xbc], Prefix: 0xf3, Undefined: OF | SF | AF | PF, Feature: (7, 1, 3));
        yield return new("lzcnt", [0x0f, 0xbd], Prefix: 0xf3, Undefined: OF | SF | AF | PF, Feature: (unchecked((int)0x80000001), 2, 5));
        yield return new("popcnt", [0x0f, 0xb8], Prefix: 0xf3, Feature: (1, 2, 23));
        yield return new("imul r,rm", [0x0f, 0xaf], Undefined: SF | ZF | AF | PF);
        yield return new("imul r,rm,imm", [0x69], Immediate: 4, Undefined: SF | ZF | AF | PF);
        yield return new("imul r,rm,imm8", [0x6b], Immediate: 1, Undefined: SF | ZF | AF | PF);
        yield return new("movzx r,rm8", [0x0f, 0xb6], Kind: TemplateKind.ByteSource);
        yield return new("movzx r,rm16", [0x0f, 0xb7]);
        yield return new("movsx r,rm8", [0x0f, 0xbe], Kind: TemplateKind.ByteSource);
        yield return new("movsx r,rm16", [0x0f, 0xbf]);
        yield return new("movsxd", [0x63]);
        yield return new("mov rm8,r8", [0x88], Widths: w8);
        yield return new("mov rm,r", [0x89]);
        yield return new("mov r8,rm8", [0x8a], Widths: w8);
        yield return new("mov r,rm", [0x8b]);
        yield return new("mov rm8,imm8", [0xc6], Digit: 0, Widths: w8, Immediate: 1);
        yield return new("mov rm,imm", [0xc7], Digit: 0, Immediate: 4);
        yield return new("xchg rm8,r8", [0x86], Widths: w8);
        yield return new("xchg rm,r", [0x87]);
        yield return new("xadd rm8,r8", [0x0f, 0xc0], Widths: w8);
        yield return new("xadd rm,r", [0x0f, 0xc1]);
        yield return new("cmpxchg rm8,r8", [0x0f, 0xb0], Widths: w8);
        yield return new("cmpxchg rm,r", [0x0f, 0xb1]);
        yield return new("cmpxchg8b", [0x0f, 0xc7], Forms.Memory, Digit: 1, Widths: [32]);
        yield return new("cmpxchg16b", [0x0f, 0xc7], Forms.Memory, Digit: 1, Widths: [64], Kind: TemplateKind.Aligned16);
        for (int cc = 0; cc < 16; cc++)
        {
            yield return new($"cmov{cc:x}", [0x0f, (byte)(0x40 + cc)]);
            yield return new($"set{cc:x}", [0x0f, (byte)(0x90 + cc)], Digit: 0, Widths: w8);
        }
        yield return new("cbw", [0x98], Forms.NoModRm);
        yield return new("cwd", [0x99], Forms.NoModRm);
        yield return new("lahf", [0x9f], Forms.NoModRm, Widths: [32]);
        yield return new("sahf", [0x9e], Forms.NoModRm, Widths: [32]);
        yield return new("cmc", [0xf5], Forms.NoModRm, Widths: [32]);
        yield return new("clc", [0xf8], Forms.NoModRm, Widths: [32]);
        yield return new("stc", [0xf9], Forms.NoModRm, Widths: [32]);
        yield return new("bswap", [0x0f, 0xc8], Forms.NoModRm, Widths: [32, 64], InOpcode: true);
        yield return new("lea", [0x8d], Forms.Memory, Kind: TemplateKind.Address);
        yield return new("adcx", [0x0f, 0x38, 0xf6], Widths: [32, 64], Prefix: 0x66, Feature: (7, 1, 19));
        yield return new("adox", [0x0f, 0x38, 0xf6], Widths: [32, 64], Prefix: 0xf3, Feature: (7, 1, 19));
        yield return new("crc32 rm8", [0x0f, 0x38, 0xf0], Widths: [32, 64], Prefix: 0xf2, Feature: (1, 2, 20), Kind: TemplateKind.ByteSource);
        yield return new("crc32 rm", [0x0f, 0x38, 0xf1], Widths: [32, 64], Prefix: 0xf2, Feature: (1, 2, 20));
        yield return new("movbe load", [0x0f, 0x38, 0xf0], Forms.Memory, Feature: (1, 2, 22));
        yield return new("movbe store", [0x0f, 0x38, 0xf1], Forms.Memory, Feature: (1, 2, 22));
        (int, int, int) bmi1 = (7, 1, 3), bmi2 = (7, 1, 8);
        int[] wide = [32, 64];
        // Vex = map | pp << 4.
        yield return new("andn", [0xf2], Widths: wide, Vex: 0x02, Undefined: AF | PF, Feature: bmi1);
        yield return new("blsr", [0xf3], Widths: wide, Vex: 0x02, Digit: 1, Undefined: AF | PF, Feature: bmi1);
        yield return new("blsmsk", [0xf3], Widths: wide, Vex: 0x02, Digit: 2, Undefined: AF | PF, Feature: bmi1);
        yield return new("blsi", [0xf3], Widths: wide, Vex: 0x02, Digit: 3, Undefined: AF | PF, Feature: bmi1);
        yield return new("bextr", [0xf7], Widths: wide, Vex: 0x02, Undefined: AF | SF | PF, Feature: bmi1);
        yield return new("bzhi", [0xf5], Widths: wide, Vex: 0x02, Undefined: AF | PF, Feature: bmi2);
        yield return new("pdep", [0xf5], Widths: wide, Vex: 0x32, Feature: bmi2);
        yield return new("pext", [0xf5], Widths: wide, Vex: 0x22, Feature: bmi2);
        yield return new("mulx", [0xf6], Widths: wide, Vex: 0x32, Feature: bmi2);
        yield return new("shlx", [0xf7], Widths: wide, Vex: 0x12, Feature: bmi2);
        yield return new("sarx", [0xf7], Widths: wide, Vex: 0x22, Feature: bmi2);
        yield return new("shrx", [0xf7], Widths: wide, Vex: 0x32, Feature: bmi2);
        yield return new("rorx", [0xf0], Widths: wide, Vex: 0x33, Immediate: 1, Feature: bmi2);
    }
}

/// <summary>Restrictions on operands, and undefined flags that depend on them.</summary>
internal enum TemplateKind { Plain, Shift, Rotate, DoubleShift, Divide, SignedDivide, BitString, NonZeroSource, ByteSource, Address, Aligned16 }
