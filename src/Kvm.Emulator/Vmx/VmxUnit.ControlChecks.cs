namespace Kvm.Emulator.Vmx;

/// <summary>SDM vol 3C, "Checks on VMX Controls". Any failure: VMfailValid(7).</summary>
internal sealed unsafe partial class VmxUnit
{
    private ulong PinCapability => Capabilities.HasTrueControls ? Capabilities.TruePinBased : Capabilities.PinBased;
    private ulong PrimaryCapability => Capabilities.HasTrueControls ? Capabilities.TrueProcBased : Capabilities.ProcBased;
    private ulong ExitCapability => Capabilities.HasTrueControls ? Capabilities.TrueExit : Capabilities.Exit;
    private ulong EntryCapability => Capabilities.HasTrueControls ? Capabilities.TrueEntry : Capabilities.Entry;

    private bool ControlsPass(Vmcs* v) =>
        ExecutionControlsPass(v) && ApicControlsPass(v) && PagingControlsPass(v) && FunctionControlsPass(v) && ExitControlsPass(v) && EntryControlsPass(v);

    /// <summary>"VM-Execution Control Fields": reserved bits, CR3 targets, bitmaps.</summary>
    private bool ExecutionControlsPass(Vmcs* v)
    {
        if (Failed(!RespectsCapability(v->PinBasedVmExecControl, PinCapability))) return false;
        if (Failed(!RespectsCapability(v->CpuBasedVmExecControl, PrimaryCapability))) return false;
        if (Failed(Has(PrimaryControls.ActivateSecondaryControls) && !RespectsCapability(v->SecondaryVmExecControl, Capabilities.ProcBased2))) return false;
        if (Failed(Has(PrimaryControls.ActivateTertiaryControls) && (v->TertiaryVmExecControl & ~Capabilities.ProcBased3) != 0)) return false;
        if (Failed(v->Cr3TargetCount > Capabilities.Cr3TargetCount)) return false;
        if (Has(PrimaryControls.UseIoBitmaps))
        {
            if (Failed(!IsPage(v->IoBitmapA))) return false;
            if (Failed(!IsPage(v->IoBitmapB))) return false;
        }
        if (Failed(Has(PrimaryControls.UseMsrBitmaps) && !IsPage(v->MsrBitmap))) return false;
        return true;
    }

    /// <summary>"VM-Execution Control Fields": TPR shadow, APIC virtualization, NMIs, posted interrupts.</summary>
    private bool ApicControlsPass(Vmcs* v)
    {
        const SecondaryControls needTprShadow =
            SecondaryControls.VirtualizeX2ApicMode | SecondaryControls.ApicRegisterVirtualization | SecondaryControls.VirtualInterruptDelivery;
        if (Has(PrimaryControls.UseTprShadow))
        {
            if (Failed(!IsPage(v->VirtualApicPageAddr))) return false;
            if (Failed(!Has(SecondaryControls.VirtualInterruptDelivery) && (v->TprThreshold >> 4) != 0)) return false;
        }
        else if (Failed(Has(needTprShadow)))
        {
            return false;
        }
        if (Failed(!Has(PinBasedControls.NmiExiting) && Has(PinBasedControls.VirtualNmis))) return false;
        if (Failed(!Has(PinBasedControls.VirtualNmis) && Has(PrimaryControls.NmiWindowExiting))) return false;
        if (Failed(Has(SecondaryControls.VirtualizeApicAccesses) && !IsPage(v->ApicAccessAddr))) return false;
        if (Failed(Has(SecondaryControls.VirtualizeX2ApicMode) && Has(SecondaryControls.VirtualizeApicAccesses))) return false;
        if (Failed(Has(SecondaryControls.VirtualInterruptDelivery) && !Has(PinBasedControls.ExternalInterruptExiting))) return false;
        if (Has(PinBasedControls.PostedInterrupts))
        {
            if (Failed(!Has(SecondaryControls.VirtualInterruptDelivery))) return false;
            if (Failed(!Has(VmExitControls.AcknowledgeInterruptOnExit))) return false;
            if (Failed((v->PostedIntrNv & 0xff00) != 0)) return false;
            if (Failed((v->PostedIntrDescAddr & 0x3f) != 0)) return false;
            if (Failed(!IsWithinWidth(v->PostedIntrDescAddr))) return false;
        }
        return true;
    }

    /// <summary>The one control check whose outcome depends on memory: TPR threshold against VTPR. Repeated at every VM entry.</summary>
    private bool TprThresholdPasses(Vmcs* v)
    {
        if (!Has(PrimaryControls.UseTprShadow))
            return true;
        if (Failed(!Has(SecondaryControls.VirtualInterruptDelivery) && (v->TprThreshold >> 4) != 0)) return false;
        if (Has(SecondaryControls.VirtualInterruptDelivery) || Has(SecondaryControls.VirtualizeApicAccesses))
            return true;
        byte* page = Physical(v->VirtualApicPageAddr);
        int virtualTpr = page == null ? 0xff : page[0x80];
        return !Failed((v->TprThreshold & 0xf) > (virtualTpr >> 4));
    }

    /// <summary>"VM-Execution Control Fields": VPID, EPT, page-modification logging.</summary>
    private bool PagingControlsPass(Vmcs* v)
    {
        const SecondaryControls needEpt =
            SecondaryControls.UnrestrictedGuest | SecondaryControls.ModeBasedExecuteEpt | SecondaryControls.SubPageWritePermission | SecondaryControls.PtUsesGuestPhysical;
        if (Failed(Has(SecondaryControls.EnableVpid) && v->VirtualProcessorId == 0)) return false;
        if (Failed(Has(SecondaryControls.EnableEpt) && !IsValidEptp(v->EptPointer))) return false;
        if (Failed(Has(needEpt) && !Has(SecondaryControls.EnableEpt))) return false;
        if (Has(SecondaryControls.EnablePml))
        {
            if (Failed(!Has(SecondaryControls.EnableEpt))) return false;
            if (Failed(!IsPage(v->PmlAddress))) return false;
        }
        return true;
    }

    /// <summary>"VM-Execution Control Fields": VM functions, VMCS shadowing, virtualization exceptions, TSC scaling, IPI virtualization.</summary>
    private bool FunctionControlsPass(Vmcs* v)
    {
        if (Has(SecondaryControls.EnableVmFunctions))
        {
            if (Failed((v->VmFunctionControl & ~Capabilities.VmFunc) != 0)) return false;
            if ((v->VmFunctionControl & 1) != 0)
            {
                if (Failed(!Has(SecondaryControls.EnableEpt))) return false;
                if (Failed(!IsPage(v->EptpListAddress))) return false;
            }
        }
        if (Has(SecondaryControls.VmcsShadowing))
        {
            if (Failed(!IsPage(v->VmreadBitmap))) return false;
            if (Failed(!IsPage(v->VmwriteBitmap))) return false;
        }
        if (Failed(Has(SecondaryControls.EptViolationVe) && !IsPage(v->VeInfoAddress))) return false;
        if (Failed(Has(SecondaryControls.UseTscScaling) && v->TscMultiplier == 0)) return false;
        if ((Tertiary & TertiaryIpiVirtualization) != 0)
        {
            if (Failed(!Has(PrimaryControls.UseTprShadow))) return false;
            if (Failed((v->PidPointerTable & 7) != 0)) return false;
            if (Failed(!IsWithinWidth(v->PidPointerTable + (v->LastPidPointerIndex * 8UL)))) return false;
        }
        return true;
    }

    internal const ulong TertiaryIpiVirtualization = 1UL << 4;

    /// <summary>"VM-Exit Control Fields".</summary>
    private bool ExitControlsPass(Vmcs* v)
    {
        if (Failed(!RespectsCapability(v->VmExitControls, ExitCapability))) return false;
        if (Failed(!Has(PinBasedControls.PreemptionTimer) && Has(VmExitControls.SavePreemptionTimer))) return false;
        if (Failed(v->VmExitMsrStoreCount != 0 && !IsValidMsrArea(v->VmExitMsrStoreAddr, v->VmExitMsrStoreCount))) return false;
        if (Failed(v->VmExitMsrLoadCount != 0 && !IsValidMsrArea(v->VmExitMsrLoadAddr, v->VmExitMsrLoadCount))) return false;
        return true;
    }

    /// <summary>"VM-Entry Control Fields" except event injection, which is checked at every entry by <see cref="InjectionPasses"/>.</summary>
    private bool EntryControlsPass(Vmcs* v)
    {
        if (Failed(!RespectsCapability(v->VmEntryControls, EntryCapability))) return false;
        if (Failed(v->VmEntryMsrLoadCount != 0 && !IsValidMsrArea(v->VmEntryMsrLoadAddr, v->VmEntryMsrLoadCount))) return false;
        if (Failed(Has(VmEntryControls.EntryToSmm))) return false;
        if (Failed(Has(VmEntryControls.DeactivateDualMonitor))) return false;
        return true;
    }

    /// <summary>"VM-Entry Control Fields": the fields for event injection.</summary>
    private bool InjectionPasses(Vmcs* v)
    {
        uint info = v->VmEntryIntrInfoField;
        if ((info & InterruptionInfo.Valid) == 0)
            return true;
        int type = InterruptionInfo.Type(info);
        int vector = InterruptionInfo.Vector(info);
        bool errorCode = (info & InterruptionInfo.DeliverErrorCode) != 0;
        bool protectedMode = !Has(SecondaryControls.UnrestrictedGuest) || (v->GuestCr0 & 1) != 0;
        bool wantsErrorCode = protectedMode && type == InterruptionInfo.HardwareException && InterruptionInfo.VectorHasErrorCode(vector);

        if (Failed(type == InterruptionInfo.ReservedType)) return false;
        if (Failed(type == InterruptionInfo.OtherEvent && !Capabilities.PrimaryAllowed(PrimaryControls.MonitorTrapFlag))) return false;
        if (Failed(type == InterruptionInfo.Nmi && vector != 2)) return false;
        if (Failed(type == InterruptionInfo.HardwareException && vector > 31)) return false;
        if (Failed(type == InterruptionInfo.OtherEvent && vector != 0)) return false;
        if (Failed(errorCode != wantsErrorCode)) return false;
        if (Failed((info & InterruptionInfo.ReservedBits) != 0)) return false;
        if (Failed(errorCode && (v->VmEntryExceptionErrorCode >> 16) != 0)) return false;
        if (InterruptionInfo.IsSoftware(type))
        {
            if (Failed(v->VmEntryInstructionLen > 15)) return false;
            if (Failed(v->VmEntryInstructionLen == 0 && !Capabilities.ZeroLengthInjection)) return false;
        }
        return true;
    }
}
