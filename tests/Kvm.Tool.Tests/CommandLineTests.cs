namespace Kvm.Tool.Tests;

public class CommandLineTests
{
    [Theory]
    [InlineData("run", "--kernel")]
    [InlineData("run --kernel x --memory 3x", "--memory 3x")]
    [InlineData("run --kernel x --memory 1M", "--memory 1M")]
    [InlineData("run --kernel x --entry 8", "8")]
    [InlineData("run --kernel x --backend cloud", "cloud")]
    [InlineData("trace nonsense", "nonsense")]
    [InlineData("nonsense", "nonsense")]
    public void Wrong_command_line_is_named_and_exits_with_2(string arguments, string named)
    {
        ToolRun run = ToolRun.Of(arguments.Split(' '));
        run.ExitCode.Should().Be(ExitCode.Usage);
        run.Errors.Should().Contain(named).And.NotContain("   at ", "no stack traces");
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
    public void Unknown_processor_is_answered_with_the_known_ones()
    {
        ToolRun run = ToolRun.Of("trace", "run", "--cpu", "z80");
        run.ExitCode.Should().Be(ExitCode.Usage);
        run.Errors.Should().Contain("z80").And.Contain("intel").And.Contain("amd-zen");
    }

    [Fact]
    public void Help_lists_the_commands_and_the_exit_codes()
    {
        ToolRun run = ToolRun.Of("--help");
        run.ExitCode.Should().Be(0);
        run.Output.Should().Contain("run").And.Contain("trace").And.Contain("doctor").And.Contain("Exit codes");
    }

    [Theory]
    [InlineData("512M", 512UL << 20)]
    [InlineData("2g", 2UL << 30)]
    [InlineData("64k", 64UL << 10)]
    [InlineData("4096", 4096UL)]
    public void Sizes_are_read(string text, ulong bytes)
    {
        Sizes.TryParse(text, out ulong parsed).Should().BeTrue();
        parsed.Should().Be(bytes);
    }

    [Theory]
    [InlineData("")]
    [InlineData("M")]
    [InlineData("0")]
    [InlineData("-1M")]
    [InlineData("1T")]
    [InlineData("1.5G")]
    [InlineData("99999999999999G")]
    public void Nonsense_is_no_size(string text) => Sizes.TryParse(text, out _).Should().BeFalse();
}
