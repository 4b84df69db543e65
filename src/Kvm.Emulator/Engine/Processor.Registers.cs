using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

public sealed unsafe partial class Processor
{
    /// <summary>The whole of RFLAGS, lazy flags resolved; bit 1 reads as one. Setting it changes no mode: call UpdateMode when VM, TF or AC may differ.</summary>
    public ulong Rflags
    {
        get
        {
            LazyFlags.Resolve(State);
            return State->Rflags | 2;
        }
        set
        {
            State->LazyOp = LazyOp.None;
            State->Rflags = value | 2;
        }
    }

    /// <summary>A general register as an instruction of <paramref name="width"/> bytes reads it; 16–19 are AH CH DH BH.</summary>
    internal ulong ReadRegister(byte reg, int width)
    {
        return reg >= 16 ? OperandSize.Extract(State->Gpr[reg - 16], 1, high: true) : OperandSize.Extract(State->Gpr[reg], width);
    }

    /// <summary>Writes a general register: 8- and 16-bit writes keep the rest, 32-bit writes clear the upper half.</summary>
    internal void WriteRegister(byte reg, int width, ulong value)
    {
        ulong* p = &State->Gpr[reg & 15];
        *p = reg >= 16 ? OperandSize.Insert(*p, value, 1, high: true) : OperandSize.Insert(*p, value, width);
    }

    /// <summary>An address inside the operand of an instruction, as its address size truncates it.</summary>
    internal static ulong WrapAddress(Op* op, ulong address) => OperandSize.Truncate(address, op->AddressWidth);

    /// <summary>Offset of the memory operand within its segment, truncated to the address size. RIP addresses the instruction.</summary>
    internal ulong EffectiveAddress(Op* op)
    {
        ulong from = op->Base == Op.RipBase ? State->Rip + op->Length : op->Base != Op.NoRegister ? State->Gpr[op->Base] : 0;
        ulong index = op->Index != Op.NoRegister ? State->Gpr[op->Index] : 0;
        return OperandSize.Address(from, index, op->Scale, (ulong)op->Disp, op->AddressWidth);
    }
}
