using System.Runtime.CompilerServices;

namespace Kvm.Core.Tracing;

/// <summary>An open function of the trace; disposing closes it. The default value does nothing.</summary>
public readonly ref struct FunctionTraceScope
{
    private readonly FunctionTraceThread? _thread;
    private readonly bool _isContext;

    internal FunctionTraceScope(FunctionTraceThread thread, bool isContext)
    {
        _thread = thread;
        _isContext = isContext;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void Dispose()
    {
        if (_thread is null) return;
        if (_isContext) _thread.Pop(); else _thread.Exit();
    }
}
