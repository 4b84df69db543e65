using Kvm.Core;

namespace Kvm.Conformance.Tests.BadInput;

/// <summary>The descriptors that the threads of a storm share, and memory for guests. Everybody takes any of them at any time.</summary>
internal sealed class StormDescriptors : IDisposable
{
    public const ulong RamSize = 16 << 20;
    private const int Most = 48;

    private readonly HostProcess _process;
    private readonly Lock _gate = new();
    private readonly List<(string Kind, int Fd)> _open = [];

    public StormDescriptors(HostProcess process)
    {
        _process = process;
        Ram = process.MapAnonymous(RamSize);
        Add("system", process.Open("/dev/kvm"));
    }

    /// <summary>Where the guests' memory is.</summary>
    public ulong Ram { get; }

    /// <summary>Room for another one; too many only make each used less.</summary>
    public bool Full
    {
        get { lock (_gate) return _open.Count >= Most; }
    }

    public void Add(string kind, KvmResult result)
    {
        if (result.IsError) return;
        lock (_gate) _open.Add((kind, result.Value));
    }

    /// <summary>One of the kind, or -1.</summary>
    public int Any(Random random, string kind)
    {
        lock (_gate)
        {
            (string Kind, int Fd)[] all = [.. _open.Where(o => o.Kind == kind)];
            return all.Length == 0 ? -1 : all[random.Next(all.Length)].Fd;
        }
    }

    /// <summary>Closes any but the last of the system's.</summary>
    public void CloseAny(Random random)
    {
        int fd;
        lock (_gate)
        {
            int at = random.Next(_open.Count);
            if (_open[at].Kind == "system" && _open.Count(static o => o.Kind == "system") == 1) return;
            fd = _open[at].Fd;
            _open.RemoveAt(at);
        }

        _process.Close(fd);
    }

    public void Dispose()
    {
        // Also those that an argument made which nobody understood.
        foreach (int fd in _process.Files.Open) _process.Close(fd);
        _process.Munmap(Ram, RamSize);
        foreach (Vma left in _process.Mm.Vmas.ToArray()) _process.Munmap(left.Start, left.Length);
    }
}
