using System.Runtime.InteropServices;

namespace Kvm.Emulator.Vmx;

/// <summary>
/// A VMCS: the layout of the region in memory and of the copy that a processor holds while the VMCS is active. Every component has a fixed place
/// (<see cref="VmcsLayout"/> maps encodings to it); segment registers are kept as <see cref="SegmentCache"/> so that VM entry and VM exit move them as a block.
/// </summary>
/// <remarks>
/// SDM vol 3C, "Format of the VMCS Region": the first two words are architectural, the rest is this processor's own. Software reaches it with VMREAD and VMWRITE only;
/// memory is up to date after VMCLEAR, as on silicon.
/// </remarks>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct Vmcs
{
    /// <summary>Bits 30:0 revision identifier, bit 31 shadow-VMCS indicator.</summary>
    public uint RevisionId;
    public uint AbortIndicator;
    /// <summary>0 clear, 1 launched.</summary>
    public uint LaunchState;
    public uint Reserved;

    public CpuState.SegmentArray GuestSegments;
    public DescriptorTableRegister GuestGdtr;
    public DescriptorTableRegister GuestIdtr;

    // Controls: 64 bits
    public ulong IoBitmapA;
    public ulong IoBitmapB;
    public ulong MsrBitmap;
    public ulong VmExitMsrStoreAddr;
    public ulong VmExitMsrLoadAddr;
    public ulong VmEntryMsrLoadAddr;
    public ulong ExecutiveVmcsPointer;
    public ulong PmlAddress;
    public ulong TscOffset;
    public ulong VirtualApicPageAddr;
    public ulong ApicAccessAddr;
    public ulong PostedIntrDescAddr;
    public ulong VmFunctionControl;
    public ulong EptPointer;
    public ulong EoiExitBitmap0;
    public ulong EoiExitBitmap1;
    public ulong EoiExitBitmap2;
    public ulong EoiExitBitmap3;
    public ulong EptpListAddress;
    public ulong VmreadBitmap;
    public ulong VmwriteBitmap;
    public ulong VeInfoAddress;
    public ulong XssExitBitmap;
    public ulong EnclsExitingBitmap;
    public ulong TscMultiplier;
    public ulong TertiaryVmExecControl;
    public ulong PidPointerTable;
    public ulong Cr0GuestHostMask;
    public ulong Cr4GuestHostMask;
    public ulong Cr0ReadShadow;
    public ulong Cr4ReadShadow;
    public ulong Cr3TargetValue0;
    public ulong Cr3TargetValue1;
    public ulong Cr3TargetValue2;
    public ulong Cr3TargetValue3;

    // Guest state (segments and descriptor tables above): 64 bits
    public ulong VmcsLinkPointer;
    public ulong GuestIa32Debugctl;
    public ulong GuestIa32Pat;
    public ulong GuestIa32Efer;
    public ulong GuestIa32PerfGlobalCtrl;
    public ulong GuestPdptr0;
    public ulong GuestPdptr1;
    public ulong GuestPdptr2;
    public ulong GuestPdptr3;
    public ulong GuestBndcfgs;
    public ulong GuestIa32RtitCtl;
    public ulong GuestCr0;
    public ulong GuestCr3;
    public ulong GuestCr4;
    public ulong GuestDr7;
    public ulong GuestRsp;
    public ulong GuestRip;
    public ulong GuestRflags;
    public ulong GuestPendingDbgExceptions;
    public ulong GuestSysenterEsp;
    public ulong GuestSysenterEip;

    // Host state: 64 bits
    public ulong HostIa32Pat;
    public ulong HostIa32Efer;
    public ulong HostIa32PerfGlobalCtrl;
    public ulong HostCr0;
    public ulong HostCr3;
    public ulong HostCr4;
    public ulong HostFsBase;
    public ulong HostGsBase;
    public ulong HostTrBase;
    public ulong HostGdtrBase;
    public ulong HostIdtrBase;
    public ulong HostIa32SysenterEsp;
    public ulong HostIa32SysenterEip;
    public ulong HostRsp;
    public ulong HostRip;

    // Exit information: 64 bits
    public ulong GuestPhysicalAddress;
    public ulong ExitQualification;
    public ulong IoRcx;
    public ulong IoRsi;
    public ulong IoRdi;
    public ulong IoRip;
    public ulong GuestLinearAddress;

    // Controls: 32 bits
    public uint PinBasedVmExecControl;
    public uint CpuBasedVmExecControl;
    public uint ExceptionBitmap;
    public uint PageFaultErrorCodeMask;
    public uint PageFaultErrorCodeMatch;
    public uint Cr3TargetCount;
    public uint VmExitControls;
    public uint VmExitMsrStoreCount;
    public uint VmExitMsrLoadCount;
    public uint VmEntryControls;
    public uint VmEntryMsrLoadCount;
    public uint VmEntryIntrInfoField;
    public uint VmEntryExceptionErrorCode;
    public uint VmEntryInstructionLen;
    public uint TprThreshold;
    public uint SecondaryVmExecControl;
    public uint PleGap;
    public uint PleWindow;
    public uint NotifyWindow;

    // Guest state (segments and descriptor tables above): 32 bits
    public uint GuestInterruptibilityInfo;
    public uint GuestActivityState;
    public uint GuestSmbase;
    public uint GuestSysenterCs;
    public uint VmxPreemptionTimerValue;

    // Host state: 32 bits
    public uint HostIa32SysenterCs;

    // Exit information: 32 bits
    public uint VmInstructionError;
    public uint VmExitReason;
    public uint VmExitIntrInfo;
    public uint VmExitIntrErrorCode;
    public uint IdtVectoringInfoField;
    public uint IdtVectoringErrorCode;
    public uint VmExitInstructionLen;
    public uint VmxInstructionInfo;

    // Controls: 16 bits
    public ushort VirtualProcessorId;
    public ushort PostedIntrNv;
    public ushort EptpIndex;
    public ushort LastPidPointerIndex;

    // Guest state (segments and descriptor tables above): 16 bits
    public ushort GuestIntrStatus;
    public ushort GuestPmlIndex;

    // Host state: 16 bits
    public ushort HostEsSelector;
    public ushort HostCsSelector;
    public ushort HostSsSelector;
    public ushort HostDsSelector;
    public ushort HostFsSelector;
    public ushort HostGsSelector;
    public ushort HostTrSelector;
}
