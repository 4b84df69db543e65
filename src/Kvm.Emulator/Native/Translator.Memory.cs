using Iced.Intel;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Native;

internal sealed unsafe partial class Translator
{
    /// <summary>A memory operand of host code: [R15 + index + displacement], or [R14 + R15 + displacement].</summary>
    private struct HostOperand
    {
        internal int Index;
        internal int Displacement;
    }

    /// <summary>
    /// The check of the software TLB for an operand of instruction <paramref name="i"/>; afterwards R15, and R14 if it is the index, hold what the operand needs.
    /// EFLAGS are lost. False: not an address that is translated.
    /// </summary>
    /// <remarks>
    /// The tag of the entry for the first byte is compared with the page of the last: an operand across a page boundary matches nothing.
    /// <paramref name="alignment"/> leaves low bits in the comparison instead.
    /// </remarks>
    private bool Address(int i, Op* op, int size, bool write, int alignment, out HostOperand operand)
    {
        operand = new HostOperand { Index = HostRegister.None };
        if (op->AddressWidth == 2)
            return false;
        bool segment = op->Segment >= Seg.FS && op->Segment != Seg.None;
        if ((op->Base == Op.RipBase || (op->Base == Op.NoRegister && op->Index == Op.NoRegister)) && !segment)
            return ConstantAddress(i, op, size, write, alignment, out operand);
        return VariableAddress(i, op, segment, size, write, alignment, out operand);
    }

    private bool ConstantAddress(int i, Op* op, int size, bool write, int alignment, out HostOperand operand)
    {
        operand = default;
        ulong address = (op->Base == Op.RipBase ? rip + op->BlockOffset + op->Length : 0) + (ulong)op->Disp;
        address &= op->AddressMask;
        if ((address & 0xfff) + (ulong)size > 4096 || (address & (ulong)(alignment - 1)) != 0)
            return false;
        LoseFlags(i);
        int entry = TlbTable.Index(address) * sizeof(TlbEntry);
        ulong page = address & Operand.PageMask;
        int tag = entry + (write ? sizeof(ulong) : 0);
        e.Near(true, 0x8b, HostRegister.R15, &s->Tlb);
        if ((ulong)(int)page == page)
        {
            e.Memory(true, 0x81, 7, HostRegister.R15, HostRegister.None, 0, tag);
            e.Int((int)page);
        }
        else
        {
            e.MoveImmediate(HostRegister.R14, page);
            e.Memory(true, 0x39, HostRegister.R14, HostRegister.R15, HostRegister.None, 0, tag);
        }
        InterpretIf(Emitter.NotEqual, i);
        e.Memory(true, 0x8b, HostRegister.R15, HostRegister.R15, HostRegister.None, 0, entry + 3 * sizeof(ulong));
        if ((ulong)(int)page == page)
            operand = new HostOperand { Index = HostRegister.None, Displacement = (int)address };
        else
            operand = new HostOperand { Index = HostRegister.R14, Displacement = (int)(address & 0xfff) };
        return true;
    }

    private bool VariableAddress(int i, Op* op, bool segment, int size, bool write, int alignment, out HostOperand operand)
    {
        operand = default;
        bool wide = op->AddressWidth == 8, relative = op->Base == Op.RipBase;
        long offset = relative ? (long)(rip + op->BlockOffset + op->Length) + op->Disp : op->Disp;
        if (relative && !wide)
            return false;
        if (!wide)
            offset = (int)offset;
        if ((int)offset != offset || (int)(offset + size) != offset + size)
            return false;
        int displacement = (int)offset;
        if (accesses[i].Base != Op.NoRegister)
        {
            FusedAddress(i, out operand);
            return true;
        }
        LoseFlags(i);
        bool baseSpilled = op->Base < 16 && HostRegister.IsSpilled(op->Base), indexSpilled = op->Index < 16 && HostRegister.IsSpilled(op->Index);
        int last = alignment > 1 ? 0 : size - 1;
        if (baseSpilled && indexSpilled)
        {
            e.Near(true, 0x8b, HostRegister.R14, &s->Gpr[op->Base]);
            e.Near(true, 0x8b, HostRegister.R15, &s->Gpr[op->Index]);
            e.Lea(wide, HostRegister.R15, HostRegister.R14, HostRegister.R15, op->Scale, displacement);
            e.Near(true, 0x89, HostRegister.R15, &s->NativeScratch);
            if (segment)
                AddSegment(HostRegister.R15, op);
            e.Lea(true, HostRegister.R14, HostRegister.R15, HostRegister.None, 0, last);
            Check(i, write, alignment);
            if (segment)
                AddSegment(HostRegister.R15, op);
            e.Near(true, 0x8b, HostRegister.R14, &s->NativeScratch);
            operand = new HostOperand { Index = HostRegister.R14 };
            return true;
        }
        int @base = op->Base == Op.NoRegister || relative ? HostRegister.None : baseSpilled ? HostRegister.R14 : HostRegister.Of(op->Base);
        int index = op->Index == Op.NoRegister ? HostRegister.None : indexSpilled ? HostRegister.R14 : HostRegister.Of(op->Index);
        LoadSpilled(op, baseSpilled, indexSpilled);
        e.Lea(wide, HostRegister.R15, @base, index, op->Scale, displacement);
        if (segment)
        {
            AddSegment(HostRegister.R15, op);
            e.Lea(true, HostRegister.R14, HostRegister.R15, HostRegister.None, 0, last);
        }
        else
            e.Lea(wide, HostRegister.R14, @base, index, op->Scale, displacement + last);
        Check(i, write, alignment);
        if (segment)
            AddSegment(HostRegister.R15, op);
        LoadSpilled(op, baseSpilled, indexSpilled);
        if (wide && index == HostRegister.None)
        {
            operand = new HostOperand { Index = @base, Displacement = displacement };
            return true;
        }
        e.Lea(wide, HostRegister.R14, @base, index, op->Scale, displacement);
        operand = new HostOperand { Index = HostRegister.R14 };
        return true;
    }

    /// <summary>[base + displacement], perhaps with the check of an operand before, or one for others behind it.</summary>
    private void FusedAddress(int i, out HostOperand operand)
    {
        int guest = accesses[i].Base;
        bool spilled = HostRegister.IsSpilled(guest);
        int register = spilled ? HostRegister.R14 : HostRegister.Of(guest);
        if (!IsKnown(i))
        {
            LoseFlags(i);
            Hull(i, out int low, out int high, out bool write);
            if (spilled)
                e.Near(true, 0x8b, HostRegister.R14, &s->Gpr[guest]);
            e.Lea(true, HostRegister.R15, register, HostRegister.None, 0, low);
            e.Lea(true, HostRegister.R14, register, HostRegister.None, 0, high - 1);
            Check(i, write, 1);
        }
        if (spilled)
            e.Near(true, 0x8b, HostRegister.R14, &s->Gpr[guest]);
        operand = new HostOperand { Index = register, Displacement = accesses[i].Displacement };
    }

    private void LoadSpilled(Op* op, bool baseSpilled, bool indexSpilled)
    {
        if (baseSpilled)
            e.Near(true, 0x8b, HostRegister.R14, &s->Gpr[op->Base]);
        else if (indexSpilled)
            e.Near(true, 0x8b, HostRegister.R14, &s->Gpr[op->Index]);
    }

    private void AddSegment(int register, Op* op) => e.Near(true, 0x03, register, &((SegmentCache*)&s->Segs)[(int)op->Segment].Base);

    /// <summary>R15 is the linear address, R14 that of the last byte; R15 becomes what has to be added to linear addresses.</summary>
    private void Check(int i, bool write, int alignment)
    {
        e.ShiftRight(HostRegister.R15, 7);
        e.Arithmetic(false, 4, HostRegister.R15, (TlbEntry.Entries - 1) << 5);
        e.Arithmetic(true, 4, HostRegister.R14, -4096 | (alignment - 1));
        e.Near(true, 0x03, HostRegister.R15, &s->Tlb);
        e.Memory(true, 0x3b, HostRegister.R14, HostRegister.R15, HostRegister.None, 0, write ? sizeof(ulong) : 0);
        InterpretIf(Emitter.NotEqual, i);
        e.Memory(true, 0x8b, HostRegister.R15, HostRegister.R15, HostRegister.None, 0, 3 * sizeof(ulong));
    }

    /// <summary>[register + displacement], as wide as the stack. In 32-bit code R14 is part of the operand.</summary>
    private HostOperand StackAddress(int i, int register, int displacement, bool write)
    {
        if (accesses[i].Base != Op.NoRegister)
        {
            FusedAddress(i, out HostOperand operand);
            return operand;
        }
        LoseFlags(i);
        e.Lea(code64, HostRegister.R15, register, HostRegister.None, 0, displacement);
        e.Lea(code64, HostRegister.R14, register, HostRegister.None, 0, displacement + StackWidth - 1);
        Check(i, write, 1);
        if (code64)
            return new HostOperand { Index = register, Displacement = displacement };
        e.Lea(false, HostRegister.R14, register, HostRegister.None, 0, displacement);
        return new HostOperand { Index = HostRegister.R14 };
    }

    private int StackWidth => code64 ? 8 : 4;

    private void MoveStack(int by) => e.Lea(code64, HostRegister.Stack, HostRegister.Stack, HostRegister.None, 0, by);

    /// <summary>Frees R14: the address in R15 alone.</summary>
    private void Collapse(ref HostOperand operand)
    {
        if (operand.Index != HostRegister.None)
            e.Lea(true, HostRegister.R15, HostRegister.R15, operand.Index, 0, operand.Displacement);
        else if (operand.Displacement != 0)
            e.Lea(true, HostRegister.R15, HostRegister.R15, HostRegister.None, 0, operand.Displacement);
        operand = new HostOperand { Index = HostRegister.None };
    }

    private void Operate(bool wide, int opcode, int reg, in HostOperand operand) => e.Memory(wide, opcode, reg, HostRegister.R15, operand.Index, 0, operand.Displacement);

    private static void Substitute(ref Instruction instruction, in HostOperand operand)
    {
        instruction.SegmentPrefix = Register.None;
        instruction.MemoryBase = Register.R15;
        instruction.MemoryIndex = operand.Index == HostRegister.None ? Register.None : Register.RAX + operand.Index;
        instruction.MemoryIndexScale = 1;
        instruction.MemoryDisplacement64 = (ulong)(long)operand.Displacement;
        instruction.MemoryDisplSize = operand.Displacement == 0 ? 0 : (sbyte)operand.Displacement == operand.Displacement ? 1 : 8;
    }
}
