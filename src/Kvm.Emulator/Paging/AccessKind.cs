namespace Kvm.Emulator;

/// <summary>What an access wants to do.</summary>
public enum AccessKind : byte
{
    Read,
    Write,
    Execute,
    /// <summary>Read followed by write of the same bytes: faults as a write.</summary>
    ReadWrite,
}

/// <summary>Why <see cref="Mmu.TranslateForRmw"/> gave no pointer.</summary>
public enum RmwFailure : byte
{
    None,
    /// <summary>A fault or memory exit is pending.</summary>
    Fault,
    /// <summary>Not RAM, a special page, a code page, or across a page boundary: use Read and Write.</summary>
    Slow,
}
