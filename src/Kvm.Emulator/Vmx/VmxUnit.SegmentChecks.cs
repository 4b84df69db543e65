namespace Kvm.Emulator.Vmx;

/// <summary>SDM vol 3C, "Checks on Guest Segment Registers" and "Checks on Guest Descriptor-Table Registers".</summary>
internal sealed unsafe partial class VmxUnit
{
    private const uint ReservedRights = 0xfffe_0f00;

    private bool GuestSegmentsPass(Vmcs* v)
    {
        bool virtual8086 = (v->GuestRflags & Flags.VM) != 0;
        if (!SelectorsPass(v, virtual8086) || !BasesPass(v, virtual8086)) return false;
        if (virtual8086)
        {
            if (!Virtual8086Passes(v)) return false;
        }
        else if (!CodeSegmentPasses(v) || !StackSegmentPasses(v) || !DataSegmentsPass(v))
        {
            return false;
        }
        return SystemSegmentsPass(v) && DescriptorTablesPass(v);
    }

    private static ref SegmentCache Segment(Vmcs* v, Seg segment) => ref v->GuestSegments[(int)segment];

    private bool SelectorsPass(Vmcs* v, bool virtual8086)
    {
        ref SegmentCache ldtr = ref Segment(v, Seg.LDTR);
        if (Failed((Segment(v, Seg.TR).Selector & 4) != 0)) return false;
        if (Failed(!ldtr.Unusable && (ldtr.Selector & 4) != 0)) return false;
        if (Failed(!virtual8086 && !Has(SecondaryControls.UnrestrictedGuest) && (Segment(v, Seg.SS).Selector & 3) != (Segment(v, Seg.CS).Selector & 3))) return false;
        return true;
    }

    private bool BasesPass(Vmcs* v, bool virtual8086)
    {
        if (virtual8086)
        {
            for (Seg s = Seg.ES; s <= Seg.GS; s++)
                if (Failed(Segment(v, s).Base != (ulong)Segment(v, s).Selector << 4)) return false;
        }
        if (Failed(!IsCanonical(Segment(v, Seg.TR).Base))) return false;
        if (Failed(!IsCanonical(Segment(v, Seg.FS).Base))) return false;
        if (Failed(!IsCanonical(Segment(v, Seg.GS).Base))) return false;
        if (Failed(!Segment(v, Seg.LDTR).Unusable && !IsCanonical(Segment(v, Seg.LDTR).Base))) return false;
        if (Failed((Segment(v, Seg.CS).Base >> 32) != 0)) return false;
        if (Failed(!Segment(v, Seg.SS).Unusable && (Segment(v, Seg.SS).Base >> 32) != 0)) return false;
        if (Failed(!Segment(v, Seg.DS).Unusable && (Segment(v, Seg.DS).Base >> 32) != 0)) return false;
        if (Failed(!Segment(v, Seg.ES).Unusable && (Segment(v, Seg.ES).Base >> 32) != 0)) return false;
        return true;
    }

    private bool Virtual8086Passes(Vmcs* v)
    {
        for (Seg s = Seg.ES; s <= Seg.GS; s++)
        {
            if (Failed(Segment(v, s).Limit != 0xffff)) return false;
            if (Failed(Segment(v, s).AccessRights != 0xf3)) return false;
        }
        return true;
    }

    private bool CodeSegmentPasses(Vmcs* v)
    {
        ref SegmentCache cs = ref Segment(v, Seg.CS);
        int stackDpl = Segment(v, Seg.SS).Dpl;
        bool unrestricted = Has(SecondaryControls.UnrestrictedGuest);
        if (Failed(!(cs.Type is 9 or 11 or 13 or 15 || (unrestricted && cs.Type == 3)))) return false;
        if (Failed(!cs.S)) return false;
        if (Failed(cs.Type == 3 && cs.Dpl != 0)) return false;
        if (Failed(cs.Type is 9 or 11 && cs.Dpl != stackDpl)) return false;
        if (Failed(cs.Type is 13 or 15 && cs.Dpl > stackDpl)) return false;
        if (Failed(!cs.Present)) return false;
        if (Failed((cs.AccessRights & ReservedRights) != 0)) return false;
        if (Failed(Has(VmEntryControls.Ia32eModeGuest) && cs.L && cs.Db)) return false;
        if (Failed(!GranularityMatches(cs))) return false;
        return true;
    }

    private bool StackSegmentPasses(Vmcs* v)
    {
        ref SegmentCache ss = ref Segment(v, Seg.SS);
        if (Failed(!ss.Unusable && ss.Type is not (3 or 7))) return false;
        if (Failed(!Has(SecondaryControls.UnrestrictedGuest) && ss.Dpl != (ss.Selector & 3))) return false;
        if (Failed((Segment(v, Seg.CS).Type == 3 || (v->GuestCr0 & Cr0.PE) == 0) && ss.Dpl != 0)) return false;
        return ss.Unusable || UsableSegmentPasses(ss);
    }

    private bool DataSegmentsPass(Vmcs* v)
    {
        for (Seg s = Seg.ES; s <= Seg.GS; s++)
        {
            ref SegmentCache segment = ref Segment(v, s);
            if (s is Seg.CS or Seg.SS || segment.Unusable)
                continue;
            if (Failed((segment.Type & 1) == 0)) return false;
            if (Failed((segment.Type & 8) != 0 && (segment.Type & 2) == 0)) return false;
            if (Failed(!Has(SecondaryControls.UnrestrictedGuest) && segment.Type <= 11 && segment.Dpl < (segment.Selector & 3))) return false;
            if (!UsableSegmentPasses(segment)) return false;
        }
        return true;
    }

    /// <summary>What is common to usable SS, DS, ES, FS, GS.</summary>
    private bool UsableSegmentPasses(in SegmentCache segment)
    {
        if (Failed(!segment.S)) return false;
        if (Failed(!segment.Present)) return false;
        if (Failed((segment.AccessRights & ReservedRights) != 0)) return false;
        if (Failed(!GranularityMatches(segment))) return false;
        return true;
    }

    /// <summary>A limit with a zero among bits 11:0 needs G = 0; one with a one among bits 31:20 needs G = 1.</summary>
    private static bool GranularityMatches(in SegmentCache segment) =>
        ((segment.Limit & 0xfff) == 0xfff || !segment.G) && ((segment.Limit >> 20) == 0 || segment.G);

    private bool SystemSegmentsPass(Vmcs* v)
    {
        ref SegmentCache tr = ref Segment(v, Seg.TR);
        ref SegmentCache ldtr = ref Segment(v, Seg.LDTR);
        if (Failed(!(tr.Type == 11 || (tr.Type == 3 && !Has(VmEntryControls.Ia32eModeGuest))))) return false;
        if (Failed(tr.S)) return false;
        if (Failed(!tr.Present)) return false;
        if (Failed((tr.AccessRights & ReservedRights) != 0)) return false;
        if (Failed(!GranularityMatches(tr))) return false;
        if (Failed(tr.Unusable)) return false;
        if (ldtr.Unusable)
            return true;
        if (Failed(ldtr.Type != 2)) return false;
        if (Failed(ldtr.S)) return false;
        if (Failed(!ldtr.Present)) return false;
        if (Failed((ldtr.AccessRights & ReservedRights) != 0)) return false;
        if (Failed(!GranularityMatches(ldtr))) return false;
        return true;
    }

    private bool DescriptorTablesPass(Vmcs* v)
    {
        if (Failed(!IsCanonical(v->GuestGdtr.Base))) return false;
        if (Failed(!IsCanonical(v->GuestIdtr.Base))) return false;
        if (Failed((v->GuestGdtr.Limit >> 16) != 0)) return false;
        if (Failed((v->GuestIdtr.Limit >> 16) != 0)) return false;
        return true;
    }
}
