using System.Runtime.CompilerServices;

namespace Kvm.Core.Tracing;

/// <summary>
/// The function graph: entries and exits of <see cref="KernelFunctionAttribute"/> methods, per task and CPU, printed like ftrace's function_graph.
/// </summary>
/// <remarks>One static bool test per function while off. Start and stop are process-wide.</remarks>
public static class FunctionTrace
{
    private static readonly object s_gate = new();
    private static bool s_enabled;
    private static FunctionTraceSession? s_session;

    [ThreadStatic]
    private static FunctionTraceThread? t_thread;

    /// <summary>True while a session records.</summary>
    public static bool Enabled
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => s_enabled;
    }

    /// <summary>Records the function until the result is disposed.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static FunctionTraceScope Enter(string function) => s_enabled ? Begin(function) : default;

    /// <summary>A function without callees of interest.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Leaf(string function)
    {
        if (s_enabled) Begin(function).Dispose();
    }

    /// <summary>What is recorded until dispose belongs to another CPU's own context (an interrupt there), not to the caller's tree.</summary>
    internal static FunctionTraceScope OnOtherCpu(HostCpu cpu)
    {
        if (!s_enabled || Thread() is not { } thread) return default;
        thread.Push($"idle cpu{cpu.Id}");
        return new FunctionTraceScope(thread, isContext: true);
    }

    /// <summary>Starts recording; only threads inside <paramref name="host"/> when it is given. A session that runs is replaced.</summary>
    public static FunctionTraceSession Start(Host? host = null)
    {
        lock (s_gate)
        {
            s_session = new FunctionTraceSession(host);
            s_enabled = true;
            return s_session;
        }
    }

    /// <summary>Stops recording; the session keeps what it has.</summary>
    public static FunctionTraceSession? Stop()
    {
        lock (s_gate)
        {
            s_enabled = false;
            FunctionTraceSession? session = s_session;
            s_session = null;
            return session;
        }
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static FunctionTraceScope Begin(string function)
    {
        if (Thread() is not { } thread) return default;
        thread.Enter(function);
        return new FunctionTraceScope(thread, isContext: false);
    }

    private static FunctionTraceThread? Thread()
    {
        FunctionTraceSession? session = s_session;
        if (session is null) return null;
        if (session.Host is { } host && HostTask.CurrentOrNull?.Host != host) return null;
        FunctionTraceThread? thread = t_thread;
        if (thread is null || thread.Session != session) t_thread = thread = session.NewThread();
        return thread;
    }
}
