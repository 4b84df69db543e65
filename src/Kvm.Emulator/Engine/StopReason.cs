namespace Kvm.Emulator;

/// <summary>Why <see cref="Processor.Run"/> returned.</summary>
public enum StopReason
{
    /// <summary>The processor is in the HLT (or MWAIT) state and no event wakes it.</summary>
    Halted,
    /// <summary>Shutdown state (triple fault) or wait-for-SIPI: only INIT, NMI or SIPI lead out.</summary>
    Shutdown,
    /// <summary><see cref="ExitRequests.Stop"/> was set.</summary>
    StopRequested,
    /// <summary>The instruction budget is used up.</summary>
    Budget,
    /// <summary>A VM exit ended a guest that C# kernel code had entered: host state is loaded, RIP is the host RIP.</summary>
    HostReached,
}
