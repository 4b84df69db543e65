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
        if (reg >= 16)
            return (State->Gpr[reg - 16] >> 8) & 0xff;
        ulong value = State->Gpr[reg];
        return width switch { 1 => (byte)value, 2 => (ushort)value, 4 => (uint)value, _ => value };
    }

    /// <summary>Writes a general register: 8- and 16-bit writes keep the rest, 32-bit writes clear the upper half.</summary>
    internal void WriteRegister(byte reg, int width, ulong value)
    {
        if (reg >= 16)
        {
            ((byte*)&State->Gpr[reg - 16])[1] = (byte)value;
            return;
        }
        ulong* p = &State->Gpr[reg];
        switch (width)
        {
            case 1: *(byte*)p = (byte)value; break;
            case 2: *(ushort*)p = (ushort)value; break;
            case 4: *p = (uint)value; break;
            default: *p = value; break;
        }
    }

    /// <summary>An address inside the operand of an instruction, as its address size truncates it.</summary>
    internal static ulong WrapAddress(Op* op, ulong address) => op->AddressWidth switch { 2 => (ushort)address, 4 => (uint)address, _ => address };

    /// <summary>Offset of the memory operand within its segment, truncated to the address size. RIP addresses the instruction.</summary>
    internal ulong EffectiveAddress(Op* op)
    {
        ulong address = (ulong)op->Disp;
        if (op->Base == Op.RipBase)
            address += State->Rip + op->Length;
        else if (op->Base != Op.NoRegister)
            address += State->Gpr[op->Base];
        if (op->Index != Op.NoRegister)
            address += State->Gpr[op->Index] << op->Scale;
        return op->AddressWidth switch { 2 => (ushort)address, 4 => (uint)address, _ => address };
    }
}
