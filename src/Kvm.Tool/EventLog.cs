using System.Globalization;
using Kvm.Core;
using Kvm.Core.Tracing;

namespace Kvm.Tool;

/// <summary>KVM's tracepoints in the layout of ftrace's "trace" file, as they happen. Events of the model only: a real kernel has its own file.</summary>
internal sealed class EventLog : IDisposable
{
    private readonly TextWriter _output;
    private readonly Lock _gate = new();
    private readonly long _start = TimeProvider.System.GetTimestamp();

    /// <summary>Begins with the header that trace-cmd's and perf's readers expect; closes <paramref name="output"/> in the end.</summary>
    public EventLog(TextWriter output)
    {
        _output = output;
        output.Write("# tracer: nop\n#\n#           TASK-PID     CPU#     TIMESTAMP  FUNCTION\n#              | |         |         |         |\n");
        Tracepoints.Event += Note;
    }

    public void Dispose()
    {
        Tracepoints.Event -= Note;
        lock (_gate) _output.Dispose();
    }

    private void Note(in TracepointRecord record)
    {
        HostTask? task = record.Task;
        double seconds = TimeProvider.System.GetElapsedTime(_start).TotalSeconds;
        string line = string.Create(CultureInfo.InvariantCulture, $"{task?.Name ?? "swapper",16}-{task?.Pid ?? 0,-7} [{task?.Cpu?.Id ?? 0:D3}] {seconds,12:F6}: {record.Name}: {record.Text}\n");
        lock (_gate) _output.Write(line);
    }
}
