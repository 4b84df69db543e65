namespace Kvm.Core;

/// <summary>A function to run on another CPU (struct call_single_data).</summary>
internal sealed class CpuCall(Action<object?> function, object? argument)
{
    private const int Queued = 0;
    private const int Running = 1;
    private const int Finished = 2;
    private int _state;

    public Exception? Error { get; private set; }

    public bool Done => Volatile.Read(ref _state) == Finished;

    /// <summary>Runs it unless it was cancelled.</summary>
    public void Run()
    {
        if (Interlocked.CompareExchange(ref _state, Running, Queued) != Queued) return;
        try
        {
            function(argument);
        }
        catch (Exception e)
        {
            Error = e;
        }
        finally
        {
            Volatile.Write(ref _state, Finished);
        }
    }

    /// <summary>Withdraws a call that has not started: its CPU went offline.</summary>
    public bool Cancel() => Interlocked.CompareExchange(ref _state, Finished, Queued) == Queued;
}
