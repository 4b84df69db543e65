using System.Globalization;
using System.Runtime.InteropServices;
using Kvm.Core;
using Kvm.Core.Tracing;

namespace Kvm.Tool;

/// <summary>VM exits by reason, and how long each kept its vCPU out of the guest: from kvm_exit to the next kvm_entry, what userspace does included.</summary>
internal sealed class VmExitTimes : IDisposable
{
    private readonly Lock _gate = new();
    private readonly Dictionary<HostTask, (string Reason, long Since)> _outside = [];
    private readonly Dictionary<string, Times> _reasons = [];

    /// <summary>Counts from now on.</summary>
    public VmExitTimes() => Tracepoints.Event += Note;

    public void Dispose() => Tracepoints.Event -= Note;

    public void Write(TextWriter output)
    {
        lock (_gate)
        {
            long exits = _reasons.Values.Sum(static t => t.Count), ticks = _reasons.Values.Sum(static t => t.Total);
            Line(output, $"{exits} VM exits, {Microseconds(ticks) / 1e6:0.00} s outside the guest:");
            Line(output, $"{"reason",-24} {"exits",10} {"share",7} {"time",7} {"min us",10} {"max us",10} {"avg us",10}");
            foreach ((string reason, Times t) in _reasons.OrderByDescending(static r => r.Value.Total))
            {
                Line(output, $"{reason,-24} {t.Count,10} {100.0 * t.Count / exits,6:0.0}% {100.0 * t.Total / Math.Max(ticks, 1),6:0.0}% {Microseconds(t.Least),10:0.00} {Microseconds(t.Most),10:0.00} {Microseconds(t.Total) / t.Count,10:0.00}");
            }
        }
    }

    private void Note(in TracepointRecord record)
    {
        if (record.Task is not { } task || record.Name is not ("kvm_exit" or "kvm_entry")) return;
        long now = TimeProvider.System.GetTimestamp();
        lock (_gate)
        {
            if (record.Name == "kvm_exit")
            {
                _outside[task] = (ReasonOf(record.Text), now);
            }
            else if (_outside.Remove(task, out (string Reason, long Since) exit))
            {
                ref Times? times = ref CollectionsMarshal.GetValueRefOrAddDefault(_reasons, exit.Reason, out _);
                (times ??= new Times()).Add(now - exit.Since);
            }
        }
    }

    /// <summary>Of "vcpu 0 reason HLT rip 0x…": HLT.</summary>
    private static string ReasonOf(string text)
    {
        const string before = "reason ";
        int from = text.IndexOf(before, StringComparison.Ordinal) + before.Length, to = text.IndexOf(" rip ", StringComparison.Ordinal);
        return text[from..to];
    }

    private static double Microseconds(long ticks) => ticks * 1e6 / TimeProvider.System.TimestampFrequency;

    private static void Line(TextWriter output, FormattableString text) => output.WriteLine("kvm: " + text.ToString(CultureInfo.InvariantCulture).TrimEnd());

    private sealed class Times
    {
        public long Count { get; private set; }

        public long Total { get; private set; }

        public long Least { get; private set; } = long.MaxValue;

        public long Most { get; private set; }

        public void Add(long ticks)
        {
            Count++;
            Total += ticks;
            Least = Math.Min(Least, ticks);
            Most = Math.Max(Most, ticks);
        }
    }
}
