namespace Kvm.Vmm;

/// <summary>Why a guest no longer runs.</summary>
public enum GuestStopReason
{
    /// <summary>HLT with nothing that could wake the vCPU.</summary>
    Halted,

    /// <summary>The guest wrote the debug-exit port; <see cref="GuestStop.Code"/> is the exit status.</summary>
    DebugExit,

    /// <summary>The guest asked for a reset: keyboard controller, port 0x92 or 0xcf9.</summary>
    Reset,

    /// <summary>The guest asked to be switched off.</summary>
    PowerOff,

    /// <summary>KVM_EXIT_SHUTDOWN: a triple fault.</summary>
    Shutdown,

    /// <summary>KVM_EXIT_FAIL_ENTRY: the processor refused the guest's state; <see cref="GuestStop.Code"/> is its reason.</summary>
    FailEntry,

    /// <summary>KVM_EXIT_INTERNAL_ERROR; <see cref="GuestStop.Code"/> is the suberror.</summary>
    InternalError,

    /// <summary>KVM_RUN failed; <see cref="GuestStop.Code"/> is the errno.</summary>
    RunFailed,

    /// <summary>An exit that this loop does not serve; <see cref="GuestStop.Code"/> is the exit reason.</summary>
    UnhandledExit,

    /// <summary>The user asked, or the time was up.</summary>
    Interrupted,

    /// <summary>A file behind a device could not be written; the text says which and why.</summary>
    HostFailed,
}
