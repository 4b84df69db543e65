using System.Runtime.Intrinsics.X86;
using Iced.Intel;

namespace Kvm.Emulator.Native;

/// <summary>What the translator does with an instruction.</summary>
internal enum Treatment : byte
{
    Unknown,
    /// <summary>The interpreter executes it.</summary>
    None,
    Nothing,
    /// <summary>The same instruction, on the host's registers and the operand's host address.</summary>
    Same,
    Lea,
    Push,
    Pop,
    Leave,
    Divide,
    DivideSigned,
    Branch,
    Jump,
    Call,
    Return,
    JumpIndirect,
    CallIndirect,
    /// <summary>As Same, on vector registers.</summary>
    Vector,
}

/// <summary>What the translator must know of an instruction beyond its operands; computed once for a code.</summary>
internal sealed class InstructionShape
{
    private static readonly InstructionShape?[] known = new InstructionShape?[(int)Enum.GetValues<Code>().Max() + 1];

    internal readonly Treatment Treatment;
    /// <summary>The memory operand is written, read and written included.</summary>
    internal readonly bool Writes;
    /// <summary>Operands that are written, by their number.</summary>
    internal readonly byte Written;
    /// <summary>With a memory operand it is atomic: exchanges.</summary>
    internal readonly bool Atomic;
    /// <summary>Shifts and rotations: with a count of zero no flag changes.</summary>
    internal readonly bool Shift;

    /// <summary>By an instruction of that code.</summary>
    internal static InstructionShape Of(in Instruction instruction, InstructionInfoFactory factory)
        => known[(int)instruction.Code] ?? Create(instruction, factory);

    private static InstructionShape Create(in Instruction instruction, InstructionInfoFactory factory)
        => known[(int)instruction.Code] = new InstructionShape(instruction, factory);

    private InstructionShape(in Instruction instruction, InstructionInfoFactory factory)
    {
        Treatment = TreatmentOf(instruction);
        // With a count of zero a shift writes nothing.
        Instruction example = instruction;
        for (int i = 0; i < example.OpCount; i++)
        {
            if (example.GetOpKind(i) == OpKind.Immediate8)
                example.SetImmediate(i, 1);
        }
        InstructionInfo info = factory.GetInfo(example);
        for (int i = 0; i < instruction.OpCount; i++)
        {
            if (info.GetOpAccess(i) is OpAccess.Write or OpAccess.CondWrite or OpAccess.ReadWrite or OpAccess.ReadCondWrite)
                Written |= (byte)(1 << i);
        }
        // The operand that may be memory is the first or the last; which of them is written tells.
        OpCodeInfo forms = instruction.Code.ToOpCode();
        for (int i = 0; i < forms.OpCount; i++)
        {
            string kind = forms.GetOpKind(i).ToString();
            if (kind == "mem" || kind.EndsWith("_or_mem", StringComparison.Ordinal) || kind.StartsWith("mem_", StringComparison.Ordinal))
                Writes |= (Written >> i & 1) != 0;
        }
        Atomic = instruction.Mnemonic is Mnemonic.Xchg;
        Shift = instruction.Mnemonic is Mnemonic.Shl or Mnemonic.Shr or Mnemonic.Sar or Mnemonic.Sal or Mnemonic.Rol or Mnemonic.Ror or Mnemonic.Rcl or Mnemonic.Rcr
            or Mnemonic.Shld or Mnemonic.Shrd;
    }

    private static Treatment TreatmentOf(in Instruction instruction)
    {
        Code code = instruction.Code;
        switch (instruction.Mnemonic)
        {
            case Mnemonic.Nop or Mnemonic.Reservednop or Mnemonic.Endbr64 or Mnemonic.Endbr32 or Mnemonic.Prefetcht0 or Mnemonic.Prefetcht1 or Mnemonic.Prefetcht2
                or Mnemonic.Prefetchnta or Mnemonic.Prefetchw or Mnemonic.Prefetch:
                return Treatment.Nothing;
            case Mnemonic.Mov:
                return MovesSystemRegister(code) ? Treatment.None : Treatment.Same;
            case Mnemonic.Add or Mnemonic.Sub or Mnemonic.Adc or Mnemonic.Sbb or Mnemonic.And or Mnemonic.Or or Mnemonic.Xor or Mnemonic.Cmp or Mnemonic.Test
                or Mnemonic.Inc or Mnemonic.Dec or Mnemonic.Neg or Mnemonic.Not or Mnemonic.Movzx or Mnemonic.Movsx or Mnemonic.Movsxd or Mnemonic.Movnti
                or Mnemonic.Shl or Mnemonic.Shr or Mnemonic.Sar or Mnemonic.Rol or Mnemonic.Ror or Mnemonic.Rcl or Mnemonic.Rcr or Mnemonic.Shld or Mnemonic.Shrd
                or Mnemonic.Imul or Mnemonic.Mul or Mnemonic.Bsf or Mnemonic.Bsr or Mnemonic.Bswap or Mnemonic.Xchg or Mnemonic.Xadd or Mnemonic.Cmpxchg
                or Mnemonic.Cbw or Mnemonic.Cwde or Mnemonic.Cdqe or Mnemonic.Cwd or Mnemonic.Cdq or Mnemonic.Cqo or Mnemonic.Clc or Mnemonic.Stc or Mnemonic.Cmc
                or Mnemonic.Cmpxchg8b:
                return Treatment.Same;
            // CMPXCHG16B: the interpreter's is atomic only among its own.
            case Mnemonic.Bt or Mnemonic.Bts or Mnemonic.Btr or Mnemonic.Btc:
                return Treatment.Same;
            case >= Mnemonic.Cmova and <= Mnemonic.Cmovs:
                return Treatment.Same;
            case Mnemonic.Seta or Mnemonic.Setae or Mnemonic.Setb or Mnemonic.Setbe or Mnemonic.Sete or Mnemonic.Setg or Mnemonic.Setge or Mnemonic.Setl or Mnemonic.Setle
                or Mnemonic.Setne or Mnemonic.Setno or Mnemonic.Setnp or Mnemonic.Setns or Mnemonic.Seto or Mnemonic.Setp or Mnemonic.Sets:
                return Treatment.Same;
            case Mnemonic.Popcnt:
                return Popcnt.X64.IsSupported ? Treatment.Same : Treatment.None;
            case Mnemonic.Lzcnt:
                return Lzcnt.X64.IsSupported ? Treatment.Same : Treatment.None;
            case Mnemonic.Tzcnt or Mnemonic.Andn or Mnemonic.Bextr or Mnemonic.Blsi or Mnemonic.Blsmsk or Mnemonic.Blsr:
                return Bmi1.X64.IsSupported ? Treatment.Same : Treatment.None;
            case Mnemonic.Bzhi or Mnemonic.Pdep or Mnemonic.Pext or Mnemonic.Rorx or Mnemonic.Sarx or Mnemonic.Shlx or Mnemonic.Shrx or Mnemonic.Mulx:
                return Bmi2.X64.IsSupported ? Treatment.Same : Treatment.None;
            case Mnemonic.Crc32:
                return Sse42.X64.IsSupported ? Treatment.Same : Treatment.None;
            case Mnemonic.Mfence or Mnemonic.Lfence or Mnemonic.Sfence:
                return Treatment.Same;
            case Mnemonic.Lea:
                return code is Code.Lea_r64_m or Code.Lea_r32_m ? Treatment.Lea : Treatment.None;
            case Mnemonic.Div:
                return code is Code.Div_rm32 or Code.Div_rm64 ? Treatment.Divide : Treatment.None;
            case Mnemonic.Idiv:
                return code is Code.Idiv_rm32 or Code.Idiv_rm64 ? Treatment.DivideSigned : Treatment.None;
            default:
                return Transfer(code, instruction);
        }
    }

    private static Treatment Transfer(Code code, in Instruction instruction) => code switch
    {
        Code.Push_r64 or Code.Push_rm64 or Code.Pushq_imm8 or Code.Pushq_imm32 or Code.Push_r32 or Code.Push_rm32 or Code.Pushd_imm8 or Code.Pushd_imm32 => Treatment.Push,
        Code.Pop_r64 or Code.Pop_rm64 or Code.Pop_r32 or Code.Pop_rm32 => Treatment.Pop,
        Code.Leaveq or Code.Leaved => Treatment.Leave,
        Code.Jmp_rel8_64 or Code.Jmp_rel32_64 or Code.Jmp_rel8_32 or Code.Jmp_rel32_32 => Treatment.Jump,
        Code.Call_rel32_64 or Code.Call_rel32_32 => Treatment.Call,
        Code.Retnq or Code.Retnq_imm16 or Code.Retnd or Code.Retnd_imm16 => Treatment.Return,
        Code.Jmp_rm64 or Code.Jmp_rm32 => Treatment.JumpIndirect,
        Code.Call_rm64 or Code.Call_rm32 => Treatment.CallIndirect,
        _ => IsBranch(code, instruction) ? Treatment.Branch : Treatment.None,
    };

    private static bool IsBranch(Code code, in Instruction instruction)
        => instruction.IsJccShortOrNear && code.ToString() is var name && (name.EndsWith("_64", StringComparison.Ordinal) || name.EndsWith("_32", StringComparison.Ordinal));

    private static bool MovesSystemRegister(Code code)
    {
        string name = code.ToString();
        return name.Contains("Sreg", StringComparison.Ordinal) || name.Contains("_cr", StringComparison.Ordinal) || name.Contains("_dr", StringComparison.Ordinal)
            || name.Contains("_tr", StringComparison.Ordinal);
    }
}
