using Iced.Intel;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

/// <summary>Data instructions that kernel code executes on operand values instead of registers and memory.</summary>
public sealed unsafe partial class Processor
{
    /// <summary>
    /// Executes one arithmetic, logic, shift, bit, conversion, exchange or flag instruction on <paramref name="operands"/>: the same definition that runs in an
    /// instruction stream, in a context of its own. The processor's registers and memory stay as they are. #DE is the fault that such instructions have.
    /// </summary>
    /// <remarks>
    /// Only instructions whose operands are general registers, memory and immediates; results of others, and of string, stack, branch and system instructions, mean
    /// nothing. A code without a definition gives #UD. The CPUID of this processor is not asked.
    /// </remarks>
    public InstructionResult Execute(Iced.Intel.Code code, ref DataOperands operands)
    {
        DataForm* form = DataForms.Of(code);
        if (form == null)
            return InstructionResult.Faulted(Fault.Ud);
        CpuState* s = State;
        Registers saved = Save(s);
        Fault pending = PendingFault;
        Op op = form->Op;
        LoadOperands(s, form, operands);
        op.Imm = form->Immediate switch { 0 => operands.Op0, 1 => operands.Op1, 2 => operands.Op2, _ => 0 };
        TlbEntry* tlb = s->Tlb;
        ulong memory = form->Memory == 1 ? operands.Op1 : operands.Op0;
        TlbEntry page = new() { ExecTag = TlbEntry.NoMatch, Addend = (ulong)&memory };
        if (form->Memory != DataForm.None)
            s->Tlb = &page;
        ExecStatus status = op.Handler(this, &op);
        s->Tlb = tlb;
        if (status == ExecStatus.Next)
            StoreOperands(s, form, memory, ref operands);
        Restore(s, saved);
        InstructionResult result = status == ExecStatus.Next ? InstructionResult.Success : InstructionResult.Faulted(PendingFault);
        PendingFault = pending;
        return result;
    }

    /// <summary>The condition of Jcc, SETcc and CMOVcc: what SETcc makes of <paramref name="rflags"/>.</summary>
    public bool TestCondition(ConditionCode condition, ulong rflags)
    {
        DataOperands operands = new() { Rflags = rflags };
        return Execute(Iced.Intel.Code.Seto_rm8 + (condition - ConditionCode.o), ref operands).Ok && operands.Op0 != 0;
    }

    private struct Registers
    {
        internal ulong Rax, Rcx, Rdx, Rbx, R8, R9, R10, Rflags, LazyResult, LazySrc1, LazySrc2;
        internal uint LazyOp;
    }

    private static Registers Save(CpuState* s) => new()
    {
        Rax = s->Gpr[0],
        Rcx = s->Gpr[1],
        Rdx = s->Gpr[2],
        Rbx = s->Gpr[3],
        R8 = s->Gpr[8],
        R9 = s->Gpr[9],
        R10 = s->Gpr[10],
        Rflags = s->Rflags,
        LazyOp = s->LazyOp,
        LazyResult = s->LazyResult,
        LazySrc1 = s->LazySrc1,
        LazySrc2 = s->LazySrc2,
    };

    private static void Restore(CpuState* s, in Registers saved)
    {
        s->Gpr[0] = saved.Rax;
        s->Gpr[1] = saved.Rcx;
        s->Gpr[2] = saved.Rdx;
        s->Gpr[3] = saved.Rbx;
        s->Gpr[8] = saved.R8;
        s->Gpr[9] = saved.R9;
        s->Gpr[10] = saved.R10;
        s->Rflags = saved.Rflags;
        s->LazyOp = saved.LazyOp;
        s->LazyResult = saved.LazyResult;
        s->LazySrc1 = saved.LazySrc1;
        s->LazySrc2 = saved.LazySrc2;
    }

    private static void LoadOperands(CpuState* s, DataForm* form, in DataOperands operands)
    {
        s->Gpr[DataForms.FirstRegister] = operands.Op0;
        s->Gpr[DataForms.FirstRegister + 1] = operands.Op1;
        s->Gpr[DataForms.FirstRegister + 2] = operands.Op2;
        s->Gpr[0] = operands.Rax;
        s->Gpr[1] = form->Count switch { 1 => operands.Op1, 2 => operands.Op2, _ => operands.Rcx };
        s->Gpr[2] = operands.Rdx;
        s->Gpr[3] = operands.Rbx;
        s->Rflags = operands.Rflags;
        s->LazyOp = LazyOp.None;
    }

    private static void StoreOperands(CpuState* s, DataForm* form, ulong memory, ref DataOperands operands)
    {
        operands.Op0 = form->Memory == 0 ? memory : s->Gpr[DataForms.FirstRegister];
        operands.Op1 = form->Memory == 1 ? memory : s->Gpr[DataForms.FirstRegister + 1];
        operands.Rax = s->Gpr[0];
        operands.Rdx = s->Gpr[2];
        LazyFlags.Resolve(s);
        operands.Rflags = s->Rflags;
    }
}
