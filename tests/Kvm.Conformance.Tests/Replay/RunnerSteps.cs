using System.Text.Json;
using Kvm.Client;

namespace Kvm.Conformance.Tests.Replay;

/// <summary>Operations of the recordings' format that the recordings at hand do not use, or use in one way only.</summary>
public sealed class RunnerSteps
{
    private const string Vm = """
        {"op":"open","path":"/dev/kvm","flags":"O_RDWR","as":"kvm","ret":"fd"},
        {"op":"ioctl","fd":"kvm","ioctl":"KVM_CREATE_VM","nr":"0xae01","arg":{"int":"0x0"},"as":"vm","ret":"fd"}
        """;

    private const string Extension = """{"op":"ioctl","fd":"FD","ioctl":"KVM_CHECK_EXTENSION","nr":"0xae03","arg":{"int":"0x3"},"ret":RET}""";

    /// <summary>A child's VM descriptors answer EIO, its /dev/kvm works; what it closes stays open in the parent.</summary>
    [Fact]
    public void Fork()
    {
        string child = string.Join(',', Call("kvm", "1"), Call("vm", "-1,\"errno\":\"EIO\""), """{"op":"close","fd":"vm","ret":0}""", Call("vm", "-1,\"errno\":\"EBADF\""));
        ReplayResult result = Replay($$"""{{Vm}},{"op":"fork","steps":[{{child}}]},{{Call("vm", "1")}}""");
        result.Unsupported.Should().BeNull();
        result.Differences.Should().BeEmpty();
        result.Agreed.Should().Be(7);
    }

    [Fact]
    public void Differences_in_a_forked_child_count()
    {
        Replay($$"""{{Vm}},{"op":"fork","steps":[{{Call("vm", "1")}}]}""").Differences.Should().ContainSingle().Which.Should().Contain("EIO");
    }

    /// <summary>A vCPU has three pages here; what is mapped beyond them is SIGBUS, what the protection forbids SIGSEGV.</summary>
    [Theory]
    [InlineData(12287, 1, "", true)]
    [InlineData(12288, 0, "SIGBUS", true)]
    [InlineData(12288, 0, "", false)]
    [InlineData(0, 0, "SIGSEGV", false)]
    public void Touch(int offset, int write, string signal, bool agrees)
    {
        ReplayResult result = Replay($$"""
            {{Vm}},{"op":"ioctl","fd":"vm","ioctl":"KVM_CREATE_VCPU","nr":"0xae41","arg":{"int":"0x0"},"as":"vcpu","ret":"fd"},
            {"op":"mmap","fd":"vcpu","len":65536,"prot":"rw-","flags":"shared","off":0,"as":"run","ret":"mem"},
            {"op":"touch","mem":"run","off":{{offset}},"write":{{write}},"signal":"{{signal}}"}
            """);
        result.Unsupported.Should().BeNull();
        result.Differences.Should().HaveCount(agrees ? 0 : 1);
    }

    [Fact]
    public void Touch_of_what_may_not_be_written()
    {
        Replay("""
            {"op":"mmap","fd":null,"len":4096,"prot":"r--","flags":"private|anon","off":0,"as":"m","ret":"mem"},
            {"op":"touch","mem":"m","off":0,"write":0,"signal":""},{"op":"touch","mem":"m","off":0,"write":1,"signal":"SIGSEGV"}
            """).Differences.Should().BeEmpty();
    }

    [Fact]
    public void Create_vcpus_until_fail()
    {
        string step = """{"op":"create_vcpus_until_fail","fd":"vm","created":1024,"ret":-1,"errno":"EINVAL"}""";
        Replay($"{Vm},{step}").Differences.Should().BeEmpty();
        Replay($"{Vm},{step.Replace("1024", "3").Replace("EINVAL", "EEXIST")}").Differences.Should().HaveCount(2);
    }

    private static string Call(string fd, string answer) => Extension.Replace("FD", fd).Replace("RET", answer);

    private static ReplayResult Replay(string steps) =>
        Replayer.Replay(new Scenario("test", true, JsonDocument.Parse($"[{steps}]").RootElement), () => RecordedMachine.Model("amd"));
}
