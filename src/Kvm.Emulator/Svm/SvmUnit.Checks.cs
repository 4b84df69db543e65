using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Svm;

/// <summary>The consistency checks of VMRUN (APM vol 2, "Canonicalization and Consistency Checks"): any failure is #VMEXIT(VMEXIT_INVALID).</summary>
internal sealed unsafe partial class SvmUnit
{
    private const ulong IopmBytes = 0x3000, MsrpmBytes = 0x2000;

    /// <summary>Text of the rule that the last VMRUN broke, null when it broke none.</summary>
    internal string? FailedRule { get; private set; }

    private ulong cr4Reserved, eferReserved;

    /// <summary>The bits of CR4 and EFER that the processor model does not have.</summary>
    private void ComputeReserved(CpuModel m)
    {
        ulong cr4 = Cr4.PCE, efer = Efer.LMSLE;
        void Add(ref ulong mask, bool present, ulong bits) => mask |= present ? bits : 0;
        Add(ref cr4, m.Feature1Edx(1), Cr4.VME | Cr4.PVI);
        Add(ref cr4, m.Feature1Edx(2), Cr4.DE);
        Add(ref cr4, m.Feature1Edx(3), Cr4.PSE);
        Add(ref cr4, m.Feature1Edx(4), Cr4.TSD);
        Add(ref cr4, m.Feature1Edx(6), Cr4.PAE);
        Add(ref cr4, m.Feature1Edx(7), Cr4.MCE);
        Add(ref cr4, m.Feature1Edx(13), Cr4.PGE);
        Add(ref cr4, m.Feature1Edx(24), Cr4.OSFXSR);
        Add(ref cr4, m.Feature1Edx(25), Cr4.OSXMMEXCPT);
        Add(ref cr4, m.Feature1Ecx(17), Cr4.PCIDE);
        Add(ref cr4, m.Feature1Ecx(26), Cr4.OSXSAVE);
        Add(ref cr4, m.Feature7Ebx(0), Cr4.FSGSBASE);
        Add(ref cr4, m.Feature7Ebx(7), Cr4.SMEP);
        Add(ref cr4, m.Feature7Ebx(20), Cr4.SMAP);
        Add(ref cr4, m.Feature7Ecx(2), Cr4.UMIP);
        Add(ref cr4, m.Feature7Ecx(3), Cr4.PKE);
        Add(ref cr4, m.Feature7Ecx(7), Cr4.CET);
        Add(ref cr4, m.Feature7Ecx(16), Cr4.LA57);
        cr4Reserved = ~cr4;
        Add(ref efer, m.FeatureExtEdx(11) || m.HasLongMode, Efer.SCE);
        Add(ref efer, m.FeatureExtEdx(20), Efer.NXE);
        Add(ref efer, m.FeatureExtEdx(25), Efer.FFXSR);
        Add(ref efer, m.FeatureExtEcx(17), Efer.TCE);
        // LME and LMA have a rule of their own.
        eferReserved = ~(efer | Efer.LME | Efer.LMA | Efer.SVME);
    }

    private bool Failed(bool condition, [CallerArgumentExpression(nameof(condition))] string rule = "")
    {
        if (!condition)
            return false;
        FailedRule = rule;
        cpu.Observer?.EntryCheckFailed(cpu, rule);
        return true;
    }

    private bool CheckState(VmcbSaveArea* save)
    {
        ulong efer = save->Efer, cr0 = save->Cr0, cr3 = save->Cr3, cr4 = save->Cr4;
        bool paging = (cr0 & Cr0.PG) != 0, longMode = (efer & Efer.LME) != 0 && paging;
        ushort cs = save->Cs.Attributes;
        const ushort csL = 1 << 9, csDb = 1 << 10;
        if (StatePasses(save, longMode))
            return true;
        if (Failed((efer & Efer.SVME) == 0)) return false;
        if (Failed((cr0 & Cr0.CD) == 0 && (cr0 & Cr0.NW) != 0)) return false;
        if (Failed(cr0 >> 32 != 0)) return false;
        if (Failed(longMode && (cr3 & Cr3Reserved) != 0)) return false;
        if (Failed((cr4 & cr4Reserved) != 0)) return false;
        if (Failed(save->Dr6 >> 32 != 0)) return false;
        if (Failed(save->Dr7 >> 32 != 0)) return false;
        if (Failed((efer & eferReserved) != 0)) return false;
        if (Failed((efer & (Efer.LMA | Efer.LME)) != 0 && !cpu.Model.HasLongMode)) return false;
        if (Failed(longMode && (cr4 & Cr4.PAE) == 0)) return false;
        if (Failed(longMode && (cr0 & Cr0.PE) == 0)) return false;
        if (Failed(longMode && (cr4 & Cr4.PAE) != 0 && (cs & csL) != 0 && (cs & csDb) != 0)) return false;
        return true;
    }

    /// <summary>All rules at once, and stricter than they are: a state that does not pass has to be looked at rule by rule.</summary>
    private bool StatePasses(VmcbSaveArea* save, bool longMode)
    {
        ulong efer = save->Efer, cr0 = save->Cr0, cr4 = save->Cr4;
        ulong bad = (~efer & Efer.SVME) | (cr0 & Cr0.NW) | (cr0 >> 32) | (cr4 & cr4Reserved) | ((save->Dr6 | save->Dr7) >> 32) | (efer & eferReserved);
        if ((efer & (Efer.LMA | Efer.LME)) != 0)
        {
            bad |= cpu.Model.HasLongMode ? 0 : 1UL;
            if (longMode)
                bad |= (save->Cr3 & Cr3Reserved) | (~cr4 & Cr4.PAE) | (~cr0 & Cr0.PE) | (save->Cs.Attributes & (uint)save->Cs.Attributes >> 1 & 1 << 9);
        }
        return bad == 0;
    }

    /// <summary>Bits of CR3 that must be zero in long mode: those above the physical address.</summary>
    private ulong Cr3Reserved => ~(PhysicalLimit - 1);

    /// <summary>With <paramref name="loaded"/> the controls are those that passed before, but for the event and the PAT.</summary>
    private bool CheckControls(VmcbControlArea* control, ulong gPat, bool loaded)
    {
        if (loaded && (control->EventInj & SvmEvent.Valid) == 0 && (!guest.Nested || !IllegalPat(gPat)))
            return true;
        if (Failed((control->Intercepts4 & SvmIntercepts4.Vmrun) == 0)) return false;
        if (Failed((control->IopmBasePa & ~0xfffUL) > PhysicalLimit - IopmBytes)) return false;
        if (Failed((control->MsrpmBasePa & ~0xfffUL) > PhysicalLimit - MsrpmBytes)) return false;
        if (Failed((control->EventInj & SvmEvent.Valid) != 0 && IllegalEvent(control->EventInj))) return false;
        if (Failed(control->Asid == 0)) return false;
        if ((control->NestedControl & SvmNestedControl.NpEnable) != 0 && Has(SvmFeatures.NestedPaging))
        {
            if (Failed((control->NestedCr3 & ~(PhysicalLimit - 1)) != 0)) return false;
            if (Failed(IllegalPat(gPat))) return false;
        }
        return true;
    }

    /// <summary>Types 1 and 5–7 are reserved; an exception must have the vector of one (NMI's 2 is not).</summary>
    private static bool IllegalEvent(uint eventInj) => ((eventInj & SvmEvent.TypeMask) >> SvmEvent.TypeShift) switch
    {
        0 or 2 or 4 => false,
        3 => (eventInj & SvmEvent.VectorMask) is 2 or > 31,
        _ => true,
    };

    /// <summary>Memory types 2, 3 and above 7 don't exist.</summary>
    private static bool IllegalPat(ulong pat)
    {
        // Reserved upper bits, then 01x in any byte.
        return (pat & 0xf8f8_f8f8_f8f8_f8f8) != 0 || (pat >> 1 & ~(pat >> 2) & 0x0101_0101_0101_0101) != 0;
    }
}
