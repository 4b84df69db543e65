namespace Kvm.Emulator.Engine;

/// <summary>Turns a decoded instruction into a case of the engine's switch where there is one, and fills in the operand slots.</summary>
internal static unsafe partial class Lowering
{
    private static readonly byte ZeroSlot = Offset(nameof(CpuState.Zero));
    private static readonly byte BlockRipSlot = Offset(nameof(CpuState.BlockRip));
    private static readonly byte UnmatchableSlot = Offset(nameof(CpuState.Unmatchable));
    private static readonly ushort SegmentBase = SegmentOffset();

    private static byte Offset(string field)
    {
        CpuState* s = null;
        return field switch
        {
            nameof(CpuState.Zero) => (byte)(nuint)(&s->Zero),
            nameof(CpuState.BlockRip) => (byte)(nuint)(&s->BlockRip),
            _ => (byte)(nuint)(&s->Unmatchable),
        };
    }

    private static ushort SegmentOffset()
    {
        CpuState* s = null;
        return (ushort)(nuint)(&s->Segs);
    }

    /// <summary>Fills in the slots and selects the case. True when the block ends after this instruction.</summary>
    internal static bool Lower(Op* op, uint mode)
    {
        Slots(op, mode);
        OpcodeFlags flags = OpcodeTable.Instance[op->Code].Flags;
        return (flags & OpcodeFlags.EndBlock) != 0 || op->Code == Iced.Intel.Code.INVALID;
    }

    /// <summary>For instructions that run on their own.</summary>
    internal static void LowerCold(Op* op, uint mode)
    {
        Slots(op, mode);
        op->Kind = OpKind.Cold;
    }

    private static void Slots(Op* op, uint mode)
    {
        op->RegSlot = RegisterSlot(op->Reg);
        op->RmSlot = RegisterSlot(op->Rm);
        op->BaseSlot = op->Base == Op.RipBase ? BlockRipSlot : RegisterSlot(op->Base);
        op->IndexSlot = RegisterSlot(op->Index);
        op->BlockDisp = op->Base == Op.RipBase ? op->Disp + op->BlockOffset + op->Length : op->Disp;
        op->SegmentSlot = SegmentTerm(op->Segment, mode);
        if (op->SegmentSlot == UnmatchableSlot)
        {
            // Nothing the guest computes may lead back to a matching address.
            op->BaseSlot = op->IndexSlot = ZeroSlot;
            op->BlockDisp = 0;
        }
    }

    private static byte RegisterSlot(byte register) => register < 16 ? (byte)(register * 8) : register < 20 ? (byte)((register - 16) * 8 + 1) : ZeroSlot;

    /// <summary>
    /// What the fast path adds to the offset: nothing for flat segments, the base of FS and GS in 64-bit code, and otherwise an address that never matches,
    /// so that limits, types and alignment are checked by the Mmu.
    /// </summary>
    private static ushort SegmentTerm(Seg segment, uint mode)
    {
        if ((mode & (uint)CodeMode.AlignmentCheck) != 0)
            return UnmatchableSlot;
        if ((mode & (uint)CodeMode.SizeMask) == (uint)CodeMode.Code64)
            return segment >= Seg.FS ? (ushort)(SegmentBase + (int)segment * sizeof(SegmentCache)) : ZeroSlot;
        return (mode & (uint)CodeMode.Flat) != 0 && segment is Seg.ES or Seg.SS or Seg.DS ? ZeroSlot : UnmatchableSlot;
    }
}
