using System.Runtime.InteropServices;

namespace Kvm.Emulator.Vmx;

/// <summary>What a write to a VMCS component invalidates: checks and derived state that the next VM entry has to redo (ARCHITECTURE D3).</summary>
[Flags]
internal enum VmcsDirty : byte
{
    /// <summary>Nothing is remembered about it: checked at every VM entry, or needs no check.</summary>
    None = 0,
    Controls = 1,
    Host = 2,
    Segments = 4,
    Registers = 8,
    All = 15,
}

/// <summary>Place and size of a component in <see cref="Vmcs"/>; size 0 = this processor does not have it.</summary>
internal readonly record struct VmcsSlot(ushort Offset, byte Size, VmcsDirty Dirty);

/// <summary>The table from VMCS component encodings to places in the region, for one set of capabilities.</summary>
internal sealed class VmcsLayout
{
    /// <summary>Index bits of an encoding that this table covers (0–63 per width and type).</summary>
    private const int IndexBits = 6;

    private readonly VmcsSlot[] slots = new VmcsSlot[16 << IndexBits];
    private readonly VmxCapabilities capabilities;

    internal VmcsLayout(VmxCapabilities capabilities)
    {
        this.capabilities = capabilities;
        // 16-bit control
        Add(VmcsField.VIRTUAL_PROCESSOR_ID, nameof(Vmcs.VirtualProcessorId), VmcsDirty.Controls, c => c.SecondaryAllowed(SecondaryControls.EnableVpid));
        Add(VmcsField.POSTED_INTR_NV, nameof(Vmcs.PostedIntrNv), VmcsDirty.Controls, c => c.PinAllowed(PinBasedControls.PostedInterrupts));
        Add(VmcsField.EPTP_INDEX, nameof(Vmcs.EptpIndex), VmcsDirty.None, c => c.SecondaryAllowed(SecondaryControls.EptViolationVe));
        Add(VmcsField.LAST_PID_POINTER_INDEX, nameof(Vmcs.LastPidPointerIndex), VmcsDirty.Controls, c => c.HasTertiaryControls && (c.ProcBased3 & 0x10) != 0);
        // 16-bit guest state
        Segment(VmcsField.GUEST_ES_SELECTOR, Seg.ES, nameof(SegmentCache.Selector));
        Segment(VmcsField.GUEST_CS_SELECTOR, Seg.CS, nameof(SegmentCache.Selector));
        Segment(VmcsField.GUEST_SS_SELECTOR, Seg.SS, nameof(SegmentCache.Selector));
        Segment(VmcsField.GUEST_DS_SELECTOR, Seg.DS, nameof(SegmentCache.Selector));
        Segment(VmcsField.GUEST_FS_SELECTOR, Seg.FS, nameof(SegmentCache.Selector));
        Segment(VmcsField.GUEST_GS_SELECTOR, Seg.GS, nameof(SegmentCache.Selector));
        Segment(VmcsField.GUEST_LDTR_SELECTOR, Seg.LDTR, nameof(SegmentCache.Selector));
        Segment(VmcsField.GUEST_TR_SELECTOR, Seg.TR, nameof(SegmentCache.Selector));
        Add(VmcsField.GUEST_INTR_STATUS, nameof(Vmcs.GuestIntrStatus), VmcsDirty.None, c => c.SecondaryAllowed(SecondaryControls.VirtualInterruptDelivery));
        Add(VmcsField.GUEST_PML_INDEX, nameof(Vmcs.GuestPmlIndex), VmcsDirty.None, c => c.SecondaryAllowed(SecondaryControls.EnablePml));
        // 16-bit host state
        Add(VmcsField.HOST_ES_SELECTOR, nameof(Vmcs.HostEsSelector), VmcsDirty.Host);
        Add(VmcsField.HOST_CS_SELECTOR, nameof(Vmcs.HostCsSelector), VmcsDirty.Host);
        Add(VmcsField.HOST_SS_SELECTOR, nameof(Vmcs.HostSsSelector), VmcsDirty.Host);
        Add(VmcsField.HOST_DS_SELECTOR, nameof(Vmcs.HostDsSelector), VmcsDirty.Host);
        Add(VmcsField.HOST_FS_SELECTOR, nameof(Vmcs.HostFsSelector), VmcsDirty.Host);
        Add(VmcsField.HOST_GS_SELECTOR, nameof(Vmcs.HostGsSelector), VmcsDirty.Host);
        Add(VmcsField.HOST_TR_SELECTOR, nameof(Vmcs.HostTrSelector), VmcsDirty.Host);
        // 64-bit control
        Add(VmcsField.IO_BITMAP_A, nameof(Vmcs.IoBitmapA), VmcsDirty.Controls, c => c.PrimaryAllowed(PrimaryControls.UseIoBitmaps));
        Add(VmcsField.IO_BITMAP_B, nameof(Vmcs.IoBitmapB), VmcsDirty.Controls, c => c.PrimaryAllowed(PrimaryControls.UseIoBitmaps));
        Add(VmcsField.MSR_BITMAP, nameof(Vmcs.MsrBitmap), VmcsDirty.Controls, c => c.PrimaryAllowed(PrimaryControls.UseMsrBitmaps));
        Add(VmcsField.VM_EXIT_MSR_STORE_ADDR, nameof(Vmcs.VmExitMsrStoreAddr), VmcsDirty.Controls);
        Add(VmcsField.VM_EXIT_MSR_LOAD_ADDR, nameof(Vmcs.VmExitMsrLoadAddr), VmcsDirty.Controls);
        Add(VmcsField.VM_ENTRY_MSR_LOAD_ADDR, nameof(Vmcs.VmEntryMsrLoadAddr), VmcsDirty.Controls);
        Add(VmcsField.EXECUTIVE_VMCS_POINTER, nameof(Vmcs.ExecutiveVmcsPointer), VmcsDirty.None);
        Add(VmcsField.PML_ADDRESS, nameof(Vmcs.PmlAddress), VmcsDirty.Controls, c => c.SecondaryAllowed(SecondaryControls.EnablePml));
        Add(VmcsField.TSC_OFFSET, nameof(Vmcs.TscOffset), VmcsDirty.None);
        Add(VmcsField.VIRTUAL_APIC_PAGE_ADDR, nameof(Vmcs.VirtualApicPageAddr), VmcsDirty.Controls, c => c.PrimaryAllowed(PrimaryControls.UseTprShadow));
        Add(VmcsField.APIC_ACCESS_ADDR, nameof(Vmcs.ApicAccessAddr), VmcsDirty.Controls, c => c.SecondaryAllowed(SecondaryControls.VirtualizeApicAccesses));
        Add(VmcsField.POSTED_INTR_DESC_ADDR, nameof(Vmcs.PostedIntrDescAddr), VmcsDirty.Controls, c => c.PinAllowed(PinBasedControls.PostedInterrupts));
        Add(VmcsField.VM_FUNCTION_CONTROL, nameof(Vmcs.VmFunctionControl), VmcsDirty.Controls, c => c.SecondaryAllowed(SecondaryControls.EnableVmFunctions));
        Add(VmcsField.EPT_POINTER, nameof(Vmcs.EptPointer), VmcsDirty.Controls, c => c.SecondaryAllowed(SecondaryControls.EnableEpt));
        Add(VmcsField.EOI_EXIT_BITMAP0, nameof(Vmcs.EoiExitBitmap0), VmcsDirty.None, c => c.SecondaryAllowed(SecondaryControls.VirtualInterruptDelivery));
        Add(VmcsField.EOI_EXIT_BITMAP1, nameof(Vmcs.EoiExitBitmap1), VmcsDirty.None, c => c.SecondaryAllowed(SecondaryControls.VirtualInterruptDelivery));
        Add(VmcsField.EOI_EXIT_BITMAP2, nameof(Vmcs.EoiExitBitmap2), VmcsDirty.None, c => c.SecondaryAllowed(SecondaryControls.VirtualInterruptDelivery));
        Add(VmcsField.EOI_EXIT_BITMAP3, nameof(Vmcs.EoiExitBitmap3), VmcsDirty.None, c => c.SecondaryAllowed(SecondaryControls.VirtualInterruptDelivery));
        Add(VmcsField.EPTP_LIST_ADDRESS, nameof(Vmcs.EptpListAddress), VmcsDirty.Controls, c => c.HasVmFunctions && (c.VmFunc & 1) != 0);
        Add(VmcsField.VMREAD_BITMAP, nameof(Vmcs.VmreadBitmap), VmcsDirty.Controls, c => c.SecondaryAllowed(SecondaryControls.VmcsShadowing));
        Add(VmcsField.VMWRITE_BITMAP, nameof(Vmcs.VmwriteBitmap), VmcsDirty.Controls, c => c.SecondaryAllowed(SecondaryControls.VmcsShadowing));
        Add(VmcsField.VE_INFO_ADDRESS, nameof(Vmcs.VeInfoAddress), VmcsDirty.Controls, c => c.SecondaryAllowed(SecondaryControls.EptViolationVe));
        Add(VmcsField.XSS_EXIT_BITMAP, nameof(Vmcs.XssExitBitmap), VmcsDirty.None, c => c.SecondaryAllowed(SecondaryControls.EnableXsaves));
        Add(VmcsField.ENCLS_EXITING_BITMAP, nameof(Vmcs.EnclsExitingBitmap), VmcsDirty.None, c => c.SecondaryAllowed(SecondaryControls.EnclsExiting));
        Add(VmcsField.TSC_MULTIPLIER, nameof(Vmcs.TscMultiplier), VmcsDirty.Controls, c => c.SecondaryAllowed(SecondaryControls.UseTscScaling));
        Add(VmcsField.TERTIARY_VM_EXEC_CONTROL, nameof(Vmcs.TertiaryVmExecControl), VmcsDirty.Controls, c => c.HasTertiaryControls);
        Add(VmcsField.PID_POINTER_TABLE, nameof(Vmcs.PidPointerTable), VmcsDirty.Controls, c => c.HasTertiaryControls && (c.ProcBased3 & 0x10) != 0);
        // 64-bit read-only exit info
        Add(VmcsField.GUEST_PHYSICAL_ADDRESS, nameof(Vmcs.GuestPhysicalAddress), VmcsDirty.None, c => c.SecondaryAllowed(SecondaryControls.EnableEpt));
        // 64-bit guest state
        Add(VmcsField.VMCS_LINK_POINTER, nameof(Vmcs.VmcsLinkPointer), VmcsDirty.Registers);
        Add(VmcsField.GUEST_IA32_DEBUGCTL, nameof(Vmcs.GuestIa32Debugctl), VmcsDirty.Registers);
        Add(VmcsField.GUEST_IA32_PAT, nameof(Vmcs.GuestIa32Pat), VmcsDirty.Registers, c => c.EntryAllowed(VmEntryControls.LoadPat) || c.ExitAllowed(VmExitControls.SavePat));
        Add(VmcsField.GUEST_IA32_EFER, nameof(Vmcs.GuestIa32Efer), VmcsDirty.Registers, c => c.EntryAllowed(VmEntryControls.LoadEfer) || c.ExitAllowed(VmExitControls.SaveEfer));
        Add(VmcsField.GUEST_IA32_PERF_GLOBAL_CTRL, nameof(Vmcs.GuestIa32PerfGlobalCtrl), VmcsDirty.Registers, c => c.EntryAllowed(VmEntryControls.LoadPerfGlobalCtrl));
        Add(VmcsField.GUEST_PDPTR0, nameof(Vmcs.GuestPdptr0), VmcsDirty.Registers, c => c.SecondaryAllowed(SecondaryControls.EnableEpt));
        Add(VmcsField.GUEST_PDPTR1, nameof(Vmcs.GuestPdptr1), VmcsDirty.Registers, c => c.SecondaryAllowed(SecondaryControls.EnableEpt));
        Add(VmcsField.GUEST_PDPTR2, nameof(Vmcs.GuestPdptr2), VmcsDirty.Registers, c => c.SecondaryAllowed(SecondaryControls.EnableEpt));
        Add(VmcsField.GUEST_PDPTR3, nameof(Vmcs.GuestPdptr3), VmcsDirty.Registers, c => c.SecondaryAllowed(SecondaryControls.EnableEpt));
        Add(VmcsField.GUEST_BNDCFGS, nameof(Vmcs.GuestBndcfgs), VmcsDirty.Registers, c => c.EntryAllowed(VmEntryControls.LoadBndcfgs) || c.ExitAllowed(VmExitControls.ClearBndcfgs));
        Add(VmcsField.GUEST_IA32_RTIT_CTL, nameof(Vmcs.GuestIa32RtitCtl), VmcsDirty.Registers, c => c.EntryAllowed(VmEntryControls.LoadRtitCtl) || c.ExitAllowed(VmExitControls.ClearRtitCtl));
        // 64-bit host state
        Add(VmcsField.HOST_IA32_PAT, nameof(Vmcs.HostIa32Pat), VmcsDirty.Host, c => c.ExitAllowed(VmExitControls.LoadPat));
        Add(VmcsField.HOST_IA32_EFER, nameof(Vmcs.HostIa32Efer), VmcsDirty.Host, c => c.ExitAllowed(VmExitControls.LoadEfer));
        Add(VmcsField.HOST_IA32_PERF_GLOBAL_CTRL, nameof(Vmcs.HostIa32PerfGlobalCtrl), VmcsDirty.Host, c => c.ExitAllowed(VmExitControls.LoadPerfGlobalCtrl));
        // 32-bit control
        Add(VmcsField.PIN_BASED_VM_EXEC_CONTROL, nameof(Vmcs.PinBasedVmExecControl), VmcsDirty.Controls);
        Add(VmcsField.CPU_BASED_VM_EXEC_CONTROL, nameof(Vmcs.CpuBasedVmExecControl), VmcsDirty.Controls);
        Add(VmcsField.EXCEPTION_BITMAP, nameof(Vmcs.ExceptionBitmap), VmcsDirty.None);
        Add(VmcsField.PAGE_FAULT_ERROR_CODE_MASK, nameof(Vmcs.PageFaultErrorCodeMask), VmcsDirty.None);
        Add(VmcsField.PAGE_FAULT_ERROR_CODE_MATCH, nameof(Vmcs.PageFaultErrorCodeMatch), VmcsDirty.None);
        Add(VmcsField.CR3_TARGET_COUNT, nameof(Vmcs.Cr3TargetCount), VmcsDirty.Controls);
        Add(VmcsField.VM_EXIT_CONTROLS, nameof(Vmcs.VmExitControls), VmcsDirty.Controls);
        Add(VmcsField.VM_EXIT_MSR_STORE_COUNT, nameof(Vmcs.VmExitMsrStoreCount), VmcsDirty.Controls);
        Add(VmcsField.VM_EXIT_MSR_LOAD_COUNT, nameof(Vmcs.VmExitMsrLoadCount), VmcsDirty.Controls);
        Add(VmcsField.VM_ENTRY_CONTROLS, nameof(Vmcs.VmEntryControls), VmcsDirty.Controls);
        Add(VmcsField.VM_ENTRY_MSR_LOAD_COUNT, nameof(Vmcs.VmEntryMsrLoadCount), VmcsDirty.Controls);
        Add(VmcsField.VM_ENTRY_INTR_INFO_FIELD, nameof(Vmcs.VmEntryIntrInfoField), VmcsDirty.None);
        Add(VmcsField.VM_ENTRY_EXCEPTION_ERROR_CODE, nameof(Vmcs.VmEntryExceptionErrorCode), VmcsDirty.None);
        Add(VmcsField.VM_ENTRY_INSTRUCTION_LEN, nameof(Vmcs.VmEntryInstructionLen), VmcsDirty.None);
        Add(VmcsField.TPR_THRESHOLD, nameof(Vmcs.TprThreshold), VmcsDirty.None, c => c.PrimaryAllowed(PrimaryControls.UseTprShadow));
        Add(VmcsField.SECONDARY_VM_EXEC_CONTROL, nameof(Vmcs.SecondaryVmExecControl), VmcsDirty.Controls, c => c.HasSecondaryControls);
        Add(VmcsField.PLE_GAP, nameof(Vmcs.PleGap), VmcsDirty.None, c => c.SecondaryAllowed(SecondaryControls.PauseLoopExiting));
        Add(VmcsField.PLE_WINDOW, nameof(Vmcs.PleWindow), VmcsDirty.None, c => c.SecondaryAllowed(SecondaryControls.PauseLoopExiting));
        Add(VmcsField.NOTIFY_WINDOW, nameof(Vmcs.NotifyWindow), VmcsDirty.None, c => c.SecondaryAllowed(SecondaryControls.NotifyWindow));
        // 32-bit read-only exit info
        Add(VmcsField.VM_INSTRUCTION_ERROR, nameof(Vmcs.VmInstructionError), VmcsDirty.None);
        Add(VmcsField.VM_EXIT_REASON, nameof(Vmcs.VmExitReason), VmcsDirty.None);
        Add(VmcsField.VM_EXIT_INTR_INFO, nameof(Vmcs.VmExitIntrInfo), VmcsDirty.None);
        Add(VmcsField.VM_EXIT_INTR_ERROR_CODE, nameof(Vmcs.VmExitIntrErrorCode), VmcsDirty.None);
        Add(VmcsField.IDT_VECTORING_INFO_FIELD, nameof(Vmcs.IdtVectoringInfoField), VmcsDirty.None);
        Add(VmcsField.IDT_VECTORING_ERROR_CODE, nameof(Vmcs.IdtVectoringErrorCode), VmcsDirty.None);
        Add(VmcsField.VM_EXIT_INSTRUCTION_LEN, nameof(Vmcs.VmExitInstructionLen), VmcsDirty.None);
        Add(VmcsField.VMX_INSTRUCTION_INFO, nameof(Vmcs.VmxInstructionInfo), VmcsDirty.None);
        // 32-bit guest state
        Segment(VmcsField.GUEST_ES_LIMIT, Seg.ES, nameof(SegmentCache.Limit));
        Segment(VmcsField.GUEST_CS_LIMIT, Seg.CS, nameof(SegmentCache.Limit));
        Segment(VmcsField.GUEST_SS_LIMIT, Seg.SS, nameof(SegmentCache.Limit));
        Segment(VmcsField.GUEST_DS_LIMIT, Seg.DS, nameof(SegmentCache.Limit));
        Segment(VmcsField.GUEST_FS_LIMIT, Seg.FS, nameof(SegmentCache.Limit));
        Segment(VmcsField.GUEST_GS_LIMIT, Seg.GS, nameof(SegmentCache.Limit));
        Segment(VmcsField.GUEST_LDTR_LIMIT, Seg.LDTR, nameof(SegmentCache.Limit));
        Segment(VmcsField.GUEST_TR_LIMIT, Seg.TR, nameof(SegmentCache.Limit));
        Table(VmcsField.GUEST_GDTR_LIMIT, nameof(Vmcs.GuestGdtr), nameof(DescriptorTableRegister.Limit));
        Table(VmcsField.GUEST_IDTR_LIMIT, nameof(Vmcs.GuestIdtr), nameof(DescriptorTableRegister.Limit));
        Segment(VmcsField.GUEST_ES_AR_BYTES, Seg.ES, nameof(SegmentCache.AccessRights));
        Segment(VmcsField.GUEST_CS_AR_BYTES, Seg.CS, nameof(SegmentCache.AccessRights));
        Segment(VmcsField.GUEST_SS_AR_BYTES, Seg.SS, nameof(SegmentCache.AccessRights));
        Segment(VmcsField.GUEST_DS_AR_BYTES, Seg.DS, nameof(SegmentCache.AccessRights));
        Segment(VmcsField.GUEST_FS_AR_BYTES, Seg.FS, nameof(SegmentCache.AccessRights));
        Segment(VmcsField.GUEST_GS_AR_BYTES, Seg.GS, nameof(SegmentCache.AccessRights));
        Segment(VmcsField.GUEST_LDTR_AR_BYTES, Seg.LDTR, nameof(SegmentCache.AccessRights));
        Segment(VmcsField.GUEST_TR_AR_BYTES, Seg.TR, nameof(SegmentCache.AccessRights));
        Add(VmcsField.GUEST_INTERRUPTIBILITY_INFO, nameof(Vmcs.GuestInterruptibilityInfo), VmcsDirty.None);
        Add(VmcsField.GUEST_ACTIVITY_STATE, nameof(Vmcs.GuestActivityState), VmcsDirty.None);
        Add(VmcsField.GUEST_SMBASE, nameof(Vmcs.GuestSmbase), VmcsDirty.None);
        Add(VmcsField.GUEST_SYSENTER_CS, nameof(Vmcs.GuestSysenterCs), VmcsDirty.Registers);
        Add(VmcsField.VMX_PREEMPTION_TIMER_VALUE, nameof(Vmcs.VmxPreemptionTimerValue), VmcsDirty.None, c => c.PinAllowed(PinBasedControls.PreemptionTimer));
        // 32-bit host state
        Add(VmcsField.HOST_IA32_SYSENTER_CS, nameof(Vmcs.HostIa32SysenterCs), VmcsDirty.Host);
        // Natural-width control
        Add(VmcsField.CR0_GUEST_HOST_MASK, nameof(Vmcs.Cr0GuestHostMask), VmcsDirty.None);
        Add(VmcsField.CR4_GUEST_HOST_MASK, nameof(Vmcs.Cr4GuestHostMask), VmcsDirty.None);
        Add(VmcsField.CR0_READ_SHADOW, nameof(Vmcs.Cr0ReadShadow), VmcsDirty.None);
        Add(VmcsField.CR4_READ_SHADOW, nameof(Vmcs.Cr4ReadShadow), VmcsDirty.None);
        Add(VmcsField.CR3_TARGET_VALUE0, nameof(Vmcs.Cr3TargetValue0), VmcsDirty.None, c => c.Cr3TargetCount > 0);
        Add(VmcsField.CR3_TARGET_VALUE1, nameof(Vmcs.Cr3TargetValue1), VmcsDirty.None, c => c.Cr3TargetCount > 1);
        Add(VmcsField.CR3_TARGET_VALUE2, nameof(Vmcs.Cr3TargetValue2), VmcsDirty.None, c => c.Cr3TargetCount > 2);
        Add(VmcsField.CR3_TARGET_VALUE3, nameof(Vmcs.Cr3TargetValue3), VmcsDirty.None, c => c.Cr3TargetCount > 3);
        // Natural-width read-only exit info
        Add(VmcsField.EXIT_QUALIFICATION, nameof(Vmcs.ExitQualification), VmcsDirty.None);
        Add(VmcsField.IO_RCX, nameof(Vmcs.IoRcx), VmcsDirty.None);
        Add(VmcsField.IO_RSI, nameof(Vmcs.IoRsi), VmcsDirty.None);
        Add(VmcsField.IO_RDI, nameof(Vmcs.IoRdi), VmcsDirty.None);
        Add(VmcsField.IO_RIP, nameof(Vmcs.IoRip), VmcsDirty.None);
        Add(VmcsField.GUEST_LINEAR_ADDRESS, nameof(Vmcs.GuestLinearAddress), VmcsDirty.None);
        // Natural-width guest state
        Add(VmcsField.GUEST_CR0, nameof(Vmcs.GuestCr0), VmcsDirty.Registers);
        Add(VmcsField.GUEST_CR3, nameof(Vmcs.GuestCr3), VmcsDirty.Registers);
        Add(VmcsField.GUEST_CR4, nameof(Vmcs.GuestCr4), VmcsDirty.Registers);
        Segment(VmcsField.GUEST_ES_BASE, Seg.ES, nameof(SegmentCache.Base));
        Segment(VmcsField.GUEST_CS_BASE, Seg.CS, nameof(SegmentCache.Base));
        Segment(VmcsField.GUEST_SS_BASE, Seg.SS, nameof(SegmentCache.Base));
        Segment(VmcsField.GUEST_DS_BASE, Seg.DS, nameof(SegmentCache.Base));
        Segment(VmcsField.GUEST_FS_BASE, Seg.FS, nameof(SegmentCache.Base));
        Segment(VmcsField.GUEST_GS_BASE, Seg.GS, nameof(SegmentCache.Base));
        Segment(VmcsField.GUEST_LDTR_BASE, Seg.LDTR, nameof(SegmentCache.Base));
        Segment(VmcsField.GUEST_TR_BASE, Seg.TR, nameof(SegmentCache.Base));
        Table(VmcsField.GUEST_GDTR_BASE, nameof(Vmcs.GuestGdtr), nameof(DescriptorTableRegister.Base));
        Table(VmcsField.GUEST_IDTR_BASE, nameof(Vmcs.GuestIdtr), nameof(DescriptorTableRegister.Base));
        Add(VmcsField.GUEST_DR7, nameof(Vmcs.GuestDr7), VmcsDirty.Registers);
        Add(VmcsField.GUEST_RSP, nameof(Vmcs.GuestRsp), VmcsDirty.None);
        Add(VmcsField.GUEST_RIP, nameof(Vmcs.GuestRip), VmcsDirty.None);
        Add(VmcsField.GUEST_RFLAGS, nameof(Vmcs.GuestRflags), VmcsDirty.None);
        Add(VmcsField.GUEST_PENDING_DBG_EXCEPTIONS, nameof(Vmcs.GuestPendingDbgExceptions), VmcsDirty.None);
        Add(VmcsField.GUEST_SYSENTER_ESP, nameof(Vmcs.GuestSysenterEsp), VmcsDirty.Registers);
        Add(VmcsField.GUEST_SYSENTER_EIP, nameof(Vmcs.GuestSysenterEip), VmcsDirty.Registers);
        // Natural-width host state
        Add(VmcsField.HOST_CR0, nameof(Vmcs.HostCr0), VmcsDirty.Host);
        Add(VmcsField.HOST_CR3, nameof(Vmcs.HostCr3), VmcsDirty.Host);
        Add(VmcsField.HOST_CR4, nameof(Vmcs.HostCr4), VmcsDirty.Host);
        Add(VmcsField.HOST_FS_BASE, nameof(Vmcs.HostFsBase), VmcsDirty.Host);
        Add(VmcsField.HOST_GS_BASE, nameof(Vmcs.HostGsBase), VmcsDirty.Host);
        Add(VmcsField.HOST_TR_BASE, nameof(Vmcs.HostTrBase), VmcsDirty.Host);
        Add(VmcsField.HOST_GDTR_BASE, nameof(Vmcs.HostGdtrBase), VmcsDirty.Host);
        Add(VmcsField.HOST_IDTR_BASE, nameof(Vmcs.HostIdtrBase), VmcsDirty.Host);
        Add(VmcsField.HOST_IA32_SYSENTER_ESP, nameof(Vmcs.HostIa32SysenterEsp), VmcsDirty.Host);
        Add(VmcsField.HOST_IA32_SYSENTER_EIP, nameof(Vmcs.HostIa32SysenterEip), VmcsDirty.Host);
        Add(VmcsField.HOST_RSP, nameof(Vmcs.HostRsp), VmcsDirty.None); // no check, and read at each exit
        Add(VmcsField.HOST_RIP, nameof(Vmcs.HostRip), VmcsDirty.Host);
    }

    /// <summary>Position of an encoding in the table, or -1: reserved bits, or the upper half of a component that is not 64 bits wide.</summary>
    internal static int Index(ulong field)
    {
        if ((field & 0xffff_ffff_ffff_9000) != 0 || (field >> 1 & 0x1ff) >= 1 << IndexBits || ((field & 1) != 0 && (field >> 13 & 3) != 1))
            return -1;
        return (int)((field >> 13 & 3) << 2 | (field >> 10 & 3)) << IndexBits | (int)(field >> 1 & 0x3f);
    }

    /// <summary>Exit information: not writable unless the processor allows VMWRITE to any field.</summary>
    internal static bool IsReadOnly(uint field) => (field >> 10 & 3) == 1;

    /// <summary>Finds the component; false when this processor does not support it.</summary>
    internal bool TryFind(ulong field, out VmcsSlot slot)
    {
        int index = Index(field);
        slot = index >= 0 ? slots[index] : default;
        return slot.Size != 0;
    }

    private void Add(VmcsField field, string member, VmcsDirty dirty, Predicate<VmxCapabilities>? supported = null)
    {
        if (supported is null || supported(capabilities))
            Place(field, OffsetOf(member), dirty);
    }

    private void Segment(VmcsField field, Seg segment, string member)
    {
        int offset = OffsetOf(nameof(Vmcs.GuestSegments)) + (int)segment * Marshal.SizeOf<SegmentCache>() + (int)Marshal.OffsetOf<SegmentCache>(member);
        Place(field, offset, VmcsDirty.Segments);
    }

    private void Table(VmcsField field, string table, string member) =>
        Place(field, OffsetOf(table) + (int)Marshal.OffsetOf<DescriptorTableRegister>(member), VmcsDirty.Segments);

    private void Place(VmcsField field, int offset, VmcsDirty dirty) =>
        slots[Index((ulong)field)] = new VmcsSlot((ushort)offset, Width((uint)field), dirty);

    private static int OffsetOf(string member) => (int)Marshal.OffsetOf<Vmcs>(member);

    private static byte Width(uint field) => (field >> 13 & 3) switch { 0 => 2, 2 => 4, _ => 8 };
}
