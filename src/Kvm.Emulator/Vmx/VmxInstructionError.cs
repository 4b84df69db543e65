namespace Kvm.Emulator.Vmx;

/// <summary>VM-instruction error numbers, the value of <see cref="VmcsField.VM_INSTRUCTION_ERROR"/> after VMfailValid.</summary>
/// <remarks>SDM vol 3C, "VM Instruction Error Numbers"; kernel enum vm_instruction_error_number (arch/x86/include/asm/vmx.h).</remarks>
public enum VmxInstructionError : uint
{
    None = 0,
    VmcallInVmxRoot = 1,
    VmclearInvalidAddress = 2,
    VmclearVmxonPointer = 3,
    VmlaunchNonclearVmcs = 4,
    VmresumeNonlaunchedVmcs = 5,
    VmresumeAfterVmxoff = 6,
    EntryInvalidControlField = 7,
    EntryInvalidHostStateField = 8,
    VmptrldInvalidAddress = 9,
    VmptrldVmxonPointer = 10,
    VmptrldIncorrectVmcsRevisionId = 11,
    UnsupportedVmcsComponent = 12,
    VmwriteReadOnlyVmcsComponent = 13,
    VmxonInVmxRoot = 15,
    EntryInvalidExecutiveVmcsPointer = 16,
    EntryNonlaunchedExecutiveVmcs = 17,
    EntryExecutiveVmcsPointerNotVmxonPointer = 18,
    VmcallNonclearVmcs = 19,
    VmcallInvalidVmExitControlFields = 20,
    VmcallIncorrectMsegRevisionId = 22,
    VmxoffUnderDualMonitor = 23,
    VmcallInvalidSmmMonitorFeatures = 24,
    EntryInvalidVmExecutionControlFieldsInExecutiveVmcs = 25,
    EntryEventsBlockedByMovSs = 26,
    InvalidOperandToInveptInvvpid = 28,
}
