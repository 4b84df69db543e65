namespace Kvm.Emulator.Vmx;

/// <summary>
/// SDM vol 3C, "Checks on the Guest State Area": control registers, RIP and RFLAGS, non-register state. Any failure: VM exit 33 with bit 31 of the reason.
/// </summary>
internal sealed unsafe partial class VmxUnit
{
    /// <summary>Exit qualification of an entry failure due to invalid guest state.</summary>
    private const ulong QualificationDefault = 0, QualificationPdpte = 2, QualificationNmi = 3, QualificationLinkPointer = 4;

    private ulong failureQualification;

    private bool GuestStatePasses(Vmcs* v, VmcsDirty dirty)
    {
        failureQualification = QualificationDefault;
        if ((dirty & VmcsDirty.Registers) != 0 && !GuestRegistersPass(v)) return false;
        if ((dirty & VmcsDirty.Segments) != 0 && !GuestSegmentsPass(v)) return false;
        return GuestRipPasses(v) && GuestActivityPasses(v) && GuestInterruptibilityPasses(v) && GuestPendingDebugPasses(v) && LinkPointerPasses(v);
    }

    /// <summary>"Checks on Guest Control Registers, Debug Registers, and MSRs".</summary>
    private bool GuestRegistersPass(Vmcs* v)
    {
        ulong relaxed = Has(SecondaryControls.UnrestrictedGuest) ? Cr0.PE | Cr0.PG : 0;
        bool longGuest = Has(VmEntryControls.Ia32eModeGuest);
        if (Failed(!IsCr0Allowed(v->GuestCr0 | (Capabilities.Cr0Fixed0 & relaxed)))) return false;
        if (Failed((v->GuestCr0 & Cr0.PG) != 0 && (v->GuestCr0 & Cr0.PE) == 0)) return false;
        if (Failed(!IsCr4Allowed(v->GuestCr4))) return false;
        if (Failed(Has(VmEntryControls.LoadDebugControls) && (v->GuestIa32Debugctl & reservedDebugCtlBits) != 0)) return false;
        if (longGuest)
        {
            if (Failed((v->GuestCr0 & Cr0.PG) == 0)) return false;
            if (Failed((v->GuestCr4 & Cr4.PAE) == 0)) return false;
        }
        if (Failed(!longGuest && (v->GuestCr4 & Cr4.PCIDE) != 0)) return false;
        if (Failed(v->GuestCr3 >= 1UL << cpu.PhysicalAddressBits)) return false;
        if (Failed(Has(VmEntryControls.LoadDebugControls) && (v->GuestDr7 >> 32) != 0)) return false;
        if (Failed(!IsCanonical(v->GuestSysenterEsp))) return false;
        if (Failed(!IsCanonical(v->GuestSysenterEip))) return false;
        return GuestMsrsPass(v, longGuest);
    }

    private bool GuestMsrsPass(Vmcs* v, bool longGuest)
    {
        if (Failed(Has(VmEntryControls.LoadPerfGlobalCtrl) && (v->GuestIa32PerfGlobalCtrl & reservedPerfGlobalBits) != 0)) return false;
        if (Failed(Has(VmEntryControls.LoadPat) && !IsValidPat(v->GuestIa32Pat))) return false;
        if (Has(VmEntryControls.LoadEfer))
        {
            if (Failed((v->GuestIa32Efer & reservedEferBits) != 0)) return false;
            if (Failed(((v->GuestIa32Efer & Efer.LMA) != 0) != longGuest)) return false;
            if (Failed((v->GuestCr0 & Cr0.PG) != 0 && ((v->GuestIa32Efer & Efer.LMA) != 0) != ((v->GuestIa32Efer & Efer.LME) != 0))) return false;
        }
        if (Has(VmEntryControls.LoadBndcfgs))
        {
            if (Failed((v->GuestBndcfgs & 0xffc) != 0)) return false;
            if (Failed(!IsCanonical(v->GuestBndcfgs & ~0xfffUL))) return false;
        }
        return true;
    }

    /// <summary>"Checks on Guest RIP, RFLAGS, and SSP".</summary>
    private bool GuestRipPasses(Vmcs* v)
    {
        const ulong reserved = ~(Flags.All | Flags.Fixed1);
        bool longGuest = Has(VmEntryControls.Ia32eModeGuest);
        bool code64 = longGuest && v->GuestSegments[(int)Seg.CS].L;
        if (Failed(!code64 && (v->GuestRip >> 32) != 0)) return false;
        if (Failed(code64 && !IsCanonical(v->GuestRip))) return false;
        if (Failed((v->GuestRflags & reserved) != 0)) return false;
        if (Failed((v->GuestRflags & Flags.Fixed1) == 0)) return false;
        if (Failed((v->GuestRflags & Flags.VM) != 0 && (longGuest || (v->GuestCr0 & Cr0.PE) == 0))) return false;
        if (Failed(Injects(v, InterruptionInfo.ExternalInterrupt) && (v->GuestRflags & Flags.IF) == 0)) return false;
        return true;
    }

    /// <summary>The VM entry injects an event of this type.</summary>
    private static bool Injects(Vmcs* v, int type) =>
        (v->VmEntryIntrInfoField & InterruptionInfo.Valid) != 0 && InterruptionInfo.Type(v->VmEntryIntrInfoField) == type;

    /// <summary>"Checks on Guest Non-Register State": activity state.</summary>
    private bool GuestActivityPasses(Vmcs* v)
    {
        uint activity = v->GuestActivityState;
        if (activity == (uint)ActivityState.Active)
            return true;
        if (Failed(activity > (uint)ActivityState.WaitForSipi)) return false;
        if (Failed((Capabilities.Misc >> (5 + (int)activity) & 1) == 0)) return false;
        if (Failed(activity == (uint)ActivityState.Hlt && v->GuestSegments[(int)Seg.SS].Dpl != 0)) return false;
        if (Failed((v->GuestInterruptibilityInfo & (Interruptibility.Sti | Interruptibility.MovSs)) != 0)) return false;
        if (Failed(!ActivityAllowsInjection((ActivityState)activity, v->VmEntryIntrInfoField))) return false;
        return true;
    }

    private static bool ActivityAllowsInjection(ActivityState activity, uint info)
    {
        if ((info & InterruptionInfo.Valid) == 0)
            return true;
        int vector = InterruptionInfo.Vector(info);
        return (activity, InterruptionInfo.Type(info)) switch
        {
            (ActivityState.Hlt, InterruptionInfo.ExternalInterrupt or InterruptionInfo.Nmi) => true,
            (ActivityState.Hlt, InterruptionInfo.HardwareException) => vector is Fault.DB or Fault.MC,
            (ActivityState.Hlt, InterruptionInfo.OtherEvent) => vector == 0,
            (ActivityState.Shutdown, InterruptionInfo.Nmi) => true,
            (ActivityState.Shutdown, InterruptionInfo.HardwareException) => vector == Fault.MC,
            _ => false,
        };
    }

    /// <summary>"Checks on Guest Non-Register State": interruptibility state.</summary>
    private bool GuestInterruptibilityPasses(Vmcs* v)
    {
        uint state = v->GuestInterruptibilityInfo;
        if (state == 0)
            return true;
        bool sti = (state & Interruptibility.Sti) != 0;
        bool movSs = (state & Interruptibility.MovSs) != 0;
        bool injectsNmi = Injects(v, InterruptionInfo.Nmi);
        if (Failed((state & Interruptibility.Reserved) != 0)) return false;
        if (Failed(sti && movSs)) return false;
        if (Failed(sti && (v->GuestRflags & Flags.IF) == 0)) return false;
        if (Failed((sti || movSs) && Injects(v, InterruptionInfo.ExternalInterrupt))) return false;
        if (Failed(movSs && injectsNmi)) return false;
        if (Failed((state & Interruptibility.Smi) != 0)) return false;
        if (Failed(sti && injectsNmi))
        {
            failureQualification = QualificationNmi;
            return false;
        }
        if (Failed(Has(PinBasedControls.VirtualNmis) && injectsNmi && (state & Interruptibility.Nmi) != 0)) return false;
        if (Failed((state & Interruptibility.Enclave) != 0)) return false;
        return true;
    }

    /// <summary>"Checks on Guest Non-Register State": pending debug exceptions.</summary>
    private bool GuestPendingDebugPasses(Vmcs* v)
    {
        const ulong defined = 0xf | PendingDebug.EnabledBreakpoint | PendingDebug.SingleStep | PendingDebug.Rtm;
        ulong pending = v->GuestPendingDbgExceptions;
        if (Failed((pending & ~defined) != 0)) return false;
        bool blocked = (v->GuestInterruptibilityInfo & (Interruptibility.Sti | Interruptibility.MovSs)) != 0 || v->GuestActivityState == (uint)ActivityState.Hlt;
        if (blocked)
        {
            bool steps = (v->GuestRflags & Flags.TF) != 0 && (v->GuestIa32Debugctl & DebugCtlBtf) == 0;
            if (Failed(steps && (pending & PendingDebug.SingleStep) == 0)) return false;
            if (Failed(!steps && (pending & PendingDebug.SingleStep) != 0)) return false;
        }
        if ((pending & PendingDebug.Rtm) != 0)
        {
            if (Failed((pending & ~PendingDebug.Rtm) != PendingDebug.EnabledBreakpoint)) return false;
            if (Failed(!cpu.Model.Feature7Ebx(11))) return false;
            if (Failed((v->GuestInterruptibilityInfo & Interruptibility.MovSs) != 0)) return false;
        }
        return true;
    }

    private const ulong DebugCtlBtf = 2;

    /// <summary>"Checks on Guest Non-Register State": VMCS link pointer.</summary>
    private bool LinkPointerPasses(Vmcs* v)
    {
        ulong link = v->VmcsLinkPointer;
        if (link == NoVmcs)
            return true;
        failureQualification = QualificationLinkPointer;
        if (Failed(!IsPage(link))) return false;
        byte* region = Physical(link);
        uint identifier = active.TryGetValue(link, out nint block) ? ((ActiveVmcs*)block)->Data.RevisionId : region == null ? uint.MaxValue : *(uint*)region;
        if (Failed((identifier & 0x7fff_ffff) != Capabilities.RevisionId)) return false;
        if (Failed((identifier >> 31 != 0) != Has(SecondaryControls.VmcsShadowing))) return false;
        if (Failed(link == CurrentPointer)) return false;
        failureQualification = QualificationDefault;
        return true;
    }

    /// <summary>"Checks on Guest Page-Directory-Pointer-Table Entries": PAE paging only. Also says what to load into the PDPTE registers.</summary>
    private bool PdptesPass(Vmcs* v, ulong* pdptes)
    {
        bool pae = (v->GuestCr0 & Cr0.PG) != 0 && (v->GuestCr4 & Cr4.PAE) != 0 && !Has(VmEntryControls.Ia32eModeGuest);
        if (!pae)
            return true;
        failureQualification = QualificationPdpte;
        if (Has(SecondaryControls.EnableEpt))
        {
            pdptes[0] = v->GuestPdptr0;
            pdptes[1] = v->GuestPdptr1;
            pdptes[2] = v->GuestPdptr2;
            pdptes[3] = v->GuestPdptr3;
        }
        else
        {
            byte* table = Physical(v->GuestCr3 & 0xffff_f000);
            for (int i = 0; i < 4; i++)
                pdptes[i] = table == null ? ulong.MaxValue : ((ulong*)(table + (v->GuestCr3 & 0xfe0)))[i];
        }
        for (int i = 0; i < 4; i++)
            if (Failed(!IsValidPdpte(pdptes[i]))) return false;
        failureQualification = QualificationDefault;
        return true;
    }

    /// <summary>A PDPTE is not present, or has no reserved bit set (2:1, 8:5, above the physical-address width).</summary>
    private bool IsValidPdpte(ulong pdpte) =>
        (pdpte & 1) == 0 || ((pdpte & 0x1e6) == 0 && pdpte >> cpu.PhysicalAddressBits == 0);
}
