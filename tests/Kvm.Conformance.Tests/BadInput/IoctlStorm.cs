using System.Collections.Concurrent;
using System.Globalization;
using Kvm.Core;
using Xunit.Abstractions;

namespace Kvm.Conformance.Tests.BadInput;

/// <summary>
/// Several threads at once call every ioctl on descriptors of every kind, with arguments that are valid, nearly valid and noise, run guests, and close what others
/// use: no call may throw or hang, and every page comes back. KVM_TEST_CALLS and KVM_TEST_SEED make it longer and other (tests/nightly.sh).
/// </summary>
public sealed class IoctlStorm(ITestOutputHelper output)
{
    private const int Threads = 4;

    private static readonly int s_calls = int.Parse(Environment.GetEnvironmentVariable("KVM_TEST_CALLS") ?? "40000", CultureInfo.InvariantCulture);
    private static readonly int s_seed = int.Parse(Environment.GetEnvironmentVariable("KVM_TEST_SEED") ?? "20261121", CultureInfo.InvariantCulture);

    [Theory]
    [InlineData("intel")]
    [InlineData("amd")]
    public void Leaves_nothing_behind(string vendor)
    {
        using var computer = new Computer(vendor);
        computer.Process.SignalHandler = static (_, _) => { };
        // Another set of descriptors each time, so that what was closed early is followed by something whole.
        const int callsOfASession = 20_000;
        int sessions = Math.Max(1, s_calls / callsOfASession);
        var answers = new ConcurrentDictionary<string, int>();
        for (int session = 0; session < sessions; session++)
        {
            Session(computer, s_seed + 1000 * session, s_calls / sessions / Threads, answers);
            computer.ShouldHaveNoLeak();
        }

        string[] kinds = [.. answers.OrderByDescending(static a => a.Value).Select(static a => $"{a.Value} {a.Key}")];
        output.WriteLine($"{answers.Values.Sum()} calls from {Threads} threads, seed {s_seed}, {vendor}: {string.Join(", ", kinds)}");
        answers.Should().ContainKeys("ok", "EINVAL", "EFAULT", "EBADF", "EINTR", "EEXIST", "ENXIO");
    }

    private static void Session(Computer computer, int seed, int calls, ConcurrentDictionary<string, int> answers)
    {
        using var descriptors = new StormDescriptors(computer.Process);
        var errors = new ConcurrentQueue<Exception>();
        var tasks = new ConcurrentBag<HostTask>();
        StormThread[] storms = [.. Enumerable.Range(0, Threads).Select(i => new StormThread(computer.Process, descriptors, seed + i, answers))];
        Thread[] threads = [.. storms.Select(storm => new Thread(() =>
        {
            tasks.Add(computer.Process.Task);
            try
            {
                storm.Run(calls);
            }
            catch (Exception e)
            {
                errors.Enqueue(e);
            }
        }))];
        foreach (Thread thread in threads) thread.Start();
        // A guest that halts or never ends is called back; so is a thread that waits for a vCPU that runs.
        DateTime deadline = DateTime.UtcNow + TimeSpan.FromMinutes(10);
        while (threads.Any(static t => t.IsAlive) && DateTime.UtcNow < deadline)
        {
            Thread.Sleep(1);
            foreach (HostTask task in tasks) task.Send(StormThread.Signal);
        }

        string[] stuck = [.. threads.Zip(storms).Where(static t => t.First.IsAlive).Select(static t => t.Second.Doing)];
        stuck.Should().BeEmpty("every call ends");
        errors.Should().BeEmpty();
    }
}
