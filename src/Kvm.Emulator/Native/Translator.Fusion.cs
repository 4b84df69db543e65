using Iced.Intel;
using Kvm.Emulator.Engine;
using Kvm.Emulator.Vector;
using OpKind = Iced.Intel.OpKind;

namespace Kvm.Emulator.Native;

/// <summary>One check of the TLB for several operands: those that are based on the same register and lie close together are in the same page, mostly.</summary>
/// <remarks>
/// What the check has found stays in R15 until an instruction needs that register or the base becomes unknown; changes by constants, as those of the stack pointer, are followed.
/// Operands behind a conditional branch are not included. When the hull of the operands crosses a page the interpreter executes what is left of the block, and a block
/// that this happens to often is translated again with a check for each.
/// </remarks>
internal sealed unsafe partial class Translator
{
    private const int largestHull = 512;

    /// <summary>The memory operand of an instruction that may share a check: [base + displacement].</summary>
    private struct Access
    {
        internal byte Base;
        internal bool Write;
        /// <summary>R15 is used for something else.</summary>
        internal bool Breaks;
        internal int Displacement, Size;
    }

    private readonly Access[] accesses = new Access[Block.MaximumOps];
    /// <summary>What R15 is good for: the base, and the bytes around it. <see cref="Op.NoRegister"/>: nothing.</summary>
    private byte knownBase = Op.NoRegister;
    private long knownLow, knownHigh;
    private bool knownWrite;
    /// <summary>Per instruction that checks for others too: their hull.</summary>
    private readonly (byte Base, int Low, int Length)[] hulls = new (byte, int, int)[Block.MaximumOps];

    private void DescribeAccesses()
    {
        knownBase = Op.NoRegister;
        for (int i = 0; i < translated; i++)
        {
            hulls[i] = default;
            accesses[i] = Describe(i, Block.Ops(block) + i);
        }
    }

    private Access Describe(int i, Op* op)
    {
        if (!code64)
            return new Access { Base = Op.NoRegister, Breaks = true };
        switch (treatments[i])
        {
            case Treatment.Push when !op->HasMemory:
            case Treatment.Call:
                return new Access { Base = HostRegister.Rsp, Displacement = -8, Size = 8, Write = true };
            case Treatment.Pop when !op->HasMemory:
            case Treatment.Return:
                return new Access { Base = HostRegister.Rsp, Size = 8 };
            case Treatment.Leave:
                return new Access { Base = HostRegister.Rbp, Size = 8 };
            case Treatment.Same or Treatment.Vector when op->HasMemory:
                return Based(i, op);
            case Treatment.Same or Treatment.Vector:
                return new Access { Base = Op.NoRegister, Breaks = SpilledOperands(instructions[i]) > 1 };
            case Treatment.Nothing or Treatment.Branch or Treatment.Jump:
                return new Access { Base = Op.NoRegister };
            case Treatment.Lea:
                return new Access { Base = Op.NoRegister, Breaks = HostRegister.IsSpilled(op->Index) };
            default:
                return new Access { Base = Op.NoRegister, Breaks = true };
        }
    }

    private Access Based(int i, Op* op)
    {
        var other = new Access { Base = Op.NoRegister, Breaks = true };
        bool segment = op->Segment >= Seg.FS && op->Segment != Seg.None;
        if (segment || op->AddressWidth != 8 || op->Base >= 16 || op->Index != Op.NoRegister || Math.Abs(op->Disp) > int.MaxValue / 2)
            return other;
        if (HostRegister.IsSpilled(op->Base) && HasSpilled(instructions[i]))
            return other;
        if (treatments[i] == Treatment.Vector)
        {
            VectorOp* v = VectorOp.Of(op);
            if (v->Alignment > 1 || v->MemoryBytes == 0)
                return other;
            return new Access { Base = op->Base, Displacement = (int)op->Disp, Size = v->MemoryBytes, Write = (v->Flags & VectorFlags.WritesMemory) != 0 };
        }
        InstructionShape shape = InstructionShape.Of(instructions[i], infoFactory);
        int size = instructions[i].MemorySize.GetSize();
        if (instructions[i].HasLockPrefix || shape.Atomic || size == 0 || size > 8)
            return other;
        return new Access { Base = op->Base, Displacement = (int)op->Disp, Size = size, Write = shape.Writes };
    }

    private static int SpilledOperands(in Instruction instruction)
    {
        int seen = 0;
        for (int k = 0; k < instruction.OpCount; k++)
        {
            if (instruction.GetOpKind(k) == OpKind.Register && instruction.GetOpRegister(k).IsGPR() && NumberOf(instruction.GetOpRegister(k)) is >= 13 and < 16 and var n)
                seen |= 1 << n;
        }
        return global::System.Numerics.BitOperations.PopCount((uint)seen);
    }

    /// <summary>Whether R15 already serves the operand.</summary>
    private bool IsKnown(int i) => accesses[i].Base != Op.NoRegister && accesses[i].Base == knownBase && accesses[i].Displacement >= knownLow
        && accesses[i].Displacement + accesses[i].Size <= knownHigh && (knownWrite || !accesses[i].Write);

    /// <summary>The bytes that one check before instruction <paramref name="i"/> is for.</summary>
    private void Hull(int i, out int low, out int high, out bool write)
    {
        ref Access first = ref accesses[i];
        low = first.Displacement;
        high = low + first.Size;
        write = first.Write;
        int count = 1;
        long delta = 0;
        if (block->Separate == 0 && Follow(i, first.Base, ref delta))
        {
            for (int j = i + 1; j < translated && !accesses[j].Breaks && treatments[j] != Treatment.Branch; j++)
            {
                ref Access next = ref accesses[j];
                if (next.Base == first.Base)
                {
                    long from = Math.Min(low, delta + next.Displacement), to = Math.Max(high, delta + next.Displacement + next.Size);
                    if (to - from > largestHull || (int)from != from || (int)to != to)
                        break;
                    (low, high) = ((int)from, (int)to);
                    write |= next.Write;
                    count++;
                }
                else if (next.Base != Op.NoRegister)
                    break;
                if (!Follow(j, first.Base, ref delta))
                    break;
            }
        }
        if (count > 1)
            hulls[i] = (first.Base, low, high - low);
        knownBase = first.Base;
        (knownLow, knownHigh, knownWrite) = (low, high, write);
    }

    /// <summary>What instruction <paramref name="i"/> does to a base: it becomes unknown (false), or changes by a constant.</summary>
    private bool Follow(int i, byte register, ref long delta)
    {
        Op* op = Block.Ops(block) + i;
        switch (treatments[i])
        {
            case Treatment.Nothing or Treatment.Branch:
                return true;
            case Treatment.Push:
                delta -= register == HostRegister.Rsp ? 8 : 0;
                return true;
            case Treatment.Pop:
                delta += register == HostRegister.Rsp ? 8 : 0;
                return op->Rm != register;
            case Treatment.Lea:
                if (op->Reg != register)
                    return true;
                delta += op->Disp;
                return op->Base == register && op->Index == Op.NoRegister && op->Width == 8 && op->AddressWidth == 8 && (int)op->Disp == op->Disp;
            case Treatment.Same or Treatment.Vector:
                return FollowSame(i, op, register, ref delta);
            default:
                return false;
        }
    }

    private bool FollowSame(int i, Op* op, byte register, ref long delta)
    {
        ref Instruction instruction = ref instructions[i];
        // RAX, RCX, RDX and RBX are operands of some that don't name them.
        if (register < 4 && (treatments[i] == Treatment.Vector || instruction.Mnemonic is Mnemonic.Mul or Mnemonic.Imul or Mnemonic.Cwd or Mnemonic.Cdq or Mnemonic.Cqo or Mnemonic.Cbw
            or Mnemonic.Cwde or Mnemonic.Cdqe or Mnemonic.Cmpxchg or Mnemonic.Cmpxchg8b or Mnemonic.Mulx))
            return false;
        byte written = treatments[i] == Treatment.Vector ? (byte)0xff : InstructionShape.Of(instruction, infoFactory).Written;
        for (int k = 0; k < instruction.OpCount; k++)
        {
            if ((written >> k & 1) == 0 || instruction.GetOpKind(k) != OpKind.Register || !instruction.GetOpRegister(k).IsGPR())
                continue;
            int number = NumberOf(instruction.GetOpRegister(k));
            if ((number >= 16 ? number - 16 : number) != register)
                continue;
            switch (instruction.Code)
            {
                case Code.Add_rm64_imm8 or Code.Add_rm64_imm32 or Code.Add_RAX_imm32:
                    delta += (long)op->Imm;
                    break;
                case Code.Sub_rm64_imm8 or Code.Sub_rm64_imm32 or Code.Sub_RAX_imm32:
                    delta -= (long)op->Imm;
                    break;
                case Code.Inc_rm64:
                    delta++;
                    break;
                case Code.Dec_rm64:
                    delta--;
                    break;
                default:
                    return false;
            }
        }
        return true;
    }

    /// <summary>Instruction <paramref name="i"/> has been written: what R15 is good for now.</summary>
    private void FollowKnown(int i)
    {
        if (knownBase == Op.NoRegister)
            return;
        long delta = 0;
        if ((accesses[i].Breaks && accesses[i].Base == Op.NoRegister) || !Follow(i, knownBase, ref delta))
        {
            knownBase = Op.NoRegister;
            return;
        }
        knownLow -= delta;
        knownHigh -= delta;
    }
}
