using Iced.Intel;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Native;

/// <summary>Where the guest's arithmetic flags are while the code of a block is executed.</summary>
internal enum FlagsPlace : byte
{
    /// <summary>In State->NativeFlags; EFLAGS may be anything. Flags that nobody needs may be anything too.</summary>
    Saved,
    /// <summary>In EFLAGS.</summary>
    Host,
    Both,
}

internal sealed unsafe partial class Translator
{
    private const byte AllFlags = (byte)(RflagsBits.OF | RflagsBits.SF | RflagsBits.ZF | RflagsBits.AF | RflagsBits.CF | RflagsBits.PF);

    private FlagsPlace place;
    /// <summary>Per instruction: flags that it reads, that it changes for certain, and that it changes or leaves undefined.</summary>
    private readonly byte[] reads = new byte[Block.MaximumOps], kills = new byte[Block.MaximumOps], changes = new byte[Block.MaximumOps];
    /// <summary>Flags whose value counts before and after an instruction.</summary>
    private readonly byte[] liveBefore = new byte[Block.MaximumOps], liveAfter = new byte[Block.MaximumOps];

    private void FlagsOf(in Instruction instruction, InstructionShape? shape, out byte read, out byte kill, out byte change)
    {
        read = (byte)((byte)instruction.RflagsRead & AllFlags);
        change = (byte)((byte)instruction.RflagsModified & AllFlags);
        kill = change;
        if (shape is not { Shift: true })
            return;
        int last = instruction.OpCount - 1;
        if (instruction.GetOpKind(last) == Iced.Intel.OpKind.Register)
        {
            // By CL: with a count of zero the flags stay.
            change = AllFlags;
            kill = 0;
        }
        else if (instruction.Mnemonic is Mnemonic.Rcl or Mnemonic.Rcr)
            kill = 0;
        else
        {
            bool wide = instruction.Op0Kind == Iced.Intel.OpKind.Register ? instruction.Op0Register.IsGPR64() : instruction.MemorySize.GetSize() == 8;
            if ((instruction.GetImmediate(last) & (wide ? 63UL : 31UL)) == 0)
                change = kill = 0;
            else if (instruction.Mnemonic is Mnemonic.Rol or Mnemonic.Ror)
                change = kill = (byte)(RflagsBits.CF | RflagsBits.OF);
            else
                change = kill = AllFlags;
        }
    }

    // DIVERGES: D-ENGINE-10
    /// <summary>Backward over the block. In strict mode whatever can leave the code may look at all flags.</summary>
    private void Liveness()
    {
        int count = block->OpCount;
        byte live = AllFlags;
        if (translated == count && !EndsElsewhere(count - 1))
            live = LiveInto(rip + block->ByteLength);
        for (int i = translated - 1; i >= 0; i--)
        {
            InstructionShape? shape = treatments[i] == Treatment.Vector ? null : InstructionShape.Of(instructions[i], infoFactory);
            FlagsOf(instructions[i], shape, out reads[i], out kills[i], out changes[i]);
            Op* op = Block.Ops(block) + i;
            if (treatments[i] is Treatment.Branch or Treatment.Jump)
                live = (byte)((treatments[i] == Treatment.Branch ? live : 0) | LiveInto(TargetOf(op)));
            else if (treatments[i] is Treatment.Return or Treatment.JumpIndirect or Treatment.CallIndirect or Treatment.Call)
                live = AllFlags;
            liveAfter[i] = live;
            live = (byte)(live & ~kills[i] | reads[i]);
            if (strict && CanLeave(i, op))
                live = AllFlags;
            liveBefore[i] = live;
        }
    }

    private bool EndsElsewhere(int i) => treatments[i] >= Treatment.Jump && treatments[i] <= Treatment.CallIndirect;

    private bool CanLeave(int i, Op* op) => op->HasMemory && treatments[i] is not (Treatment.Lea or Treatment.Nothing)
        || treatments[i] is Treatment.Push or Treatment.Pop or Treatment.Leave or Treatment.Divide or Treatment.DivideSigned or >= Treatment.Branch and <= Treatment.CallIndirect;

    /// <summary>Flags that the code at <paramref name="target"/> may read before it writes them. Only decoded code of the same page is looked at: changes to it are noticed.</summary>
    private byte LiveInto(ulong target)
    {
        if (strict || (target ^ rip) >> 12 != 0)
            return AllFlags;
        Block* b = target == rip ? block : engine.BlockAt(block, target, rip);
        if (b == null)
            return AllFlags;
        if (b->FlagsIn == Block.FlagsUnknown)
            b->FlagsIn = FlagsInto(b);
        return b->FlagsIn;
    }

    private byte FlagsInto(Block* b)
    {
        byte* bytes = Block.Copy(b);
        int codeSize = (int)(b->Mode & (uint)CodeMode.SizeMask);
        byte undecided = AllFlags, live = 0;
        for (int i = 0; i < b->OpCount && i < 12 && undecided != 0; i++)
        {
            Op* op = Block.Ops(b) + i;
            if (op->Code == Code.INVALID)
                break;
            engine.Decoder.Decode(bytes + op->BlockOffset, op->Length, codeSize, out Instruction instruction);
            if (instruction.Code != op->Code || OpcodeTable.Instance[op->Code].Handler == null)
                break;
            InstructionShape shape = InstructionShape.Of(instruction, infoFactory);
            if (shape.Treatment is Treatment.None or >= Treatment.Branch)
                break;
            FlagsOf(instruction, shape, out byte read, out byte kill, out _);
            live |= (byte)(undecided & read);
            undecided &= (byte)~(kill | read);
        }
        return (byte)(live | undecided);
    }

    /// <summary>Before EFLAGS are lost or the code is left: flags that count are in State->NativeFlags afterwards. EFLAGS stay.</summary>
    private void SaveFlags(byte live)
    {
        if (place != FlagsPlace.Host || live == 0)
            return;
        e.Move(HostRegister.R14, HostRegister.Rax);
        e.Byte(0x9f); // LAHF
        e.Byte(0x0f); // SETO AL
        e.Byte(0x90);
        e.Byte(0xc0);
        e.Byte(0x66); // MOV word
        e.Near(false, 0x89, HostRegister.Rax, &s->NativeFlags);
        e.Move(HostRegister.Rax, HostRegister.R14);
        place = FlagsPlace.Both;
    }

    /// <summary>EFLAGS are about to be lost before instruction <paramref name="i"/>.</summary>
    private void LoseFlags(int i)
    {
        SaveFlags(liveBefore[i]);
        place = FlagsPlace.Saved;
    }

    /// <summary>EFLAGS as instruction <paramref name="i"/> must find them: those it reads, and those it leaves alone that somebody reads later.</summary>
    private void NeedFlags(int i)
    {
        if (place != FlagsPlace.Saved || (reads[i] == 0 && (changes[i] == 0 || (liveAfter[i] & ~kills[i]) == 0)))
            return;
        e.Near(true, 0x89, HostRegister.Rax, &s->NativeScratch);
        e.Near(false, 0x0fb7, HostRegister.Rax, &s->NativeFlags);
        e.Byte(0x04); // ADD AL, 7F
        e.Byte(0x7f);
        e.Byte(0x9e); // SAHF
        e.Near(true, 0x8b, HostRegister.Rax, &s->NativeScratch);
        place = FlagsPlace.Both;
    }

    /// <summary>Instruction <paramref name="i"/> has been written.</summary>
    private void FlagsChanged(int i)
    {
        if (changes[i] != 0)
            place = FlagsPlace.Host;
    }
}
