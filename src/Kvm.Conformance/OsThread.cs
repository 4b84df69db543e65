using System.Globalization;

namespace Kvm.Conformance;

/// <summary>A thread of this process as the operating system sees it: a recorded machine had a core for it, this one may have none for a while.</summary>
internal sealed class OsThread
{
    private readonly string? _folder;
    private readonly long _usedAtFirst;
    private long _usedBefore = -1;

    private OsThread(string? folder)
    {
        _folder = folder;
        _usedAtFirst = Used();
    }

    /// <summary>The calling thread. Where the operating system tells nothing (other than Linux), it always seems to have come far enough.</summary>
    public static OsThread Current()
    {
        string? self = OperatingSystem.IsLinux() ? new FileInfo("/proc/thread-self").LinkTarget : null;
        return new OsThread(self is null ? null : "/proc/" + self);
    }

    /// <summary>
    /// Whether it has run for so long since it was looked up, or sleeps and has not run since the last time this was asked: it waits for something. Or it has ended.
    /// </summary>
    public bool HasHad(TimeSpan time)
    {
        try
        {
            long used = Used();
            bool still = used == _usedBefore && Sleeps();
            _usedBefore = used;
            return _folder is null || still || used - _usedAtFirst >= time.TotalNanoseconds;
        }
        catch (IOException)
        {
            return true; // no such thread
        }
    }

    private long Used() => _folder is null ? 0 : long.Parse(File.ReadAllText(_folder + "/schedstat").Split(' ')[0], CultureInfo.InvariantCulture);

    private bool Sleeps()
    {
        string stat = File.ReadAllText(_folder + "/stat");
        return stat[stat.LastIndexOf(')') + 2] is 'S' or 'D';
    }
}
