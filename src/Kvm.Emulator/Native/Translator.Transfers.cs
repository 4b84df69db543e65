using Iced.Intel;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Native;

internal sealed unsafe partial class Translator
{
    private ulong TargetOf(Op* op) => (rip + op->BlockOffset + op->Length + op->Imm) & (op->Width switch { 2 => ushort.MaxValue, 4 => uint.MaxValue, _ => ulong.MaxValue });

    private bool Branch(int i, Op* op)
    {
        ulong target = TargetOf(op);
        if (!ControlFlow.TargetAllowed(s, target))
            return false;
        NeedFlags(i);
        SaveFlags(LiveInto(target));
        int condition = op->Imm2;
        int rest = block->OpCount - (i + 1);
        if (rest == 0 && (target ^ rip) >> 12 == 0)
        {
            Translation* known = target == rip ? translation : engine.Known(block, target, rip);
            byte* from = e.JumpIf(condition);
            if (known != null)
                *(int*)from = (int)(known->Entry - e.Executable);
            else
                exits[exitCount++] = new PendingExit { From = from, Kind = ExitKind.Link, Target = target };
            return true;
        }
        exits[exitCount++] = new PendingExit { From = e.JumpIf(condition), IsEdge = true, Op = rest, Target = target };
        return true;
    }

    private bool Transfer(int i, Op* op) => treatments[i] switch
    {
        Treatment.Jump => Jump(op),
        Treatment.Call => Call(i, op),
        Treatment.Return => Return(i, op),
        Treatment.JumpIndirect => JumpIndirect(i, op),
        _ => CallIndirect(i, op),
    };

    private bool Jump(Op* op)
    {
        ulong target = TargetOf(op);
        if (!ControlFlow.TargetAllowed(s, target))
            return false;
        SaveFlags(LiveInto(target));
        Edge(target, 0);
        return true;
    }

    private bool Call(int i, Op* op)
    {
        ulong target = TargetOf(op);
        if (!ControlFlow.TargetAllowed(s, target))
            return false;
        SaveFlags(AllFlags);
        StoreImmediate(StackAddress(i, HostRegister.Stack, -StackWidth, write: true), Following(op));
        Edge(target, 0);
        return true;
    }

    /// <summary>The address behind the instruction.</summary>
    private ulong Following(Op* op) => code64 ? rip + op->BlockOffset + op->Length : (uint)(rip + op->BlockOffset + op->Length);

    /// <summary>Pushes a constant; the check is done.</summary>
    private void StoreImmediate(in HostOperand operand, ulong value)
    {
        if (!code64 || (ulong)(int)value == value)
        {
            Operate(code64, 0xc7, 0, operand);
            e.Int((int)value);
        }
        else
        {
            e.MoveImmediate(HostRegister.R14, value);
            Operate(true, 0x89, HostRegister.R14, operand);
        }
        MoveStack(-StackWidth);
    }

    private bool Return(int i, Op* op)
    {
        SaveFlags(AllFlags);
        Operate(code64, 0x8b, HostRegister.R14, StackAddress(i, HostRegister.Stack, 0, write: false));
        FindTarget(i);
        MoveStack(StackWidth + (ushort)op->Imm);
        e.Memory(false, 0xff, 4, HostRegister.R15, HostRegister.None, 0, JumpCache.Offset);
        return true;
    }

    /// <summary>The target of an indirect branch, to R14.</summary>
    private bool LoadTarget(int i, Op* op)
    {
        SaveFlags(AllFlags);
        if (!op->HasMemory)
        {
            LoseFlags(i);
            int source = Source(op->Rm, HostRegister.R14);
            if (source != HostRegister.R14)
                e.Registers(code64, 0x8b, HostRegister.R14, source);
            return true;
        }
        if (!Address(i, op, StackWidth, write: false, 1, out HostOperand operand))
            return false;
        Operate(code64, 0x8b, HostRegister.R14, operand);
        return true;
    }

    private bool JumpIndirect(int i, Op* op)
    {
        if (!LoadTarget(i, op))
            return false;
        FindTarget(i);
        e.Memory(false, 0xff, 4, HostRegister.R15, HostRegister.None, 0, JumpCache.Offset);
        return true;
    }

    private bool CallIndirect(int i, Op* op)
    {
        if (!LoadTarget(i, op))
            return false;
        FindTarget(i);
        e.Memory(true, 0x8b, HostRegister.R14, HostRegister.R15, HostRegister.None, 0, JumpCache.Offset);
        e.Near(true, 0x89, HostRegister.R14, &s->NativeEntry);
        StoreImmediate(StackAddress(i, HostRegister.Stack, -StackWidth, write: true), Following(op));
        e.Near(false, 0xff, 4, &s->NativeEntry);
        return true;
    }

    private bool Push(int i, Op* op)
    {
        if (op->Code is Code.Pushq_imm8 or Code.Pushq_imm32 or Code.Pushd_imm8 or Code.Pushd_imm32)
        {
            StoreImmediate(StackAddress(i, HostRegister.Stack, -StackWidth, write: true), op->Imm);
            return true;
        }
        if (op->HasMemory)
        {
            if (!Address(i, op, StackWidth, write: false, 1, out HostOperand from))
                return false;
            Operate(code64, 0x8b, HostRegister.R14, from);
            e.Near(true, 0x89, HostRegister.R14, &s->NativeScratch);
            HostOperand to = StackAddress(i, HostRegister.Stack, -StackWidth, write: true);
            Collapse(ref to);
            e.Near(true, 0x8b, HostRegister.R14, &s->NativeScratch);
            Operate(code64, 0x89, HostRegister.R14, to);
        }
        else
        {
            HostOperand to = StackAddress(i, HostRegister.Stack, -StackWidth, write: true);
            Operate(code64, 0x89, Source(op->Rm, HostRegister.R14), to);
        }
        MoveStack(-StackWidth);
        return true;
    }

    private bool Pop(int i, Op* op)
    {
        if (op->HasMemory)
            return false;
        HostOperand from = StackAddress(i, HostRegister.Stack, 0, write: false);
        if (op->Rm == HostRegister.Rsp)
        {
            Operate(code64, 0x8b, HostRegister.Stack, from);
            return true;
        }
        int to = HostRegister.IsSpilled(op->Rm) ? HostRegister.R14 : HostRegister.Of(op->Rm);
        Operate(code64, 0x8b, to, from);
        MoveStack(StackWidth);
        if (to == HostRegister.R14)
            e.Near(true, 0x89, to, &s->Gpr[op->Rm]);
        return true;
    }

    private bool Leave(int i)
    {
        HostOperand from = StackAddress(i, HostRegister.Rbp, 0, write: false);
        Operate(code64, 0x8b, HostRegister.R14, from);
        e.Lea(code64, HostRegister.Stack, HostRegister.Rbp, HostRegister.None, 0, StackWidth);
        e.Move(HostRegister.Rbp, HostRegister.R14);
        return true;
    }
}
