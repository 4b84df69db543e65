using Iced.Intel;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Arch.X86.X86Const;
using Kind = Kvm.Arch.X86.EmulOperand.Kind;

namespace Kvm.Arch.X86;

/// <remarks>
/// Instructions that the host's processor executes on the operands' values, as emulate.c's fastops do. No result and no flag is computed here: what an instruction
/// does, undefined flags included, is the processor's.
/// </remarks>
public sealed unsafe partial class X86EmulateContext
{
    private const ulong ArithmeticFlags = X86_EFLAGS_OF | X86_EFLAGS_SF | X86_EFLAGS_ZF | X86_EFLAGS_AF | X86_EFLAGS_PF | X86_EFLAGS_CF;

    private Processor HostProcessor => vcpu.Arch.HostX86.ThisCpu.Processor;

    /// <summary>The instruction itself, on the operands as they were fetched.</summary>
    private int Fastop() => Fastop(insn.Code);

    [KernelFunction("fastop", File = "arch/x86/kvm/emulate.c")]
    private int Fastop(Code op)
    {
        DataOperands values = new() { Op0 = dst.Val, Op1 = src.Val, Op2 = src2.Val, Rflags = Eflags };
        if (!HostProcessor.Execute(op, ref values).Ok)
            return De();
        dst.Val = values.Op0;
        src.Val = values.Op1;
        Eflags = values.Rflags;
        return Continue;
    }

    /// <summary>test_cc: by the processor's SETcc.</summary>
    [KernelFunction("test_cc", File = "arch/x86/kvm/emulate.c")]
    private bool TestCondition(ConditionCode condition) => HostProcessor.TestCondition(condition, Eflags);

    /// <summary>em_bsf_c, em_bsr_c: with a source of zero nothing is written.</summary>
    private int BitScan()
    {
        if (src.Val == 0)
            dst.Type = Kind.None;
        return Fastop();
    }

    /// <summary>CMPS and SCAS (em_cmp_r): the source is compared with the destination, which is at [rDI].</summary>
    private int CompareStrings()
    {
        (dst.Val, src.Val) = (src.Val, dst.Val);
        return Fastop(dst.Bytes switch { 1 => Code.Cmp_rm8_r8, 2 => Code.Cmp_rm16_r16, 4 => Code.Cmp_rm32_r32, _ => Code.Cmp_rm64_r64 });
    }

    /// <summary>CMOVcc: a 32-bit destination loses its upper half even when nothing moves; others are not written then.</summary>
    private int ConditionalMove()
    {
        int rc = Fastop();
        if (dst.Bytes != 4 && !TestCondition(insn.ConditionCode))
            dst.Type = Kind.None;
        return rc;
    }

    /// <summary>em_cmpxchg. A destination that differs is written with its own value, a register too.</summary>
    private int CompareExchange()
    {
        DataOperands values = new() { Op0 = dst.Val, Op1 = src.Val, Rax = RegRead(RAX), Rflags = Eflags };
        HostProcessor.Execute(insn.Code, ref values);
        Eflags = values.Rflags;
        if ((Eflags & X86_EFLAGS_ZF) != 0)
        {
            src.Type = Kind.None;
            dst.Val = values.Op0;
            return Continue;
        }

        RegModify(RAX);
        src.Type = Kind.Reg;
        src.Reg = RAX;
        src.HighByte = false;
        src.Val = values.Rax;
        return Continue;
    }

    /// <summary>em_cmpxchg8b.</summary>
    private int CompareExchange8b()
    {
        DataOperands values = new() { Op0 = dst.Val, Rax = RegRead(RAX), Rdx = RegRead(RDX), Rcx = RegRead(RCX), Rbx = RegRead(RBX), Rflags = Eflags };
        HostProcessor.Execute(insn.Code, ref values);
        Eflags = values.Rflags;
        dst.Val = values.Op0;
        if ((Eflags & X86_EFLAGS_ZF) == 0)
        {
            RegWrite(RAX, values.Rax);
            RegWrite(RDX, values.Rdx);
        }

        return Continue;
    }

    /// <summary>MUL, IMUL, DIV, IDIV of the accumulator.</summary>
    private int MulDiv()
    {
        int rc = FetchOperand(ref dst);
        if (rc != Continue)
            return rc;
        rc = Accumulator(dst.Val);
        return rc;
    }

    /// <summary>Instructions whose operands are rAX, rDX and the flags.</summary>
    private int Accumulator(ulong operand = 0)
    {
        DataOperands values = new() { Op0 = operand, Rax = RegRead(RAX), Rdx = RegRead(RDX), Rflags = Eflags };
        ulong rdx = values.Rdx;
        if (!HostProcessor.Execute(insn.Code, ref values).Ok)
            return De();
        RegWrite(RAX, values.Rax);
        if (values.Rdx != rdx)
            RegWrite(RDX, values.Rdx);
        Eflags = values.Rflags;
        return Continue;
    }
}
