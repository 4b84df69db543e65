namespace Kvm.Arch.X86;

/// <summary>What <see cref="IKvmX86Ops.VcpuRun"/> already did about the exit.</summary>
/// <remarks>enum exit_fastpath_completion, asm/kvm_host.h.</remarks>
public enum ExitFastpathCompletion
{
    EXIT_FASTPATH_NONE,
    EXIT_FASTPATH_REENTER_GUEST,
    EXIT_FASTPATH_EXIT_HANDLED,
}
