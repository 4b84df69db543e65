using System.Runtime.CompilerServices;

namespace Kvm.Core.Tracing;

/// <summary>
/// The function graph: entries and exits of <see cref="KernelFunctionAttribute"/> methods, per task and CPU, printed like ftrace's function_graph.
/// </summary>
/// <remarks>One static bool test per function while off. Sessions of different hosts may run side by side.</remarks>
public static class FunctionTrace
{
    private static readonly object s_gate = new();
    private static bool s_enabled;
    private static FunctionTraceSession[] s_sessions = [];

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

    /// <summary>Functions that the calling thread is in, the innermost first; none while off.</summary>
    internal static IEnumerable<string> OpenFunctions => s_enabled && Thread() is { } thread ? thread.OpenFunctions : [];

    /// <summary>What is recorded until dispose belongs to another CPU's own context (an interrupt there), not to the caller's tree.</summary>
    internal static FunctionTraceScope OnOtherCpu(HostCpu cpu, string? title = null)
    {
        if (!s_enabled || Thread() is not { } thread) return default;
        thread.Push(title ?? $"task idle cpu{cpu.Id}");
        return new FunctionTraceScope(thread, isContext: true);
    }

    /// <summary>Starts recording; only threads inside <paramref name="host"/> when it is given. Dispose (or <see cref="Stop()"/>) ends it.</summary>
    public static FunctionTraceSession Start(Host? host = null)
    {
        lock (s_gate)
        {
            var session = new FunctionTraceSession(host);
            s_sessions = [.. s_sessions, session];
            s_enabled = true;
            return session;
        }
    }

    /// <summary>Stops the session that was started last; it keeps what it has. Null when none runs.</summary>
    public static FunctionTraceSession? Stop()
    {
        lock (s_gate)
        {
            if (s_sessions.Length == 0) return null;
            FunctionTraceSession session = s_sessions[^1];
            Stop(session);
            return session;
        }
    }

    internal static void Stop(FunctionTraceSession session)
    {
        lock (s_gate)
        {
            s_sessions = [.. s_sessions.Where(s => s != session)];
            s_enabled = s_sessions.Length > 0;
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
        Host? host = HostTask.CurrentOrNull?.Host;
        FunctionTraceSession? session = null;
        foreach (FunctionTraceSession s in s_sessions)
        {
            if (s.Host is null || s.Host == host) session = s;
        }

        if (session is null) return null;
        FunctionTraceThread? thread = t_thread;
        if (thread is null || thread.Session != session) t_thread = thread = session.NewThread();
        return thread;
    }
}
