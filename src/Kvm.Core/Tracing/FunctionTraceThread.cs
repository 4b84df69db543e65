using System.Diagnostics;

namespace Kvm.Core.Tracing;

/// <summary>One thread's side of a session: a stack of contexts (task, interrupted CPU), each with a stack of open functions.</summary>
internal sealed class FunctionTraceThread(FunctionTraceSession session)
{
    private sealed class Context(string title)
    {
        public readonly string Title = title;
        public readonly Stack<FunctionTraceNode> Open = new();
    }

    private readonly Stack<Context> _contexts = new();
    private Context? _task;

    public FunctionTraceSession Session { get; } = session;

    public IEnumerable<string> OpenFunctions => (_contexts.Count > 0 ? _contexts.Peek() : _task)?.Open.Select(static n => n.Name) ?? [];

    public void Enter(string function)
    {
        HostTask? task = HostTask.CurrentOrNull;
        Context context;
        if (_contexts.Count > 0)
        {
            context = _contexts.Peek();
        }
        else
        {
            string title = "task " + (task?.ToString() ?? "swapper-0");
            if (_task is null || (_task.Open.Count == 0 && _task.Title != title)) _task = new Context(title);
            context = _task;
        }

        var node = new FunctionTraceNode(function, task?.Cpu?.Id ?? -1, Stopwatch.GetTimestamp());
        if (context.Open.TryPeek(out FunctionTraceNode? parent)) parent.Add(node);
        else Session.AddRoot(context.Title, node);
        context.Open.Push(node);
    }

    public void Exit()
    {
        Context? context = _contexts.Count > 0 ? _contexts.Peek() : _task;
        if (context is not null && context.Open.TryPop(out FunctionTraceNode? node)) node.EndTicks = Stopwatch.GetTimestamp();
    }

    public void Push(string title) => _contexts.Push(new Context(title));

    public void Pop()
    {
        if (_contexts.Count > 0) _contexts.Pop();
    }
}
