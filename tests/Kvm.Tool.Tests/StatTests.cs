using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Tool.Tests;

public class StatTests
{
    /// <summary>CPUID five times, a port four times, then out with exit code 3.</summary>
    private static void Program(Assembler c)
    {
        for (int i = 0; i < 5; i++)
        {
            c.xor(eax, eax);
            c.cpuid();
        }

        for (int i = 0; i < 4; i++) c.@out(0x80, al);
        c.mov(al, 1);
        c.@out(0xf4, al);
        c.hlt();
    }

    [Theory]
    [InlineData("intel", "CPUID", "IO_INSTRUCTION")]
    [InlineData("amd", "cpuid", "io")]
    public void Exits_are_told_by_reason_and_time(string cpu, string cpuid, string io)
    {
        using var guest = new MultibootGuest(Program);
        ToolRun run = ToolRun.Of("stat", "--kernel", guest.Path, "--cpu", cpu);
        run.ExitCode.Should().Be(3, run.Errors);
        run.Errors.Should().MatchRegex(@"kvm: \d+ VM exits, \d+\.\d\d s outside the guest:\n")
            .And.MatchRegex($@"kvm: {cpuid} +5 +\d+\.\d% +\d+\.\d% +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d\n")
            .And.MatchRegex($@"kvm: {io} +\d+ ").And.MatchRegex(@"kvm: +\d+ io_exits\n");
    }

    [Fact]
    public void Trace_file_has_the_events_in_order()
    {
        using var guest = new MultibootGuest(Program);
        string file = Path.GetTempFileName();
        try
        {
            ToolRun.Of("run", "--kernel", guest.Path, "--trace", file).ExitCode.Should().Be(3);
            string[] lines = File.ReadAllLines(file);
            lines[0].Should().Be("# tracer: nop");
            lines.Where(static l => l[0] != '#').Should().OnlyContain(static l => System.Text.RegularExpressions.Regex.IsMatch(l, @"^ *\S+-\d+ +\[\d{3}\] +\d+\.\d{6}: \w+: "));
            string[] exits = [.. lines.Where(static l => l.Contains(": kvm_exit: ") && l.Contains("CPUID"))];
            exits.Should().HaveCount(5);
            lines.Where(static l => l.Contains(": kvm_cpuid: func 0 ")).Should().HaveCount(5);
            lines.Should().Contain(static l => l.Contains("kvm_userspace_exit: reason KVM_EXIT_IO (2)"));
        }
        finally
        {
            File.Delete(file);
        }
    }

    [Fact]
    public void Real_kernels_have_their_own_trace_files()
    {
        using var guest = new MultibootGuest(Program);
        ToolRun run = ToolRun.Of("stat", "--kernel", guest.Path, "--backend", "native");
        run.ExitCode.Should().Be(ExitCode.Usage);
        run.Errors.TrimEnd().Should().NotContain("\n").And.Contain("/sys/kernel/tracing");
        ToolRun.Of("run", "--kernel", guest.Path, "--trace", "no/such/file").Errors.Should().Be("kvm: cannot write the trace no/such/file: no such directory\n");
    }
}
