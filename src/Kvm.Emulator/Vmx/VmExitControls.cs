namespace Kvm.Emulator.Vmx;

/// <summary>VM-exit controls (<see cref="VmcsField.VM_EXIT_CONTROLS"/>).</summary>
[Flags]
public enum VmExitControls : uint
{
    SaveDebugControls = 1u << 2,
    HostAddressSpaceSize = 1u << 9,
    LoadPerfGlobalCtrl = 1u << 12,
    AcknowledgeInterruptOnExit = 1u << 15,
    SavePat = 1u << 18,
    LoadPat = 1u << 19,
    SaveEfer = 1u << 20,
    LoadEfer = 1u << 21,
    SavePreemptionTimer = 1u << 22,
    ClearBndcfgs = 1u << 23,
    ConcealVmxFromPt = 1u << 24,
    ClearRtitCtl = 1u << 25,
}
