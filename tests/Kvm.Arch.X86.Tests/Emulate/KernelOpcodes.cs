namespace Kvm.Arch.X86.Tests.Emulate;

/// <summary>Which encodings Linux 6.1's emulate.c carries out or faults on, and which it gives up on: its opcode tables, and the switches for what has no function of its own.</summary>
internal static class KernelOpcodes
{
    /// <summary>False: EMULATION_FAILED. <paramref name="prefix"/> is 0, 66H, F2H or F3H.</summary>
    public static bool Emulated(int mode, byte prefix, ReadOnlySpan<byte> opcode, byte modrm) => opcode.Length switch
    {
        1 => One(mode, opcode[0], modrm),
        2 => Two(mode, prefix, opcode[1], modrm),
        _ => opcode[2] is 0xf0 or 0xf1 && prefix == 0 && modrm < 0xc0,
    };

    private static bool One(int mode, byte opcode, byte modrm)
    {
        int reg = modrm >> 3 & 7;
        bool register = modrm >= 0xc0;
        return opcode switch
        {
            0x27 or 0x37 or 0x3f or 0x62 or 0x9b or 0xd8 or 0xda or 0xdc or 0xde or 0xdf or 0xf1 => false,
            0x63 => mode == 64,
            0x8d => !register,
            0x8f => reg == 0,
            0xc4 or 0xc5 => mode != 64 && !register,
            0xd9 or 0xdd => !register && reg == 7,
            0xdb => modrm == 0xe3,
            0xfe => reg < 2,
            _ => true,
        };
    }

    private static bool Two(int mode, byte prefix, byte opcode, byte modrm)
    {
        int reg = modrm >> 3 & 7;
        bool register = modrm >= 0xc0;
        switch (opcode)
        {
            case 0x00: return reg < 4;
            case 0x01: return Group7(modrm);
            case 0x05 or 0x06 or 0x08 or 0x09 or 0x0d or 0x18 or 0x1f: return true;
            case 0x10 or 0x11 or 0x28 or 0x29: return prefix is 0 or 0x66;
            case 0x2b: return prefix is 0 or 0x66 && !register;
            case >= 0x20 and <= 0x23: return true;
            case >= 0x30 and <= 0x35: return true;
            case >= 0x40 and <= 0x4f: return true;
            case 0x6f or 0x7f: return prefix != 0xf2;
            case >= 0x80 and <= 0x9f: return true;
            case >= 0xa0 and <= 0xa5: return true;
            case >= 0xa8 and <= 0xad or 0xaf: return true;
            case 0xae: return !register && ((reg < 2 && mode != 64) || (reg == 7 && prefix is 0 or 0x66));
            case >= 0xb0 and <= 0xb7: return true;
            case 0xba: return reg >= 4;
            case >= 0xbb and <= 0xc1: return true;
            case 0xc3: return !register;
            case 0xc7: return register ? reg == 7 && prefix == 0xf3 : reg == 1;
            case >= 0xc8 and <= 0xcf: return true;
            // The kernel moves a register operand too: D-X86-5.
            case 0xe7: return prefix == 0x66 && !register;
            default: return false;
        }
    }

    // MONITOR, MWAIT and RDTSCP are in the table without anything that would carry them out; so are VMRUN and its neighbours, but without EFER.SVME they are #UD.
    private static bool Group7(byte modrm)
    {
        int reg = modrm >> 3 & 7;
        if (modrm < 0xc0)
            return reg != 5;
        return reg switch
        {
            0 => modrm == 0xc1,
            2 => modrm == 0xd1,
            3 or 4 or 6 => true,
            _ => false,
        };
    }
}
