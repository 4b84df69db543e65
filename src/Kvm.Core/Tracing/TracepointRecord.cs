namespace Kvm.Core.Tracing;

/// <summary>One tracepoint event.</summary>
public readonly record struct TracepointRecord(string Name, string Text, HostTask? Task)
{
    /// <summary>The line of ftrace's "trace" file, without the time: <c>task-pid [cpu] name: text</c>.</summary>
    public override string ToString() => $"{Task,16} [{Task?.Cpu?.Id ?? 0:D3}] {Name}: {Text}";
}
