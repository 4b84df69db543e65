using Iced.Intel;

namespace Kvm.Emulator.Tests.Differential;

/// <summary>What the manuals leave undefined, and processors do differently.</summary>
internal static unsafe class Undefined
{
    /// <summary>Arithmetic flags in their RFLAGS positions.</summary>
    internal static ulong Flags(in Instruction instruction)
    {
        ulong bits = Bits(instruction.RflagsUndefined);
        switch (instruction.Mnemonic)
        {
            // Iced speaks of the form; what is undefined depends on the count.
            case Mnemonic.Shl or Mnemonic.Sal or Mnemonic.Shr or Mnemonic.Sar:
                return bits | 0x810 | (instruction.Op0Register.GetSize() is 1 or 2 || instruction.MemorySize.GetSize() is 1 or 2 ? 1UL : 0);
            case Mnemonic.Rol or Mnemonic.Ror or Mnemonic.Rcl or Mnemonic.Rcr:
                return bits | 0x800;
            case Mnemonic.Shld or Mnemonic.Shrd:
                return bits | 0x811;
            default:
                return bits;
        }
    }

    /// <summary>16-bit double shifts by more than 16.</summary>
    internal static bool Everything(in Instruction instruction) => instruction.Mnemonic is Mnemonic.Shld or Mnemonic.Shrd
        && (instruction.Op1Register.GetSize() == 2) && (instruction.Op2Kind != OpKind.Immediate8 || (instruction.Immediate8 & 31) > 16);

    private static ulong Bits(RflagsBits bits)
    {
        ulong flags = 0;
        flags |= (bits & RflagsBits.CF) != 0 ? 1UL : 0;
        flags |= (bits & RflagsBits.PF) != 0 ? 4UL : 0;
        flags |= (bits & RflagsBits.AF) != 0 ? 0x10UL : 0;
        flags |= (bits & RflagsBits.ZF) != 0 ? 0x40UL : 0;
        flags |= (bits & RflagsBits.SF) != 0 ? 0x80UL : 0;
        flags |= (bits & RflagsBits.OF) != 0 ? 0x800UL : 0;
        return flags;
    }

    /// <summary>The destination has no defined value.</summary>
    internal static bool Register(in Instruction instruction, int register, NativeProcessor native) => instruction.Mnemonic switch
    {
        // a zero source
        Mnemonic.Bsf or Mnemonic.Bsr => (native.State->Rflags & 0x40) != 0,
        _ => false,
    };
}
