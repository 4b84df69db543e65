using Iced.Intel;

namespace Kvm.Emulator.Tests.Vector;

/// <summary>The instructions of an x87 code: one for each register, or one with a memory operand, or one without operands.</summary>
internal static class X87Forms
{
    internal static Instruction[] Of(Code code)
    {
        OpCodeInfo info = code.ToOpCode();
        int registers = Enumerable.Range(0, info.OpCount).Any(i => info.GetOpKind(i) == OpCodeOperandKind.sti_opcode) ? 8 : 1;
        return [.. Enumerable.Range(0, registers).Select(i => Create(code, info, i))];
    }

    private static Instruction Create(Code code, OpCodeInfo info, int register)
    {
        var instruction = new Instruction { Code = code };
        for (int i = 0; i < info.OpCount; i++)
        {
            switch (info.GetOpKind(i))
            {
                case OpCodeOperandKind.st0:
                    instruction.SetOpKind(i, OpKind.Register);
                    instruction.SetOpRegister(i, Register.ST0);
                    break;
                case OpCodeOperandKind.sti_opcode:
                    instruction.SetOpKind(i, OpKind.Register);
                    instruction.SetOpRegister(i, Register.ST0 + register);
                    break;
                default:
                    instruction.SetOpKind(i, OpKind.Memory);
                    instruction.MemoryBase = Register.RBX;
                    break;
            }
        }
        return instruction;
    }

    internal static int MemoryBytes(Code code) => code.ToOpCode().MemorySize.GetSize();

    /// <summary>Control word, status word, environment, whole state, initialization.</summary>
    internal static bool IsStateTransfer(Code code) => code.Mnemonic() is Mnemonic.Fldenv or Mnemonic.Fnstenv or Mnemonic.Fstenv or Mnemonic.Fnsave or Mnemonic.Fsave
        or Mnemonic.Frstor or Mnemonic.Fldcw or Mnemonic.Fnstcw or Mnemonic.Fstcw or Mnemonic.Fnstsw or Mnemonic.Fstsw or Mnemonic.Fninit or Mnemonic.Finit
        or Mnemonic.Fnclex or Mnemonic.Fclex or Mnemonic.Wait or Mnemonic.Feni or Mnemonic.Fdisi or Mnemonic.Fsetpm;

    internal static bool IsInteger(Code code) => code.ToOpCode().MemorySize is MemorySize.Int16 or MemorySize.Int32 or MemorySize.Int64;
}
