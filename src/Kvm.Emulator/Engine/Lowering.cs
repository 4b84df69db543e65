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
        WithBranch = [.. Fusions.Values, .. Fusions.Values.Where(InVector.ContainsKey).Select(k => InVector[k])];
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
        {
            op->Kind = CoreKind(op, mode);
            return;
        }
        if (IsVector(kind) && (mode & (uint)CodeMode.Sse) == 0)
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
            if (flagsDead && Flagless.TryGetValue(op->Kind, out OpKind flagless))
                op->Kind = flagless;
            flagsDead = Effects[(int)op->Kind] switch
            {
                FlagEffect.Overwrites => true,
                FlagEffect.Ignores => flagsDead,
                _ => false,
            };
        }
        FinishVector(ops, count);
    }

    /// <summary>What a case does with the arithmetic flags.</summary>
    private enum FlagEffect : byte { Needs, Ignores, Overwrites }

    private static void Slots(Op* op, uint mode)
    {
        op->RegSlot = RegisterSlot(op->Reg);
        op->RmSlot = RegisterSlot(op->Rm);
        op->BaseSlot = op->Base == Op.RipBase ? BlockRipSlot : RegisterSlot(op->Base);
        op->IndexSlot = RegisterSlot(op->Index);
        op->BlockDisp = op->Base == Op.RipBase ? op->Disp + op->BlockOffset + op->Length : op->Disp;
        op->SegmentSlot = SegmentTerm(op->Segment, mode);
        if (op->SegmentSlot == UnmatchableSlot && Rules[(int)op->Code].Form != Form.Lea)
        {
            // Nothing the guest computes may lead back to a matching address. LEA has none: what it computes is its result.
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
