using System.Runtime.InteropServices;
using Iced.Intel;

namespace Kvm.Emulator.Engine;

/// <summary>An instruction of <see cref="OpcodeTable"/> with its operands in fixed places, to be executed by value.</summary>
internal unsafe struct DataForm
{
    internal Op Op;
    /// <summary>Operand that is an immediate, or <see cref="None"/>.</summary>
    internal byte Immediate;
    /// <summary>Operand that the instruction takes from CL, or <see cref="None"/>.</summary>
    internal byte Count;
    /// <summary>Operand that can only be memory, or <see cref="None"/>.</summary>
    internal byte Memory;

    internal const byte None = 0xff;
}

/// <summary>The by-value form of every instruction, made when it is first asked for.</summary>
/// <remarks>
/// A register or memory operand becomes its register form; what has only a memory form finds its operand at linear address 0 of a TLB with one entry.
/// Nothing depends on a processor's CPUID: who executes by value knows that the instruction exists.
/// </remarks>
internal static unsafe class DataForms
{
    /// <summary>Operand n lives in this register and those that follow: no instruction names them implicitly.</summary>
    internal const int FirstRegister = 8;
    private const byte Rcx = 1;

    private static readonly Lock Gate = new();
    private static readonly int Count = (int)Enum.GetValues<Code>().Max() + 1;
    private static readonly DataForm** Forms = (DataForm**)NativeMemory.AllocZeroed((nuint)Count, (nuint)sizeof(DataForm*));

    /// <summary>Null for a code that no instruction has.</summary>
    internal static DataForm* Of(Code code)
    {
        if ((uint)code >= (uint)Count)
            return null;
        DataForm* form = (DataForm*)Volatile.Read(ref ((nint*)Forms)[(int)code]);
        return form != null ? form : Create(code);
    }

    private static DataForm* Create(Code code)
    {
        if (OpcodeTable.Instance[code].Handler == null)
            return null;
        lock (Gate)
        {
            if (Forms[(int)code] == null)
            {
                DataForm* form = (DataForm*)NativeMemory.AllocZeroed((nuint)sizeof(DataForm));
                Build(code, form);
                Volatile.Write(ref ((nint*)Forms)[(int)code], (nint)form);
            }
            return Forms[(int)code];
        }
    }

    private static void Build(Code code, DataForm* form)
    {
        OperandLayout layout = OperandLayout.Of(code);
        OpCodeInfo info = code.ToOpCode();
        Instruction instruction = default;
        instruction.Code = code;
        form->Immediate = form->Count = form->Memory = DataForm.None;
        for (byte i = 0; i < info.OpCount; i++)
        {
            OpCodeOperandKind kind = info.GetOpKind(i);
            if (layout.Roles[i] != OperandRole.None || kind == OpCodeOperandKind.cl)
            {
                instruction.SetOpKind(i, Iced.Intel.OpKind.Register);
                instruction.SetOpRegister(i, kind == OpCodeOperandKind.cl ? Register.CL : Register.R8 + i);
                if (kind == OpCodeOperandKind.cl)
                    form->Count = i;
            }
            else if (kind == OpCodeOperandKind.mem)
            {
                instruction.SetOpKind(i, Iced.Intel.OpKind.Memory);
                form->Memory = i;
            }
            else
            {
                instruction.SetOpKind(i, Iced.Intel.OpKind.Immediate8);
                form->Immediate = i;
            }
        }
        ref Op op = ref form->Op;
        op.Code = code;
        op.Length = 1;
        op.Width = layout.Width;
        op.AddressWidth = 8;
        op.AddressMask = ulong.MaxValue;
        InstructionDecoder.Operands(instruction, layout, ref op);
        op.Handler = OpcodeTable.Instance[code].Handler;
        Lowering.LowerCold(&form->Op, (uint)CodeMode.Code64);
    }
}
