using Iced.Intel;

namespace Kvm.Emulator.Engine;

/// <summary>Where a register operand comes from.</summary>
internal enum OperandRole : byte { None, Reg, Rm, Vvvv, Implicit }

[Flags]
internal enum OperandTraits : byte
{
    None = 0,
    /// <summary>A register in the opcode byte.</summary>
    OpcodeRegister = 1,
    /// <summary>The immediate is a data operand of the operand size: sign-extended.</summary>
    SignedImmediate = 2,
}

/// <summary>What the decoder needs to know of a <see cref="Code"/>'s operands, computed on first use.</summary>
internal sealed class OperandLayout
{
    private static readonly OperandLayout?[] Known = new OperandLayout?[(int)Enum.GetValues<Code>().Max() + 1];

    internal readonly OperandRole[] Roles = new OperandRole[5];
    /// <summary>Operand size in bytes, 0 when neither the opcode nor an operand says.</summary>
    internal readonly byte Width;
    internal readonly OperandTraits Traits;
    /// <summary>Condition number of Jcc, SETcc, CMOVcc; -1 otherwise.</summary>
    internal readonly int Condition = -1;

    internal static OperandLayout Of(Code code) => Volatile.Read(ref Known[(int)code]) ?? Create(code);

    private static OperandLayout Create(Code code)
    {
        var layout = new OperandLayout(code);
        Volatile.Write(ref Known[(int)code], layout);
        return layout;
    }

    private OperandLayout(Code code)
    {
        OpCodeInfo info = code.ToOpCode();
        byte fromOperand = 0;
        for (int i = 0; i < info.OpCount; i++)
        {
            OpCodeOperandKind kind = info.GetOpKind(i);
            string name = kind.ToString();
            Roles[i] = Role(kind, name);
            if (name.EndsWith("_opcode", StringComparison.Ordinal))
                Traits |= OperandTraits.OpcodeRegister;
            if (fromOperand == 0 && kind != OpCodeOperandKind.dx)
                fromOperand = RegisterWidth(name);
        }
        int memory = info.MemorySize.GetSize();
        Width = info.OperandSize != 0 ? (byte)(info.OperandSize / 8) : fromOperand != 0 ? fromOperand : memory is 1 or 2 or 4 or 8 ? (byte)memory : (byte)0;
        if (TakesSignedImmediate(code.Mnemonic()))
            Traits |= OperandTraits.SignedImmediate;
        ConditionCode condition = code.ConditionCode();
        if (condition != ConditionCode.None && code.Mnemonic() is not (Mnemonic.Loope or Mnemonic.Loopne))
            Condition = Number(condition);
    }

    private static OperandRole Role(OpCodeOperandKind kind, string name)
    {
        if (kind is OpCodeOperandKind.es or OpCodeOperandKind.cs or OpCodeOperandKind.ss or OpCodeOperandKind.ds or OpCodeOperandKind.fs or OpCodeOperandKind.gs)
            return OperandRole.Reg;
        if (name.EndsWith("_or_mem", StringComparison.Ordinal) || name.EndsWith("_rm", StringComparison.Ordinal))
            return OperandRole.Rm;
        if (name.EndsWith("_reg", StringComparison.Ordinal) || name.EndsWith("_opcode", StringComparison.Ordinal) || name.EndsWith("_reg_mem", StringComparison.Ordinal))
            return OperandRole.Reg;
        if (name.EndsWith("_vvvv", StringComparison.Ordinal))
            return OperandRole.Vvvv;
        return kind is OpCodeOperandKind.al or OpCodeOperandKind.ax or OpCodeOperandKind.eax or OpCodeOperandKind.rax ? OperandRole.Implicit : OperandRole.None;
    }

    private static byte RegisterWidth(string kind) => kind switch
    {
        "al" or "cl" => 1,
        "ax" => 2,
        "eax" => 4,
        "rax" => 8,
        _ when kind.StartsWith("r8_", StringComparison.Ordinal) => 1,
        _ when kind.StartsWith("r16_", StringComparison.Ordinal) => 2,
        _ when kind.StartsWith("r32_", StringComparison.Ordinal) => 4,
        _ when kind.StartsWith("r64_", StringComparison.Ordinal) => 8,
        _ => 0,
    };

    private static bool TakesSignedImmediate(Mnemonic mnemonic) => mnemonic is Mnemonic.Add or Mnemonic.Or or Mnemonic.Adc or Mnemonic.Sbb or Mnemonic.And
        or Mnemonic.Sub or Mnemonic.Xor or Mnemonic.Cmp or Mnemonic.Test or Mnemonic.Mov or Mnemonic.Imul or Mnemonic.Push;

    private static int Number(ConditionCode condition) => condition switch
    {
        ConditionCode.o => 0,
        ConditionCode.no => 1,
        ConditionCode.b => 2,
        ConditionCode.ae => 3,
        ConditionCode.e => 4,
        ConditionCode.ne => 5,
        ConditionCode.be => 6,
        ConditionCode.a => 7,
        ConditionCode.s => 8,
        ConditionCode.ns => 9,
        ConditionCode.p => 10,
        ConditionCode.np => 11,
        ConditionCode.l => 12,
        ConditionCode.ge => 13,
        ConditionCode.le => 14,
        _ => 15,
    };
}
