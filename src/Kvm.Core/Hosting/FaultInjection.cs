using System.Runtime.CompilerServices;

namespace Kvm.Core;

/// <summary>
/// Makes named points of the kernel model fail on their n-th use. Points are "kind" or "kind:tag" ("alloc_page", "kmem_cache_zalloc:kvm_vcpu",
/// "get_unused_fd", "vmxon"…); a rule for "kind" matches every tag of it.
/// </summary>
/// <remarks>Costs one bool test per point while no rule and no observer is set.</remarks>
public sealed class FaultInjection
{
    private sealed class Rule
    {
        public required string Point;
        public required long Nth;
        public required long Times;
        public long Seen;
        public long Hits;
    }

    private readonly object _gate = new();
    private readonly List<Rule> _rules = [];
    private readonly Dictionary<string, Action<string>> _hooks = [];
    private readonly Dictionary<string, long> _counts = [];
    private volatile bool _armed;
    private bool _counting;

    /// <summary>The point fails on its <paramref name="nth"/> use from now (1 = the next), for <paramref name="times"/> uses.</summary>
    public void Fail(string point, long nth = 1, long times = 1)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(nth, 1);
        lock (_gate)
        {
            _rules.Add(new Rule { Point = point, Nth = nth, Times = times });
            _armed = true;
        }
    }

    /// <summary>The point fails on every use from now.</summary>
    public void FailAlways(string point) => Fail(point, 1, long.MaxValue);

    /// <summary>Runs <paramref name="hook"/> whenever the point is reached, before it is decided whether it fails: races by forced schedule.</summary>
    public void OnReached(string point, Action<string>? hook)
    {
        lock (_gate)
        {
            if (hook is null) _hooks.Remove(point); else _hooks[point] = hook;
            _armed = _rules.Count > 0 || _hooks.Count > 0 || _counting;
        }
    }

    /// <summary>Counts uses of every point from now, for <see cref="Counts"/>.</summary>
    public void StartCounting()
    {
        lock (_gate)
        {
            _counts.Clear();
            _counting = true;
            _armed = true;
        }
    }

    /// <summary>Uses per full point name since <see cref="StartCounting"/>.</summary>
    public IReadOnlyDictionary<string, long> Counts
    {
        get { lock (_gate) return new Dictionary<string, long>(_counts); }
    }

    /// <summary>Failures that were injected so far by rules still known.</summary>
    public long Hits
    {
        get { lock (_gate) return _rules.Sum(r => r.Hits); }
    }

    /// <summary>Removes rules, hooks and counts.</summary>
    public void Clear()
    {
        lock (_gate)
        {
            _rules.Clear();
            _hooks.Clear();
            _counts.Clear();
            _counting = false;
            _armed = false;
        }
    }

    /// <summary>Asked by the kernel model at each point: true means behave as if it had failed.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool ShouldFail(string kind, string? tag = null) => _armed && Decide(kind, tag);

    private bool Decide(string kind, string? tag)
    {
        string full = tag is null ? kind : kind + ":" + tag;
        Action<string>? hook;
        bool fail = false;
        lock (_gate)
        {
            if (_counting) _counts[full] = _counts.GetValueOrDefault(full) + 1;
            if (!_hooks.TryGetValue(full, out hook)) _hooks.TryGetValue(kind, out hook);
            foreach (Rule rule in _rules)
            {
                if (rule.Point != full && rule.Point != kind) continue;
                rule.Seen++;
                if (rule.Seen < rule.Nth || rule.Seen - rule.Nth >= rule.Times) continue;
                rule.Hits++;
                fail = true;
            }
        }

        hook?.Invoke(full);
        return fail;
    }
}
