using System.Collections.Concurrent;

namespace Kvm.Core;

/// <summary>The kernel log: a ring of records with levels; what dmesg shows.</summary>
public sealed class Printk
{
    private readonly object _gate = new();
    private readonly LogRecord[] _ring;
    private readonly Host _host;
    private readonly ConcurrentDictionary<string, byte> _once = new();
    private readonly ConcurrentDictionary<string, Ratelimit> _ratelimits = new();
    private long _next;
    private long _clearedBefore;

    internal Printk(Host host, int records)
    {
        _host = host;
        _ring = new LogRecord[Math.Max(16, records)];
    }

    /// <summary>Called for every record, outside the ring's lock.</summary>
    public event Action<LogRecord>? Emitted;

    /// <summary>Adds a record. A trailing newline is dropped; embedded ones make several records.</summary>
    public void Log(LogLevel level, string text)
    {
        foreach (string line in text.TrimEnd('\n').Split('\n'))
        {
            LogRecord record;
            lock (_gate)
            {
                record = new LogRecord(_next, _host.KtimeNs, level, line);
                _ring[_next % _ring.Length] = record;
                _next++;
            }

            Emitted?.Invoke(record);
        }
    }

    public void Err(string text) => Log(LogLevel.Err, text);
    public void Warn(string text) => Log(LogLevel.Warning, text);
    public void Notice(string text) => Log(LogLevel.Notice, text);
    public void Info(string text) => Log(LogLevel.Info, text);
    public void Debug(string text) => Log(LogLevel.Debug, text);

    /// <summary>pr_*_once: only the first call with this text prints. True when it printed.</summary>
    public bool Once(LogLevel level, string text)
    {
        if (!_once.TryAdd(text, 0)) return false;
        Log(level, text);
        return true;
    }

    /// <summary>WARN_ONCE: a warning whose first occurrence (by <paramref name="key"/>) prints with the kernel's banner. Returns <paramref name="condition"/>.</summary>
    public bool WarnOnce(bool condition, string key, string text)
    {
        if (condition && _once.TryAdd("WARN:" + key, 0))
        {
            Log(LogLevel.Warning, "------------[ cut here ]------------");
            Log(LogLevel.Warning, text);
        }

        return condition;
    }

    /// <summary>
    /// pr_*_ratelimited: ten messages in five seconds from one place of the code (<paramref name="place"/>, the kernel's function); how many were held back is
    /// printed before the next one that is not. True when it printed.
    /// </summary>
    /// <remarks>lib/ratelimit.c:___ratelimit.</remarks>
    public bool Ratelimited(LogLevel level, string place, string text)
    {
        if (!_ratelimits.GetOrAdd(place, static _ => new Ratelimit()).Allows(_host.KtimeNs, out int missed)) return false;
        if (missed != 0) Log(LogLevel.Warning, $"{place}: {missed} callbacks suppressed");
        Log(level, text);
        return true;
    }

    /// <summary>struct ratelimit_state with the defaults.</summary>
    private sealed class Ratelimit
    {
        private const long intervalNs = 5_000_000_000;
        private const int burst = 10;
        private long _begin = -1;
        private int _missed;
        private int _printed;

        public bool Allows(long now, out int missed)
        {
            missed = 0;
            lock (this)
            {
                if (_begin < 0 || now - _begin > intervalNs)
                {
                    (missed, _missed, _printed, _begin) = (_missed, 0, 0, now);
                }

                if (_printed < burst)
                {
                    _printed++;
                    return true;
                }

                _missed++;
                return false;
            }
        }
    }

    /// <summary>The records still in the ring, oldest first.</summary>
    public IReadOnlyList<LogRecord> Records
    {
        get
        {
            lock (_gate)
            {
                long first = Math.Max(_clearedBefore, _next - _ring.Length);
                var list = new List<LogRecord>((int)(_next - first));
                for (long i = first; i < _next; i++) list.Add(_ring[i % _ring.Length]);
                return list;
            }
        }
    }

    /// <summary>The messages without time stamps, oldest first.</summary>
    public IEnumerable<string> Lines => Records.Select(r => r.Text);

    /// <summary>The text that dmesg prints.</summary>
    public string Dmesg() => string.Concat(Records.Select(r => r + "\n"));

    /// <summary>dmesg -C: hides what has been printed so far.</summary>
    public void Clear()
    {
        lock (_gate) _clearedBefore = _next;
    }
}
