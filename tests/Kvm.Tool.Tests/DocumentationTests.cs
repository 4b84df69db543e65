using System.Diagnostics;
using System.Text.RegularExpressions;

namespace Kvm.Tool.Tests;

/// <summary>What README.md and docs/*.md tell the reader to type and to paste works.</summary>
public partial class DocumentationTests
{
    private const string BuiltInitrd = "samples/linux/cache/initrd.img";
    private const string FetchedKernel = "samples/linux/cache/vmlinuz", FetchedFirmware = "samples/firmware/cache/";

    private static readonly string s_root = FindRoot();

    /// <summary>Programs of the README, and what they print.</summary>
    public static TheoryData<string, string> Programs => new()
    {
        { "Hello", "the guest says 4\n" },
        { "Syscalls", "0\n-EEXIST\n-ENOTTY\n-ENOMEM\n3\n0xfff0\n" },
    };

    /// <summary>The sample is what the README shows, to the letter; that it compiles is the build's business.</summary>
    [Theory, MemberData(nameof(Programs))]
    public void Program_of_the_readme_is_the_sample_and_prints_what_it_says(string sample, string output)
    {
        string source = File.ReadAllText(Path.Combine(s_root, "samples", sample, "Program.cs")).ReplaceLineEndings("\n").Trim();
        Blocks("README.md", "csharp").Should().Contain(source);
        ToolRun run = ToolRun.Program(Path.Combine(AppContext.BaseDirectory, sample + ".dll"), s_root);
        run.ExitCode.Should().Be(0, run.Errors);
        run.Output.ReplaceLineEndings("\n").Should().Be(output);
    }

    [Fact]
    public void Every_csharp_block_is_a_sample() =>
        Documents.SelectMany(d => Blocks(d, "csharp")).Should().HaveCount(Programs.Count);

    /// <summary>Lines of sh blocks, without comments.</summary>
    public static TheoryData<string, string> Commands
    {
        get
        {
            var data = new TheoryData<string, string>();
            foreach (string document in Documents)
            {
                foreach (string line in Blocks(document, "sh").SelectMany(b => b.Split('\n')))
                {
                    string command = Comment().Replace(line, "").Trim();
                    if (command.Length > 0) data.Add(document, command);
                }
            }

            return data;
        }
    }

    [SkippableTheory, MemberData(nameof(Commands))]
    public void Command_works(string document, string command)
    {
        string[] words = command.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        switch (words)
        {
            case ["dotnet", "test", var solution]: // this very run
                File.Exists(Path.Combine(s_root, solution)).Should().BeTrue(document);
                break;
            case ["dotnet", "run", "--project", var project, .. var rest]:
                Run(project, rest is ["--", .. var arguments] ? arguments : rest);
                break;
            case ["samples/linux/fetch-kernel.sh"]:
                Skip.If(OperatingSystem.IsWindows(), "there is no sh");
                Process.Start("sh", ["-n", Path.Combine(s_root, words[0])]).WaitForExit();
                File.Exists(DebianKernel.Path).Should().BeTrue("the script, or somebody, fetched it");
                break;
            case ["samples/linux/build-initramfs.sh"]:
                Skip.If(OperatingSystem.IsWindows(), "there is no sh");
                File.Exists(DebianGuest.Initrd).Should().BeTrue("the script built it");
                break;
            case ["samples/firmware/fetch.sh"]:
                Skip.If(OperatingSystem.IsWindows(), "there is no sh");
                Process.Start("sh", ["-n", Path.Combine(s_root, words[0])]).WaitForExit();
                File.Exists(DebianFirmware.Path("OVMF.fd")).Should().BeTrue("the script, or somebody, fetched it");
                break;
            case ["tests/packages.sh", ..]: // CI runs it
                File.Exists(Path.Combine(s_root, words[0])).Should().BeTrue(document);
                break;
            case ["gdb", "-ex", "'target", "remote", ..]: // DebugTests use it
                break;
            default:
                Assert.Fail($"{document} says: {command}; teach this test how to check that");
                break;
        }
    }

    private static void Run(string project, string[] arguments)
    {
        string name = Path.GetFileName(project);
        File.Exists(Path.Combine(s_root, project, name + ".csproj")).Should().BeTrue();
        string program = Path.Combine(AppContext.BaseDirectory, (name == "Kvm.Tool" ? "kvm" : name) + ".dll");
        File.Exists(program).Should().BeTrue("{0} is not among this project's references", project);
        if (arguments is [] && name == "LinuxHello") arguments = [FetchedKernel]; // its default
        string kernel = arguments.Contains(FetchedKernel) ? DebianKernel.Path : "";
        arguments = [.. arguments.Select(WithFirmware)];
        bool native = arguments.Contains("native");
        arguments = [.. arguments.Select(a => a == FetchedKernel ? kernel : a == BuiltInitrd ? DebianGuest.Initrd : a)];
        if (arguments is ["debug", ..])
        {
            // What gdb can do then is DebugTests' question.
            using Process waiting = ToolRun.Start([.. arguments, "--listen", "0"]);
            string? line = waiting.StandardError.ReadLine();
            waiting.Kill();
            line.Should().Contain("target remote ");
            return;
        }

        if (kernel.Length > 0 && name == "Kvm.Tool")
        {
            // How far the kernel comes is LinuxBootTests' question.
            ToolRun.UntilOutput("] Linux version ", TimeSpan.FromMinutes(3), arguments).Output.Should().Contain("] Linux version ");
            return;
        }

        ToolRun run = ToolRun.Program(program, s_root, arguments);
        Skip.If(native && run.ExitCode != 0 && run.Errors.Contains("open(/dev/kvm)", StringComparison.Ordinal), $"no usable /dev/kvm on this host: {run.Errors.Trim()}");
        run.ExitCode.Should().Be(0, run.Errors);
    }

    /// <summary>An argument that names a fetched file, or ends with its name, names where it is instead.</summary>
    private static string WithFirmware(string argument)
    {
        int at = argument.IndexOf(FetchedFirmware, StringComparison.Ordinal);
        return at < 0 ? argument : argument[..at] + DebianFirmware.Path(argument[(at + FetchedFirmware.Length)..]);
    }

    private static IEnumerable<string> Documents =>
        Directory.GetFiles(Path.Combine(s_root, "docs"), "*.md").Order(StringComparer.Ordinal).Select(f => "docs/" + Path.GetFileName(f)).Prepend("README.md");

    private static IEnumerable<string> Blocks(string document, string language) =>
        Fence().Matches(File.ReadAllText(Path.Combine(s_root, document)).ReplaceLineEndings("\n")).Where(m => m.Groups["language"].Value == language).Select(m => m.Groups["text"].Value.Trim());

    private static string FindRoot()
    {
        DirectoryInfo at = new(AppContext.BaseDirectory);
        while (!File.Exists(Path.Combine(at.FullName, "Kvm.sln"))) at = at.Parent!;
        return at.FullName;
    }

    [GeneratedRegex("^```(?<language>\\w+)\n(?<text>.*?)^```$", RegexOptions.Singleline | RegexOptions.Multiline)]
    private static partial Regex Fence();

    [GeneratedRegex(@"(^|\s)#.*$")]
    private static partial Regex Comment();
}
