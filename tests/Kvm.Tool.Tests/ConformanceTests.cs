using System.IO.Compression;

namespace Kvm.Tool.Tests;

public sealed class ConformanceTests : IDisposable
{
    private const string Header = """{"header":{"kernel":"6.1.0","module":"kvm_amd"}}""";

    private const string Open = """{"op":"open","path":"/dev/kvm","flags":"O_RDWR","as":"kvm","ret":"fd"}""";

    private readonly string _folder = Directory.CreateTempSubdirectory().FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private static string Version(int answer, bool portable = true) =>
        $$"""{"name":"a/version","portable":{{(portable ? "true" : "false")}},"steps":[{{Open}},{"op":"ioctl","fd":"kvm","ioctl":"KVM_GET_API_VERSION","nr":"0xae00","arg":{"int":"0x0"},"ret":{{answer}}}]}""";

    [Theory]
    [InlineData("intel")]
    [InlineData("amd")]
    [InlineData(null)]
    public void Answers_as_recorded_exit_with_0(string? cpu)
    {
        ToolRun run = ToolRun.Of(["conformance", Recording(Version(12)), .. cpu is null ? (string[])[] : ["--cpu", cpu]]);
        run.Output.Should().Contain($"kvm_amd of Linux 6.1.0, 1 scenarios, against the model, {cpu ?? "amd"}").And.Contain("1 of 1 portable scenarios agree, 0 fail");
        run.ExitCode.Should().Be(0, run.Errors);
    }

    [Fact]
    public void Another_answer_exits_with_8_and_is_named()
    {
        ToolRun run = ToolRun.Of("conformance", Recording(Version(13)));
        run.ExitCode.Should().Be(ExitCode.Differs);
        run.Output.Should().Contain("FAIL   a/version: step 1 ioctl KVM_GET_API_VERSION: expected 13, got 12").And.Contain("0 of 1 portable scenarios agree, 1 fail");
    }

    [Fact]
    public void Known_failures_do_not_count_and_say_why()
    {
        string known = Path.Combine(_folder, "known");
        File.WriteAllText(known, "svm-6.1\ta/version\tD-X\tthe version is thirteen\n");
        ToolRun run = ToolRun.Of("conformance", Recording(Version(13)), "--known", known, "--all");
        run.ExitCode.Should().Be(0);
        run.Output.Should().Contain("known  a/version: step 1").And.Contain("(D-X: the version is thirteen)").And.Contain("1 are known failures");
        run = ToolRun.Of("conformance", Recording(Version(12)), "--known", known);
        run.Output.Should().Contain("pass   a/version, although it is a known failure").And.Contain("1 passed although listed as failures");
    }

    [Fact]
    public void What_is_not_portable_is_shown_only()
    {
        ToolRun run = ToolRun.Of("conformance", Recording(Version(13, portable: false)), "--all");
        run.ExitCode.Should().Be(0);
        run.Output.Should().Contain("differs  a/version").And.Contain("0 of 1 that are not portable agree");
    }

    [Fact]
    public void Operations_that_nobody_knows_are_failures()
    {
        ToolRun run = ToolRun.Of("conformance", Recording($$"""{"name":"a/b","portable":true,"steps":[{{Open}},{"op":"levitate"}]}"""));
        run.ExitCode.Should().Be(ExitCode.Differs);
        run.Output.Should().Contain("FAIL   a/b: this runner cannot perform 'levitate' here");
    }

    [Fact]
    public void Scenarios_can_be_chosen_and_files_compressed()
    {
        string file = Path.Combine(_folder, "r.jsonl.gz");
        using (var writer = new StreamWriter(new GZipStream(File.Create(file), CompressionLevel.Fastest)))
            writer.Write($"{Header}\n{Version(12)}\n{Version(13).Replace("a/", "b/")}\n");
        ToolRun run = ToolRun.Of("conformance", file, "--only", "A/VER");
        run.ExitCode.Should().Be(0);
        run.Output.Should().Contain("1 of 1 portable");
    }

    [Theory]
    [InlineData("", "line 1: the file is empty")]
    [InlineData("hello", "line 1: ")]
    [InlineData(Header + "\n{\"name\":1}", "line 2: ")]
    [InlineData(Header + "\n[", "line 2: ")]
    public void Files_that_are_no_recordings_are_one_line(string content, string named)
    {
        string file = Path.Combine(_folder, "bad");
        File.WriteAllText(file, content);
        ToolRun run = ToolRun.Of("conformance", file);
        run.ExitCode.Should().Be(ExitCode.BadFile);
        run.Errors.TrimEnd().Should().NotContain("\n").And.StartWith($"kvm: {file}: {named}");
    }

    [Fact]
    public void Missing_files_and_processors_are_named()
    {
        ToolRun.Of("conformance", "no/such").Should().BeEquivalentTo(new ToolRun(ExitCode.BadFile, "", "kvm: no/such: there is no such file\n"));
        ToolRun run = ToolRun.Of("conformance", Recording(Version(12)), "--cpu", "sparc");
        run.ExitCode.Should().Be(ExitCode.Usage);
        run.Errors.Should().StartWith("kvm: --cpu sparc: no processor model");
        ToolRun.Of("conformance", Recording(Version(12)), "--cpu", "minimal-x86-64").ExitCode.Should().Be(ExitCode.NoKvm, "it has no virtualization");
    }

    private string Recording(string scenario)
    {
        string file = Path.Combine(_folder, "recording.jsonl");
        File.WriteAllText(file, $"{Header}\n{scenario}\n");
        return file;
    }
}
