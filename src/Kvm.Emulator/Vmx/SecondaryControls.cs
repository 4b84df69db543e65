namespace Kvm.Emulator.Vmx;

/// <summary>Secondary processor-based VM-execution controls (<see cref="VmcsField.SECONDARY_VM_EXEC_CONTROL"/>).</summary>
[Flags]
public enum SecondaryControls : uint
{
    VirtualizeApicAccesses = 1u << 0,
    EnableEpt = 1u << 1,
    DescriptorTableExiting = 1u << 2,
    EnableRdtscp = 1u << 3,
    VirtualizeX2ApicMode = 1u << 4,
    EnableVpid = 1u << 5,
    WbinvdExiting = 1u << 6,
    UnrestrictedGuest = 1u << 7,
    ApicRegisterVirtualization = 1u << 8,
    VirtualInterruptDelivery = 1u << 9,
    PauseLoopExiting = 1u << 10,
    RdrandExiting = 1u << 11,
    EnableInvpcid = 1u << 12,
    EnableVmFunctions = 1u << 13,
    VmcsShadowing = 1u << 14,
    EnclsExiting = 1u << 15,
    RdseedExiting = 1u << 16,
    EnablePml = 1u << 17,
    EptViolationVe = 1u << 18,
    ConcealVmxFromPt = 1u << 19,
    EnableXsaves = 1u << 20,
    ModeBasedExecuteEpt = 1u << 22,
    SubPageWritePermission = 1u << 23,
    PtUsesGuestPhysical = 1u << 24,
    UseTscScaling = 1u << 25,
    EnableUserWaitPause = 1u << 26,
    EnclvExiting = 1u << 28,
    BusLockDetection = 1u << 30,
    NotifyWindow = 1u << 31,
}
