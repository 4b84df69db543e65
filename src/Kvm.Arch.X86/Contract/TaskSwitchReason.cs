namespace Kvm.Arch.X86;

/// <summary>What caused a hardware task switch.</summary>
/// <remarks>TASK_SWITCH_*, asm/kvm_host.h.</remarks>
public enum TaskSwitchReason
{
    TASK_SWITCH_CALL = 0,
    TASK_SWITCH_IRET = 1,
    TASK_SWITCH_JMP = 2,
    TASK_SWITCH_GATE = 3,
}
