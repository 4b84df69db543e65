using Iced.Intel;

namespace Kvm.Emulator.Native;

/// <summary>Writes host instructions, byte by byte: the few that surround the guest's own. Registers are numbers of <see cref="HostRegister"/>.</summary>
internal sealed unsafe class Emitter(long toExecutable) : CodeWriter
{
    /// <summary>Where the next byte is written.</summary>
    internal byte* At;

    /// <summary>Where that byte will be executed.</summary>
    internal byte* Executable => At + toExecutable;

    public override void WriteByte(byte value) => *At++ = value;

    internal void Byte(int value) => *At++ = (byte)value;

    internal void Int(int value)
    {
        *(int*)At = value;
        At += 4;
    }

    internal void Quad(ulong value)
    {
        *(ulong*)At = value;
        At += 8;
    }

    internal void Bytes(byte* from, int count)
    {
        for (int i = 0; i < count; i++)
            *At++ = from[i];
    }

    private void Opcode(bool wide, int opcode, int reg, int index, int @base)
    {
        int rex = 0x40 | (wide ? 8 : 0) | (reg & 8) >> 1 | (index & 8) >> 2 | (@base & 8) >> 3;
        if (rex != 0x40)
            Byte(rex);
        if (opcode > 0xff)
            Byte(opcode >> 8);
        Byte(opcode);
    }

    /// <summary>Register and register: <paramref name="rm"/> is the r/m operand.</summary>
    internal void Registers(bool wide, int opcode, int reg, int rm)
    {
        Opcode(wide, opcode, reg, 0, rm);
        Byte(0xc0 | (reg & 7) << 3 | rm & 7);
    }

    /// <summary>Register and something in the state block or the data near the code; <paramref name="immediate"/> bytes follow.</summary>
    internal void Near(bool wide, int opcode, int reg, void* target, int immediate = 0)
    {
        Opcode(wide, opcode, reg, 0, 0);
        Byte((reg & 7) << 3 | 5);
        Int(checked((int)((byte*)target - (Executable + 4 + immediate))));
    }

    /// <summary>Register and [base + index × 2^scale + displacement]; a base or an index may be missing.</summary>
    internal void Memory(bool wide, int opcode, int reg, int @base, int index, int scale, int displacement)
    {
        Opcode(wide, opcode, reg, Math.Max(index, 0), Math.Max(@base, 0));
        int field = (reg & 7) << 3;
        if (@base < 0)
        {
            Byte(field | 4);
            Byte(index < 0 ? 0x25 : scale << 6 | (index & 7) << 3 | 5);
            Int(displacement);
            return;
        }
        int mod = displacement == 0 && (@base & 7) != 5 ? 0 : (sbyte)displacement == displacement ? 0x40 : 0x80;
        if (index < 0 && (@base & 7) != 4)
            Byte(mod | field | @base & 7);
        else
        {
            Byte(mod | field | 4);
            Byte(scale << 6 | (index < 0 ? 4 : index & 7) << 3 | @base & 7);
        }
        if (mod == 0x40)
            Byte(displacement);
        else if (mod == 0x80)
            Int(displacement);
    }

    internal void Move(int to, int from) => Registers(true, 0x89, from, to);

    internal void Lea(bool wide, int to, int @base, int index, int scale, int displacement) => Memory(wide, 0x8d, to, @base, index, scale, displacement);

    /// <summary>Shortest form; keeps the flags.</summary>
    internal void MoveImmediate(int to, ulong value)
    {
        if (value <= uint.MaxValue)
        {
            Opcode(false, 0xb8 | to & 7, 0, 0, to);
            Int((int)value);
        }
        else if ((ulong)(int)value == value)
        {
            Registers(true, 0xc7, 0, to);
            Int((int)value);
        }
        else
        {
            Opcode(true, 0xb8 | to & 7, 0, 0, to);
            Quad(value);
        }
    }

    /// <summary>Group 1 with a 32-bit immediate: 0 ADD, 1 OR, 4 AND, 5 SUB, 7 CMP.</summary>
    internal void Arithmetic(bool wide, int operation, int register, int value)
    {
        bool small = (sbyte)value == value;
        Registers(wide, small ? 0x83 : 0x81, operation, register);
        if (small)
            Byte(value);
        else
            Int(value);
    }

    internal void ShiftRight(int register, int count)
    {
        Registers(true, 0xc1, 5, register);
        Byte(count);
    }

    /// <summary>A branch whose target is set later; returns where its displacement is.</summary>
    internal byte* Jump()
    {
        Byte(0xe9);
        Int(0);
        return At - 4;
    }

    /// <inheritdoc cref="Jump"/>
    internal byte* JumpIf(int condition)
    {
        Byte(0x0f);
        Byte(0x80 | condition);
        Int(0);
        return At - 4;
    }

    /// <summary>Lets a branch go to what is written next.</summary>
    internal void Here(byte* displacement) => *(int*)displacement = (int)(At - (displacement + 4));

    internal void JumpTo(byte* executable)
    {
        Byte(0xe9);
        Int(checked((int)(executable - (Executable + 4))));
    }

    internal const int Overflow = 0, Carry = 2, NotCarry = 3, Equal = 4, NotEqual = 5, BelowOrEqual = 6, Sign = 8;
}
