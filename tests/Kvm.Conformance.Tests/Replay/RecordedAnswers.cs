using Kvm.Abi;
using Kvm.Client;
using Xunit.Abstractions;

namespace Kvm.Conformance.Tests.Replay;

/// <summary>The recordings of real kernels, replayed: 6.18 on this host's own /dev/kvm, which tells whether the replayer itself is right.</summary>
public class RecordedAnswers(ITestOutputHelper output)
{
    [SkippableFact]
    public void Native_6_18()
    {
        try
        {
            KvmSystem.Open(KvmBackend.Native).Dispose();
        }
        catch (KvmException e)
        {
            Skip.If(true, $"no usable /dev/kvm on this host: {e.Message}");
        }

        int passed = 0;
        var failures = new List<string>();
        foreach (Scenario scenario in Scenario.Load("6.18").Where(s => s.Portable))
        {
            ReplayResult result = Replayer.Replay(scenario, () => KvmBackend.Native);
            if (result.Unsupported is not null) output.WriteLine($"{scenario.Name}: {result}");
            else if (!result.Passed) failures.Add($"{scenario.Name}: {result}");
            else passed++;
        }

        output.WriteLine($"{passed} scenarios agree");
        failures.Should().BeEmpty();
        passed.Should().BeGreaterThan(200);
    }
}
