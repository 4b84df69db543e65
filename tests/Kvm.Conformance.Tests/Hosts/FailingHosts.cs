using Xunit.Abstractions;

namespace Kvm.Conformance.Tests.Hosts;

/// <summary>Machines whose firmware, processor or loaded modules are in the way of KVM: the model answers as each did, with the same messages.</summary>
public sealed class FailingHosts(ITestOutputHelper output)
{
    public static TheoryData<string> Logs => [.. HostCase.All.Select(static c => c.Log)];

    [Theory]
    [MemberData(nameof(Logs))]
    public void As_recorded(string log)
    {
        IReadOnlyList<ConsoleCheck> checks = ConsoleReplay.Of(HostCase.All.Single(c => c.Log == log));
        foreach (ConsoleCheck check in checks.Where(static c => !c.Same))
            output.WriteLine($"{check.Command}: recorded '{check.Recorded}', model '{check.Model}'");
        checks.Where(c => !c.Same && ConsoleDifference.Of(log, c) is null).Should().BeEmpty();
    }

    [Fact]
    public void Every_known_difference_is_still_there()
    {
        var seen = HostCase.All.SelectMany(static h => ConsoleReplay.Of(h).Where(static c => !c.Same).Select(c => ConsoleDifference.Of(h.Log, c)?.Id)).ToHashSet();
        ConsoleDifference.All.Should().OnlyContain(d => seen.Contains(d.Id));
    }

    [Fact]
    public void Every_recorded_console_is_replayed() =>
        Directory.GetFiles(Path.Combine(AppContext.BaseDirectory, "Data", "hosts")).Select(Path.GetFileNameWithoutExtension).Should().BeEquivalentTo(HostCase.All.Select(static c => c.Log));
}
