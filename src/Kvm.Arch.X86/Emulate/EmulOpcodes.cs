using static Kvm.Arch.X86.EmulFlags;

namespace Kvm.Arch.X86;

/// <summary>Where the kernel's opcode tables see an encoding otherwise than the processor's manual: unknown to them, #UD, or the same with any prefix.</summary>
/// <remarks>emulate.c:opcode_table, twobyte_table, opcode_map_0f_38 and their groups. Map 1 is that of one-byte opcodes, 2 that behind 0FH, 3 that behind 0FH 38H.</remarks>
internal static class EmulOpcodes
{
    /// <summary>Whether a question of this class depends on the ModRM byte, which the opcode has then.</summary>
    internal static bool NeedsModRm(int map, byte opcode) => map switch
    {
        1 => opcode is 0x8c or 0x8e or 0xc6 or 0xc7 or 0xff,
        2 => opcode is 0x01 or 0x20 or 0x22 or 0x2b or 0xae or 0xb2 or 0xb4 or 0xb5 or 0xc7,
        _ => false,
    };

    /// <summary>Opcodes whose meaning a 66H, F2H or F3H prefix selects (GP); all others are what they are with any of them.</summary>
    internal static bool PrefixSelects(int map, byte opcode, byte modrm) => map switch
    {
        2 => opcode switch
        {
            0x10 or 0x11 or 0x28 or 0x29 or 0x2b or 0x6f or 0x7f or 0xe7 => true,
            0xae => modrm < 0xc0 && Reg(modrm) == 7,
            0xc7 => modrm >= 0xc0 && Reg(modrm) == 7,
            _ => false,
        },
        3 => opcode is 0xf0 or 0xf1,
        _ => false,
    };

    /// <summary>Instructions that do not exist with an operand-size prefix, for which the kernel does not mind it.</summary>
    internal static bool IgnoresOperandSize(int map, byte opcode, byte modrm) =>
        map == 2 && (opcode == 0xc3 || (opcode == 0xae && Reg(modrm) < 2) || (opcode == 0x01 && modrm >= 0xc0 && Reg(modrm) is not (4 or 6)));

    /// <summary>None: as the manual has it.</summary>
    internal static EmulFlags Verdict(bool mode64, int map, byte opcode, byte modrm, int registerHigh, bool prefixed) => map switch
    {
        1 => One(mode64, opcode, modrm),
        2 => Two(opcode, modrm, registerHigh),
        _ => prefixed && opcode is 0xf0 or 0xf1 ? Unknown : None,
    };

    private static int Reg(byte modrm) => (modrm >> 3) & 7;

    private static EmulFlags One(bool mode64, byte opcode, byte modrm)
    {
        bool undefined = opcode switch
        {
            0x06 or 0x07 or 0x0e or 0x16 or 0x17 or 0x1e or 0x1f or 0x2f or 0x60 or 0x61 or 0x82 or 0x9a or 0xce or 0xd4 or 0xd5 or 0xd6 or 0xea => mode64,
            0x8c => Reg(modrm) > 5,
            0x8e => Reg(modrm) is 1 or > 5,
            0xc6 or 0xc7 => Reg(modrm) != 0,
            0xff => Reg(modrm) == 7,
            _ => false,
        };
        return undefined ? Known | Undefined : None;
    }

    private static EmulFlags Two(byte opcode, byte modrm, int registerHigh)
    {
        switch (opcode)
        {
            case >= 0x19 and <= 0x1e:
                return Unknown;
            case 0x20 or 0x22 when (Reg(modrm) | registerHigh) is not (0 or 2 or 3 or 4 or 8):
                return Known | Priv | UndefinedPriv;
            case 0xb2 or 0xb4 or 0xb5 when modrm >= 0xc0:
                return Known | Undefined;
            default:
                return None;
        }
    }
}
