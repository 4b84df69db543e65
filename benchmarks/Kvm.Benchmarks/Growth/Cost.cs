using System.Runtime.InteropServices;

namespace Kvm.Benchmarks.Growth;

/// <summary>What an action costs: processor time of the calling thread (not of the compiler's and the collector's), the least of several slices, as machines are shared.</summary>
internal static unsafe partial class Cost
{
    private const int CLOCK_THREAD_CPUTIME_ID = 3;

    /// <summary>Nanoseconds of one of <paramref name="times"/> that <paramref name="action"/> does when it is told to do so many.</summary>
    public static double Nanoseconds(int slices, int times, Action<int> action)
    {
        double least = double.MaxValue;
        for (int i = 0; i < slices; i++) least = Math.Min(least, Once(() => action(times)) / times);
        return least;
    }

    /// <summary>Nanoseconds of processor time.</summary>
    public static double Once(Action action)
    {
        long before = Now();
        action();
        return Now() - before;
    }

    private static long Now()
    {
        long* time = stackalloc long[2];
        _ = clock_gettime(CLOCK_THREAD_CPUTIME_ID, time);
        return time[0] * 1_000_000_000 + time[1];
    }

    [LibraryImport("libc")]
    private static partial int clock_gettime(int clock, long* time);
}
