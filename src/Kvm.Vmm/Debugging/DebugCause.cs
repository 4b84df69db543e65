namespace Kvm.Vmm.Debugging;

/// <summary>What made a debugged guest stop.</summary>
public enum DebugCause
{
    /// <summary>It has not run yet, or the debugger asked.</summary>
    Asked,

    /// <summary>One instruction was executed.</summary>
    Step,

    /// <summary>An INT3 that the debugger put there.</summary>
    SoftwareBreakpoint,

    /// <summary>An instruction at an address in DR0 to DR3.</summary>
    HardwareBreakpoint,

    /// <summary>Data at an address in DR0 to DR3 were written.</summary>
    WriteWatchpoint,

    /// <summary>Data at an address in DR0 to DR3 were read or written.</summary>
    AccessWatchpoint,

    /// <summary>The guest can't go on: a triple fault, a failed VM entry, an internal error.</summary>
    Fatal,
}
