namespace Kvm.Emulator.Vmx;

/// <summary>SDM vol 3C, "Checks on the Host-State Area". Any failure: VMfailValid(8).</summary>
internal sealed unsafe partial class VmxUnit
{

    /// <summary>"Host Control Registers, MSRs, and SSP".</summary>
    private bool HostRegistersPass(Vmcs* v)
    {
        bool hostLong = Has(VmExitControls.HostAddressSpaceSize);
        if (Failed(!IsCr0Allowed(v->HostCr0))) return false;
        if (Failed(!IsCr4Allowed(v->HostCr4))) return false;
        if (Failed(v->HostCr3 >= 1UL << cpu.PhysicalAddressBits)) return false;
        if (Failed(!IsCanonical(v->HostIa32SysenterEsp))) return false;
        if (Failed(!IsCanonical(v->HostIa32SysenterEip))) return false;
        if (Failed(Has(VmExitControls.LoadPerfGlobalCtrl) && (v->HostIa32PerfGlobalCtrl & reservedPerfGlobalBits) != 0)) return false;
        if (Failed(Has(VmExitControls.LoadPat) && !IsValidPat(v->HostIa32Pat))) return false;
        if (Has(VmExitControls.LoadEfer))
        {
            if (Failed((v->HostIa32Efer & reservedEferBits) != 0)) return false;
            if (Failed(((v->HostIa32Efer & Efer.LMA) != 0) != hostLong)) return false;
            if (Failed(((v->HostIa32Efer & Efer.LME) != 0) != hostLong)) return false;
        }
        return true;
    }

    /// <summary>"Host Segment and Descriptor-Table Registers".</summary>
    private bool HostSegmentsPass(Vmcs* v)
    {
        if (Failed((v->HostEsSelector & 7) != 0)) return false;
        if (Failed((v->HostCsSelector & 7) != 0)) return false;
        if (Failed((v->HostSsSelector & 7) != 0)) return false;
        if (Failed((v->HostDsSelector & 7) != 0)) return false;
        if (Failed((v->HostFsSelector & 7) != 0)) return false;
        if (Failed((v->HostGsSelector & 7) != 0)) return false;
        if (Failed((v->HostTrSelector & 7) != 0)) return false;
        if (Failed(v->HostCsSelector == 0)) return false;
        if (Failed(v->HostTrSelector == 0)) return false;
        if (Failed(!Has(VmExitControls.HostAddressSpaceSize) && v->HostSsSelector == 0)) return false;
        if (Failed(!IsCanonical(v->HostFsBase))) return false;
        if (Failed(!IsCanonical(v->HostGsBase))) return false;
        if (Failed(!IsCanonical(v->HostGdtrBase))) return false;
        if (Failed(!IsCanonical(v->HostIdtrBase))) return false;
        if (Failed(!IsCanonical(v->HostTrBase))) return false;
        return true;
    }

    /// <summary>"Checks Related to Address-Space Size".</summary>
    private bool HostAddressSpacePasses(Vmcs* v)
    {
        bool longMode = (cpu.State->Efer & Efer.LMA) != 0;
        bool hostLong = Has(VmExitControls.HostAddressSpaceSize);
        if (Failed(longMode != hostLong)) return false;
        if (Failed(!longMode && Has(VmEntryControls.Ia32eModeGuest))) return false;
        if (hostLong)
        {
            if (Failed((v->HostCr4 & Cr4.PAE) == 0)) return false;
            if (Failed(!IsCanonical(v->HostRip))) return false;
        }
        else
        {
            if (Failed(Has(VmEntryControls.Ia32eModeGuest))) return false;
            if (Failed((v->HostCr4 & Cr4.PCIDE) != 0)) return false;
            if (Failed((v->HostRip >> 32) != 0)) return false;
        }
        return true;
    }
}
