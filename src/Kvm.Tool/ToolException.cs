namespace Kvm.Tool;

/// <summary>Something the user gave is unusable: one line that names it, why, and what to do.</summary>
internal sealed class ToolException(int exitCode, string message) : Exception(message)
{
    public int ExitCode { get; } = exitCode;
}
