namespace Kvm.Emulator.Vmx;

/// <summary>Pin-based VM-execution controls (<see cref="VmcsField.PIN_BASED_VM_EXEC_CONTROL"/>).</summary>
[Flags]
public enum PinBasedControls : uint
{
    ExternalInterruptExiting = 1u << 0,
    NmiExiting = 1u << 3,
    VirtualNmis = 1u << 5,
    PreemptionTimer = 1u << 6,
    PostedInterrupts = 1u << 7,
}
