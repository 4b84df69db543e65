namespace Kvm.Tool;

/// <summary>What the process returns.</summary>
public static class ExitCode
{
    /// <summary>The guest ended in an orderly way: halted, or switched itself off.</summary>
    public const int Success = 0;

    /// <summary>The command line was wrong.</summary>
    public const int Usage = 2;

    /// <summary>A file could not be read or written, or is not what it should be.</summary>
    public const int BadFile = 3;

    /// <summary>The back end does not work here, or refused a call.</summary>
    public const int NoKvm = 4;

    /// <summary>The guest crashed: triple fault, failed VM entry, KVM internal error.</summary>
    public const int GuestCrashed = 5;

    /// <summary>The time of --timeout was up, or the user interrupted.</summary>
    public const int TimedOut = 6;

    /// <summary>Answers differ from the recorded ones.</summary>
    public const int Differs = 8;

    /// <summary>The guest reset itself: <c>reboot</c>.</summary>
    public const int Reset = 10;

    // A guest that writes the debug-exit port chooses its own: (value << 1) | 1, always odd.
}
