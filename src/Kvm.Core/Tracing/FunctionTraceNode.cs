namespace Kvm.Core.Tracing;

/// <summary>One call in a function trace.</summary>
public sealed class FunctionTraceNode
{
    internal FunctionTraceNode(string name, int cpu, long startTicks)
    {
        Name = name;
        Cpu = cpu;
        StartTicks = startTicks;
    }

    /// <summary>The kernel's name of the function.</summary>
    public string Name { get; }

    /// <summary>The CPU it began on, or -1.</summary>
    public int Cpu { get; }

    /// <summary>Time stamps of entry and exit (Stopwatch ticks).</summary>
    public long StartTicks { get; }

    public long EndTicks { get; internal set; }

    /// <summary>The calls it made, in order.</summary>
    public IReadOnlyList<FunctionTraceNode> Children => _children is null ? [] : _children;

    private List<FunctionTraceNode>? _children;

    internal void Add(FunctionTraceNode child) => (_children ??= []).Add(child);

    /// <summary>Name and structure equal: calls that are printed as one with a count.</summary>
    internal bool Same(FunctionTraceNode other)
    {
        if (Name != other.Name || Children.Count != other.Children.Count) return false;
        for (int i = 0; i < Children.Count; i++)
            if (!Children[i].Same(other.Children[i])) return false;
        return true;
    }
}
