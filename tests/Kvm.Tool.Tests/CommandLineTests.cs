namespace Kvm.Tool.Tests;

public class CommandLineTests
{
    /// <summary>One line that names what was wrong, one that says where to look.</summary>
    [Theory]
    [InlineData("run", "nothing to run: give a kernel with --kernel, firmware with --firmware, or a saved machine with --restore", "kvm run --help")]
    [InlineData("run --kernel x --vars y", "--vars is for firmware", "kvm run --help")]
    [InlineData("run --kernel x --debugcon y", "--debugcon is for firmware", "kvm run --help")]
    [InlineData("run --kernel x --fw-cfg a=b", "--fw-cfg is for firmware", "kvm run --help")]
    [InlineData("run --firmware x --fw-cfg a", "--fw-cfg a: not a name, '=' and a file", "kvm run --help")]
    [InlineData("run --firmware x --fw-cfg =b", "--fw-cfg =b: not a name, '=' and a file", "kvm run --help")]
    [InlineData("run --firmware x --fw-cfg a=b --fw-cfg a=c", "--fw-cfg a=c: that name was given before", "kvm run --help")]
    [InlineData("run --bios x --fw-cfg etc/this-name-has-too-many-characters-to-be-in-the-directory=b", "the name has more than 55 ASCII characters", "kvm run --help")]
    [InlineData("run --kernel", "--kernel", "kvm run --help")]
    [InlineData("run --kernel x --memory 3x", "--memory 3x: not a memory size", "kvm run --help")]
    [InlineData("run --kernel x --memory 3M", "--memory 3M: too little", "kvm run --help")]
    [InlineData("run --kernel x --memory 4097K", "--memory 4097K: not whole pages", "kvm run --help")]
    [InlineData("run --kernel x --memory 4096T", "--memory 4096T: too much", "kvm run --help")]
    [InlineData("run --kernel x --memory -5", "--memory -5: not a memory size", "kvm run --help")]
    [InlineData("run --kernel x --entry 8", "--entry 8: not one of 64, 32, 16", "kvm run --help")]
    [InlineData("run --kernel x --backend cloud", "--backend cloud: not one of model, native", "kvm run --help")]
    [InlineData("run --kernel x --hyperv --irqchip user", "--hyperv: its timers need the kernel's interrupt controllers; leave out --irqchip user", "kvm run --help")]
    [InlineData("run --kernel x --irqchip none", "--irqchip none: not one of auto, kernel, user", "kvm run --help")]
    [InlineData("run --kernel x --timeout soon", "--timeout soon: not a number of seconds", "kvm run --help")]
    [InlineData("run --kernel x --timeout -3", "--timeout -3: not a number of seconds", "kvm run --help")]
    [InlineData("run --kernel x --timeout NaN", "--timeout NaN: not a number of seconds", "kvm run --help")]
    [InlineData("run --kernel x --timeout 604801", "--timeout 604801: not a number of seconds from 0 to 604800", "kvm run --help")]
    [InlineData("run --kernel x --bogus", "--bogus", "kvm run --help")]
    [InlineData("trace", "'trace'", "kvm trace --help")]
    [InlineData("trace nonsense", "trace nonsense: not one of create-vm, create-vcpu, run", "kvm trace --help")]
    [InlineData("trace run --cpus 0", "--cpus 0: not a number from 1 to 64", "kvm trace --help")]
    [InlineData("trace run --cpus 65", "--cpus 65: not a number from 1 to 64", "kvm trace --help")]
    [InlineData("doctor extra", "extra", "kvm doctor --help")]
    [InlineData("nonsense", "nonsense", "kvm --help")]
    public void Wrong_command_line_is_named_and_exits_with_2(string arguments, string named, string help)
    {
        ToolRun run = ToolRun.Of(arguments.Split(' '));
        run.ExitCode.Should().Be(ExitCode.Usage);
        string[] lines = run.Errors.TrimEnd().Split('\n');
        lines.Should().OnlyContain(l => l.StartsWith("kvm: ", StringComparison.Ordinal), "no stack traces");
        lines[0].Should().Contain(named);
        lines[^1].Should().Be($"kvm: try {help}");
        run.Output.Should().BeEmpty();
    }

    [Fact]
    public void Missing_kernel_is_named_with_what_to_do()
    {
        ToolRun run = ToolRun.Of("run", "--kernel", "no/such/vmlinuz");
        run.ExitCode.Should().Be(ExitCode.BadFile);
        run.Errors.TrimEnd().Should().NotContain("\n").And.Contain("no/such/vmlinuz").And.Contain("fetch-kernel.sh");
    }

    [Fact]
    public void File_that_is_no_kernel_is_named_with_the_reason()
    {
        string file = Path.GetTempFileName();
        try
        {
            File.WriteAllText(file, new string('x', 4096));
            ToolRun run = ToolRun.Of("run", "--kernel", file);
            run.ExitCode.Should().Be(ExitCode.BadFile);
            run.Errors.TrimEnd().Should().NotContain("\n").And.Contain(file).And.Contain("not a bzImage");
        }
        finally
        {
            File.Delete(file);
        }
    }

    [Fact]
    public void Missing_firmware_is_named_with_what_to_do()
    {
        ToolRun run = ToolRun.Of("run", "--firmware", "no/such/bios.bin");
        run.ExitCode.Should().Be(ExitCode.BadFile);
        run.Errors.TrimEnd().Should().NotContain("\n").And.Contain("no/such/bios.bin").And.Contain("samples/firmware/fetch.sh");
    }

    [Theory]
    [InlineData(4096, 'x', "4096 bytes")]
    [InlineData(65537, 'x', "65537 bytes")]
    [InlineData(131072, '\0', "blank")]
    public void File_that_is_no_firmware_is_named_with_the_reason(int size, char fill, string reason)
    {
        string file = Path.GetTempFileName();
        try
        {
            File.WriteAllText(file, new string(fill, size));
            ToolRun run = ToolRun.Of("run", "--firmware", file);
            run.ExitCode.Should().Be(ExitCode.BadFile);
            run.Errors.TrimEnd().Should().NotContain("\n").And.Contain(file).And.Contain("not a firmware image").And.Contain(reason);
        }
        finally
        {
            File.Delete(file);
        }
    }

    /// <summary>The firmware's other files: what can't be read or written is named before anything runs.</summary>
    [Theory]
    [InlineData("--vars", "no/such/vars.fd", "cannot read the variables")]
    [InlineData("--fw-cfg", "etc/x=no/such/file", "cannot read the file for --fw-cfg")]
    [InlineData("--debugcon", "no/such/folder/log", "cannot write the debug output")]
    [InlineData("--kernel", "no/such/vmlinuz", "cannot read the kernel")]
    public void Files_beside_the_firmware_are_checked_too(string option, string value, string message)
    {
        string file = Path.GetTempFileName();
        try
        {
            File.WriteAllText(file, new string('x', 65536));
            ToolRun run = ToolRun.Of("run", "--firmware", file, option, value);
            run.ExitCode.Should().Be(ExitCode.BadFile);
            run.Errors.TrimEnd().Should().NotContain("\n").And.Contain(message).And.Contain("no/such/");
        }
        finally
        {
            File.Delete(file);
        }
    }

    [Fact]
    public void Unknown_processor_is_answered_with_the_known_ones()
    {
        ToolRun run = ToolRun.Of("trace", "run", "--cpu", "z80");
        run.ExitCode.Should().Be(ExitCode.Usage);
        run.Errors.Should().Contain("z80").And.Contain("intel").And.Contain("amd-zen");
    }

    [Theory]
    [InlineData("", "no such file")]
    [InlineData("/", "it is a directory")]
    public void Kernel_that_can_not_be_read_says_why(string suffix, string reason)
    {
        string path = suffix.Length == 0 ? "no/such/vmlinuz" : Path.GetTempPath();
        ToolRun run = ToolRun.Of("run", "--kernel", path);
        run.ExitCode.Should().Be(ExitCode.BadFile);
        run.Errors.TrimEnd().Should().NotContain("\n").And.Contain(path).And.Contain(reason);
    }

    [Theory]
    [InlineData("--help", "demo", "run", "trace", "doctor", "Exit codes:", "Examples:")]
    [InlineData("run --help", "--kernel", "[default: 512M]", "How the kernel is entered", "--entry 32", "Examples:")]
    [InlineData("trace --help", "create-vm", "--fold", "Examples:")]
    [InlineData("doctor --help", "Check what works")]
    [InlineData("demo --help", "both vendors")]
    public void Help_tells(string arguments, params string[] words)
    {
        ToolRun run = ToolRun.Of(arguments.Split(' '));
        run.ExitCode.Should().Be(ExitCode.Success);
        foreach (string word in words) run.Output.Should().Contain(word);
        run.Errors.Should().BeEmpty();
    }

    /// <summary>For files and pipes: text only.</summary>
    [Theory]
    [InlineData("demo")]
    [InlineData("doctor")]
    [InlineData("trace run --cpu amd")]
    [InlineData("--help")]
    public void Redirected_output_has_no_control_codes(string arguments)
    {
        string output = ToolRun.Of(arguments.Split(' ')).Output;
        output.Should().NotBeEmpty();
        output.Where(c => char.IsControl(c) && c is not ('\n' or '\r')).Should().BeEmpty();
    }
}

