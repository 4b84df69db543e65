using Iced.Intel;
using Kvm.Emulator.Engine;
using Kvm.Emulator.Vector;
using OpKind = Iced.Intel.OpKind;

namespace Kvm.Emulator.Native;

internal sealed unsafe partial class Translator
{
    /// <summary>How much of the vector registers the block needs: nothing, <see cref="Trampolines.LowVectors"/>, <see cref="Trampolines.WholeVectors"/>.</summary>
    private int vectors;

    // DIVERGES: D-ENGINE-9
    /// <summary>The guest's own instruction, its operands replaced.</summary>
    private bool Same(int i, Op* op)
    {
        ref Instruction original = ref instructions[i];
        bool memory = op->HasMemory;
        if (!memory && IsIdentical(original, op))
        {
            NeedFlags(i);
            e.Bytes(Block.Copy(block) + op->BlockOffset, op->Length);
            FlagsChanged(i);
            return true;
        }
        Instruction instruction = original;
        instruction.Code = Encodable(original.Code);
        instruction.HasRepPrefix = instruction.HasRepnePrefix = false;
        byte written;
        int first = HostRegister.None, second = HostRegister.None;
        if (treatments[i] == Treatment.Vector)
        {
            written = 0xff;
            if (memory && !VectorAddress(i, op, ref instruction, HasSpilled(original)))
                return false;
        }
        else
        {
            InstructionShape shape = InstructionShape.Of(original, infoFactory);
            written = shape.Written;
            if (memory && !IntegerAddress(i, op, shape, ref instruction, HasSpilled(original)))
                return false;
        }
        NeedFlags(i);
        if (!Rename(ref instruction, memory, ref first, ref second))
            return false;
        LoadSpilled(first, HostRegister.R14);
        LoadSpilled(second, HostRegister.R15);
        if (!encoder.TryEncode(instruction, (ulong)e.Executable, out _, out _))
            return false;
        StoreSpilled(original, written, first, HostRegister.R14);
        StoreSpilled(original, written, second, HostRegister.R15);
        FlagsChanged(i);
        return true;
    }

    /// <summary>Forms that 64-bit code does not have.</summary>
    private static Code Encodable(Code code) => code switch
    {
        Code.Inc_r16 => Code.Inc_rm16,
        Code.Inc_r32 => Code.Inc_rm32,
        Code.Dec_r16 => Code.Dec_rm16,
        Code.Dec_r32 => Code.Dec_rm32,
        _ => code,
    };

    /// <summary>All registers that it names are the host's of the same name, and its bytes mean the same to the host.</summary>
    private static bool IsIdentical(in Instruction instruction, Op* op)
    {
        if ((op->Prefixes & (OpPrefixes.Lock | OpPrefixes.Rep | OpPrefixes.Repne)) != 0 || instruction.CodeSize != CodeSize.Code64)
            return false;
        for (int k = 0; k < instruction.OpCount; k++)
        {
            if (instruction.GetOpKind(k) != OpKind.Register || !instruction.GetOpRegister(k).IsGPR())
                continue;
            int number = NumberOf(instruction.GetOpRegister(k));
            if (number is HostRegister.Rsp or >= 13 and < 16)
                return false;
        }
        return true;
    }

    /// <summary>The register's number; of AH CH DH BH 16 and up.</summary>
    private static int NumberOf(Register register)
    {
        int n = register - Register.AL;
        return register is < Register.AL or > Register.R15L ? register.GetNumber() : n < 4 ? n : n < 8 ? n + 12 : n - 4;
    }

    private static bool HasSpilled(in Instruction instruction)
    {
        for (int k = 0; k < instruction.OpCount; k++)
        {
            if (instruction.GetOpKind(k) == OpKind.Register && instruction.GetOpRegister(k).IsGPR() && HostRegister.IsSpilled(NumberOf(instruction.GetOpRegister(k))))
                return true;
        }
        return false;
    }

    /// <summary>Guest registers to the host's that stand for them. With a memory operand only R14 is free for one that is spilled.</summary>
    private static bool Rename(ref Instruction instruction, bool memory, ref int first, ref int second)
    {
        for (int k = 0; k < instruction.OpCount; k++)
        {
            if (instruction.GetOpKind(k) != OpKind.Register)
                continue;
            Register register = instruction.GetOpRegister(k);
            if (!register.IsGPR())
                continue;
            int number = NumberOf(register);
            if (number == HostRegister.Rsp)
                instruction.SetOpRegister(k, Form(register, HostRegister.Stack));
            if (!HostRegister.IsSpilled(number))
                continue;
            if (first == HostRegister.None || first == number)
                first = number;
            else if (!memory && (second == HostRegister.None || second == number))
                second = number;
            else
                return false;
            instruction.SetOpRegister(k, Form(register, first == number ? HostRegister.R14 : HostRegister.R15));
        }
        return true;
    }

    /// <summary>Register <paramref name="number"/> as wide as <paramref name="like"/>.</summary>
    private static Register Form(Register like, int number)
        => like.IsGPR64() ? Register.RAX + number : like.IsGPR32() ? Register.EAX + number : like.IsGPR16() ? Register.AX + number : Register.R8L + (number - 8);

    private void LoadSpilled(int guest, int host)
    {
        if (guest != HostRegister.None)
            e.Near(true, 0x8b, host, &s->Gpr[guest]);
    }

    private void StoreSpilled(in Instruction original, byte written, int guest, int host)
    {
        if (guest == HostRegister.None)
            return;
        for (int k = 0; k < original.OpCount; k++)
        {
            if ((written >> k & 1) == 0 || original.GetOpKind(k) != OpKind.Register || !original.GetOpRegister(k).IsGPR() || NumberOf(original.GetOpRegister(k)) != guest)
                continue;
            e.Near(true, 0x89, host, &s->Gpr[guest]);
            return;
        }
    }

    private bool IntegerAddress(int i, Op* op, InstructionShape shape, ref Instruction instruction, bool collapse)
    {
        // Bits beyond the operand are addressed by a register.
        if (instruction.Mnemonic is Mnemonic.Bt or Mnemonic.Bts or Mnemonic.Btr or Mnemonic.Btc && instruction.Op1Kind == OpKind.Register)
            return false;
        int size = instruction.MemorySize.GetSize();
        if (size == 0)
            return false;
        bool atomic = instruction.HasLockPrefix || shape.Atomic;
        if (!Address(i, op, size, shape.Writes, atomic ? size : 1, out HostOperand operand))
            return false;
        if (collapse && operand.Index == HostRegister.R14)
            Collapse(ref operand);
        Substitute(ref instruction, operand);
        return true;
    }

    private bool VectorAddress(int i, Op* op, ref Instruction instruction, bool collapse)
    {
        VectorOp* v = VectorOp.Of(op);
        if (v->MemoryBytes == 0 || !Address(i, op, v->MemoryBytes, (v->Flags & VectorFlags.WritesMemory) != 0, v->Alignment, out HostOperand operand))
            return false;
        if (collapse && operand.Index == HostRegister.R14)
            Collapse(ref operand);
        Substitute(ref instruction, operand);
        return true;
    }

    private bool Lea(int i, Op* op)
    {
        bool wide = op->Width == 8;
        int to = HostRegister.IsSpilled(op->Reg) ? HostRegister.R14 : HostRegister.Of(op->Reg);
        if (op->AddressWidth == 2)
            return false;
        if (op->Base == Op.RipBase || (op->Base == Op.NoRegister && op->Index == Op.NoRegister))
        {
            ulong address = ((op->Base == Op.RipBase ? rip + op->BlockOffset + op->Length : 0) + (ulong)op->Disp) & op->AddressMask;
            e.MoveImmediate(to, wide ? address : (uint)address);
        }
        else
        {
            if ((int)op->Disp != op->Disp && op->AddressWidth == 8)
                return false;
            int @base = Source(op->Base, HostRegister.R14), index = Source(op->Index, HostRegister.R15);
            e.Lea(wide && op->AddressWidth == 8, to, @base, index, op->Scale, (int)op->Disp);
        }
        if (to == HostRegister.R14)
            e.Near(true, 0x89, to, &s->Gpr[op->Reg]);
        return true;
    }

    /// <summary>The host register that holds a guest's: <paramref name="temporary"/>, loaded, for one that is spilled.</summary>
    private int Source(int guest, int temporary)
    {
        if (guest >= 16)
            return HostRegister.None;
        if (!HostRegister.IsSpilled(guest))
            return HostRegister.Of(guest);
        e.Near(true, 0x8b, temporary, &s->Gpr[guest]);
        return temporary;
    }

    /// <summary>DIV and IDIV, after a look at whether the quotient fits.</summary>
    private bool Divide(int i, Op* op)
    {
        bool wide = op->Width == 8;
        if (op->HasMemory)
        {
            if (!Address(i, op, op->Width, write: false, 1, out HostOperand operand))
                return false;
            Operate(wide, 0x8b, HostRegister.R14, operand);
        }
        else
        {
            LoseFlags(i);
            int source = Source(op->Rm, HostRegister.R14);
            if (source != HostRegister.R14 || !wide)
                e.Registers(wide, 0x8b, HostRegister.R14, source);
        }
        if (treatments[i] == Treatment.Divide)
        {
            e.Registers(wide, 0x3b, HostRegister.Rdx, HostRegister.R14);
            InterpretIf(Emitter.NotCarry, i);
            e.Registers(wide, 0xf7, 6, HostRegister.R14);
        }
        else
        {
            // A dividend as wide as the divisor, which is neither 0 nor -1.
            e.Lea(wide, HostRegister.R15, HostRegister.R14, HostRegister.None, 0, 1);
            e.Arithmetic(wide, 7, HostRegister.R15, 1);
            InterpretIf(Emitter.BelowOrEqual, i);
            e.Registers(wide, 0x8b, HostRegister.R15, HostRegister.Rax);
            e.Registers(wide, 0xc1, 7, HostRegister.R15);
            e.Byte(wide ? 63 : 31);
            e.Registers(wide, 0x3b, HostRegister.R15, HostRegister.Rdx);
            InterpretIf(Emitter.NotEqual, i);
            e.Registers(wide, 0xf7, 7, HostRegister.R14);
        }
        FlagsChanged(i);
        return true;
    }
}
