namespace Kvm.Emulator;

/// <summary>Why <c>Processor.Run</c> returned.</summary>
public enum StopReason
{
    /// <summary>Nothing to stop for: the loop goes on (never returned by Run).</summary>
    None = 0,
    /// <summary>HLT, MWAIT or wait-for-SIPI in root operation, with no event pending.</summary>
    Halted,
    /// <summary>Triple fault in root operation.</summary>
    Shutdown,
    /// <summary>RequestStop was called.</summary>
    StopRequested,
    /// <summary>The instruction budget is used up.</summary>
    Budget,
    /// <summary>A VM exit or #VMEXIT returned to the C# code that entered the guest.</summary>
    HostReached,
}
