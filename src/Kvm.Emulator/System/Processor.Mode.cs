namespace Kvm.Emulator;

public sealed unsafe partial class Processor
{
    private bool instructionBreakpoints;

    /// <summary>The monitor trap flag (or another per-instruction exit condition) is on: one instruction at a time. Set by the VMX part; UpdateMode applies it.</summary>
    internal bool MonitorTrap { get; set; }

    private bool SingleStepRequired => (State->Rflags & Flags.TF) != 0 || instructionBreakpoints || MonitorTrap || Mmu.Watching || RecordsBranches;

    /// <summary>Recomputes State->Mode and State->Tlb after any change of CR0, CR4, XCR0, EFER, segment registers, RFLAGS (VM, AC, TF, RF) or CPL.</summary>
    internal void UpdateMode()
    {
        CpuState* s = State;
        HostContextPending = false;
        ref SegmentCache cs = ref Segment(Seg.CS);
        bool longMode = (s->Efer & Efer.LMA) != 0;
        CodeMode mode = longMode && cs.L ? CodeMode.Code64 : cs.Db ? CodeMode.Code32 : CodeMode.Code16;
        bool flat = mode == CodeMode.Code64 || IsFlat();
        if (Segment(Seg.SS).Db)
            mode |= CodeMode.Stack32;
        if (s->Cpl == 3)
            mode |= CodeMode.User;
        if ((s->Cr0 & Cr0.PE) != 0)
            mode |= CodeMode.Protected;
        if ((s->Rflags & Flags.VM) != 0)
            mode |= CodeMode.Virtual8086;
        if (longMode)
            mode |= CodeMode.Long;
        if (flat)
            mode |= CodeMode.Flat;
        if (NonRoot is not null)
            mode |= CodeMode.NonRoot;
        if (s->Cpl == 3 && (s->Rflags & Flags.AC) != 0 && (s->Cr0 & Cr0.AM) != 0)
            mode |= CodeMode.AlignmentCheck;
        if ((s->Cr0 & (Cr0.EM | Cr0.TS)) == 0 && (s->Cr4 & Cr4.OSFXSR) != 0)
            mode |= CodeMode.Sse;
        if ((s->Cr0 & (Cr0.PE | Cr0.TS)) == Cr0.PE && (s->Rflags & Flags.VM) == 0 && (s->Cr4 & Cr4.OSXSAVE) != 0 && (s->Xcr0 & 6) == 6)
            mode |= CodeMode.Avx;
        s->Mode = (uint)mode;
        Mmu.OnContextChange();
        if (SingleStepRequired)
            Request(ExitRequests.SingleStep);
        else if ((s->Rflags & Flags.RF) != 0 || VirtualInterruptDue)
            Reevaluate();
    }

    /// <summary>Whether CS DS ES SS need neither base addition nor checks: base 0, limit 4 GiB - 1, readable or writable, expand-up.</summary>
    private bool IsFlat()
    {
        if ((State->Cr0 & Cr0.PE) == 0 || (State->Rflags & Flags.VM) != 0)
            return false;
        return FlatData(ref Segment(Seg.DS)) && FlatData(ref Segment(Seg.ES)) && FlatData(ref Segment(Seg.SS)) && FlatCode(ref Segment(Seg.CS));
    }

    private static bool FlatData(ref SegmentCache s)
        => s.Base == 0 && s.Limit == uint.MaxValue && !s.Unusable && (s.AccessRights & (SegmentRights.Code | SegmentRights.ExpandDown | SegmentRights.Writable)) == SegmentRights.Writable;

    private static bool FlatCode(ref SegmentCache s)
        => s.Base == 0 && s.Limit == uint.MaxValue && (s.AccessRights & (SegmentRights.Code | SegmentRights.Readable)) == (SegmentRights.Code | SegmentRights.Readable);

    /// <summary>Event conditions (IF, TPR, shadow, windows) changed: look again at the next boundary.</summary>
    internal void Reevaluate() => Request(ExitRequests.Reevaluate);
}
