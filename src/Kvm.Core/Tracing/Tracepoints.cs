using System.Runtime.CompilerServices;

namespace Kvm.Core.Tracing;

/// <summary>
/// Tracepoints (include/trace/events/kvm.h and the architecture's): one hook that gets the event's name and its formatted text. Callers test
/// <see cref="Enabled"/> before they format anything.
/// </summary>
public static class Tracepoints
{
    private static TracepointHandler? s_handler;

    /// <summary>True while someone listens: <c>if (Tracepoints.Enabled) Tracepoints.Emit("kvm_entry", $"vcpu {id}, …");</c></summary>
    public static bool Enabled
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => s_handler is not null;
    }

    /// <summary>Adds or removes a listener. Listeners run on the thread of the event and must not call back into the model.</summary>
    public static event TracepointHandler Event
    {
        add => Combine(value, add: true);
        remove => Combine(value, add: false);
    }

    /// <summary>Hands an event to the listeners; text without the event's name, in the kernel's TP_printk format.</summary>
    public static void Emit(string name, string text) => s_handler?.Invoke(new TracepointRecord(name, text, HostTask.CurrentOrNull));

    /// <summary>The same with text that is formatted into an object: a caller's frame stays small while nobody listens.</summary>
    public static void Emit(string name, TracepointText text) => Emit(name, text.ToString());

    private static void Combine(TracepointHandler value, bool add)
    {
        TracepointHandler? old, next;
        do
        {
            old = Volatile.Read(ref s_handler);
            next = add ? (TracepointHandler)Delegate.Combine(old, value) : (TracepointHandler?)Delegate.Remove(old, value);
        }
        while (Interlocked.CompareExchange(ref s_handler, next, old) != old);
    }
}
