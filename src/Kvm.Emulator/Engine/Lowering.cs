namespace Kvm.Emulator.Engine;

/// <summary>Turns a decoded instruction into a case of the engine's switch where there is one, and fills in the operand slots.</summary>
internal static unsafe partial class Lowering
{
    private static readonly byte ZeroSlot, BlockRipSlot, UnmatchableSlot;
    private static readonly ushort SegmentBase;

    static Lowering()
    {
        CpuState state = default;
        byte* start = (byte*)&state;
        ZeroSlot = checked((byte)((byte*)&state.Zero - start));
        BlockRipSlot = checked((byte)((byte*)&state.BlockRip - start));
        UnmatchableSlot = checked((byte)((byte*)&state.Unmatchable - start));
        SegmentBase = checked((ushort)((byte*)&state.Segs - start));
    }

    /// <summary>Fills in the slots and selects the case. True when the block ends after this instruction.</summary>
    internal static bool Lower(Op* op, uint mode)
    {
        Slots(op, mode);
        bool alone = (mode & Block.SingleInstruction) != 0;
        if (!alone && (op->Prefixes & OpPrefixes.Lock) == 0)
            Select(op, mode);
        OpcodeFlags flags = OpcodeTable.Instance[op->Code].Flags;
        return (flags & OpcodeFlags.EndBlock) != 0 || op->Code == Iced.Intel.Code.INVALID;
    }

    /// <summary>For instructions that run on their own.</summary>
    internal static void LowerCold(Op* op, uint mode) => Slots(op, mode);

    private static void Select(Op* op, uint mode)
    {
        ref readonly Rule rule = ref Rules[(int)op->Code];
        OpKind kind = op->HasMemory ? rule.Memory : rule.Register;
        if (kind == OpKind.Cold)
            return;
        // Stack accesses of the switch check no alignment.
        if ((mode & (uint)CodeMode.AlignmentCheck) != 0 && kind is OpKind.PushR64 or OpKind.PushI64 or OpKind.PopR64 or OpKind.Leave64 or OpKind.Call64
            or OpKind.Ret64 or OpKind.CallR64 or OpKind.CallM64)
            return;
        switch (rule.Form)
        {
            case Form.RmReg when !op->HasMemory:
                (op->RegSlot, op->RmSlot) = (op->RmSlot, op->RegSlot);
                break;
            case Form.RmImm when !op->HasMemory:
                op->RegSlot = op->RmSlot;
                break;
            case Form.RmImm32:
                op->Imm = (uint)op->Imm;
                op->RegSlot = op->RmSlot;
                break;
            case Form.Shift:
                op->RegSlot = op->RmSlot;
                op->Imm &= (ulong)(op->Width == 8 ? 63 : 31);
                if (op->Imm == 0)
                    return;
                break;
            case Form.Return:
                op->Imm = (ushort)op->Imm;
                break;
            case Form.Branch:
                op->BlockDisp = op->BlockOffset + op->Length + (long)op->Imm;
                op->AddressMask = op->Width switch { 2 => ushort.MaxValue, 4 => uint.MaxValue, _ => ulong.MaxValue };
                op->Handler = null;
                break;
            default:
                break;
        }
        op->Kind = kind;
    }

    /// <summary>Looks over a finished block: fuses compares with branches and drops flags that nobody can see.</summary>
    internal static void Finish(Op* ops, int count)
    {
        bool flagsDead = false;
        for (int i = count - 1; i >= 0; i--)
        {
            Op* op = &ops[i];
            if (i + 1 < count && Fusions.TryGetValue((op->Kind, ops[i + 1].Kind), out OpKind fused))
                op->Kind = fused;
            if (flagsDead)
                op->Kind = WithoutFlags(op->Kind);
            flagsDead = Effect(op->Kind) switch
            {
                FlagEffect.Overwrites => true,
                FlagEffect.Ignores => flagsDead,
                _ => false,
            };
        }
    }

    private enum FlagEffect { Needs, Ignores, Overwrites }

    /// <summary>What a case that can neither fault nor leave the block does with the arithmetic flags; every other case needs them exact.</summary>
    private static FlagEffect Effect(OpKind kind) => kind switch
    {
        OpKind.AddRR32 or OpKind.AddRR64 or OpKind.AddRI32 or OpKind.AddRI64 or OpKind.SubRR32 or OpKind.SubRR64 or OpKind.SubRI32 or OpKind.SubRI64
            or OpKind.AndRR32 or OpKind.AndRR64 or OpKind.AndRI32 or OpKind.AndRI64 or OpKind.OrRR32 or OpKind.OrRR64 or OpKind.OrRI32 or OpKind.OrRI64
            or OpKind.XorRR32 or OpKind.XorRR64 or OpKind.XorRI32 or OpKind.XorRI64 or OpKind.CmpRR32 or OpKind.CmpRR64 or OpKind.CmpRI32 or OpKind.CmpRI64
            or OpKind.TestRR32 or OpKind.TestRR64 or OpKind.TestRI32 or OpKind.TestRI64 or OpKind.ShlRI32 or OpKind.ShlRI64 or OpKind.ShrRI32 or OpKind.ShrRI64
            or OpKind.SarRI32 or OpKind.SarRI64 or OpKind.NegR32 or OpKind.NegR64 or OpKind.ImulRR64 or OpKind.ImulRRI64 => FlagEffect.Overwrites,
        OpKind.MovRR8 or OpKind.MovRR32 or OpKind.MovRR64 or OpKind.MovRI or OpKind.Movzx8RR or OpKind.Movzx16RR or OpKind.Movsx32To64RR or OpKind.Lea32 or OpKind.Lea64
            or OpKind.NotR32 or OpKind.NotR64 or OpKind.Nop or OpKind.RolRI32 or OpKind.RolRI64 or OpKind.RorRI32 or OpKind.RorRI64
            or OpKind.RolRI32NoFlags or OpKind.RolRI64NoFlags or OpKind.RorRI32NoFlags or OpKind.RorRI64NoFlags => FlagEffect.Ignores,
        _ => FlagEffect.Needs,
    };

    private static OpKind WithoutFlags(OpKind kind) => kind switch
    {
        OpKind.RolRI32 => OpKind.RolRI32NoFlags,
        OpKind.RolRI64 => OpKind.RolRI64NoFlags,
        OpKind.RorRI32 => OpKind.RorRI32NoFlags,
        OpKind.RorRI64 => OpKind.RorRI64NoFlags,
        _ => kind,
    };

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
