using System.Diagnostics;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Tool.Tests;

/// <summary><c>kvm run</c>: how a guest's end, the user and the output end the command.</summary>
public class RunTests
{
    public static TheoryData<string> Cpus => ["intel", "amd"];

    [Theory, MemberData(nameof(Cpus))]
    public void Guest_that_prints_and_halts_gives_0(string cpu)
    {
        using var guest = new MultibootGuest(c =>
        {
            foreach (char letter in "hi\n")
            {
                c.mov(dx, 0x3f8);
                c.mov(al, (sbyte)letter);
                c.@out(dx, al);
            }

            c.hlt();
        });
        ToolRun run = Run(guest, cpu);
        run.ExitCode.Should().Be(ExitCode.Success, run.Errors);
        run.Output.Should().Be("hi\n");
        run.Errors.Should().StartWith("kvm: model, ").And.Contain("guest halted");
    }

    /// <summary>(v &lt;&lt; 1) | 1.</summary>
    [Theory, MemberData(nameof(Cpus))]
    public void Debug_exit_gives_the_guest_s_number(string cpu)
    {
        using var guest = new MultibootGuest(c =>
        {
            c.mov(al, 21);
            c.@out(0xf4, al);
            c.hlt();
        });
        Run(guest, cpu).ExitCode.Should().Be(43);
    }

    [Theory, MemberData(nameof(Cpus))]
    public void Triple_fault_is_a_crash(string cpu)
    {
        using var guest = new MultibootGuest(c => c.ud2());
        ToolRun run = Run(guest, cpu);
        run.ExitCode.Should().Be(ExitCode.GuestCrashed);
        run.Errors.Should().Contain("triple fault");
    }

    /// <summary>Real-mode code that gives up prints through the BIOS, which has no serial port.</summary>
    [Theory, MemberData(nameof(Cpus))]
    public void What_the_bios_was_told_to_print_is_shown_where_nothing_else_was(string cpu)
    {
        using var guest = new MultibootGuest(c =>
        {
            Label again = c.CreateLabel();
            foreach (char letter in "no\r\ncpu")
            {
                c.mov(al, (sbyte)letter);
                c.@out(0xe9, al);
            }

            c.mov(ecx, 10000);
            c.Label(ref again);
            c.@out(0xe9, al);
            c.loop(again);
            c.hlt();
        });
        ToolRun run = Run(guest, cpu);
        run.ExitCode.Should().Be(ExitCode.Success, run.Errors);
        run.Output.Should().BeEmpty();
        run.Errors.Should().StartWith("kvm: the guest printed through its BIOS: no cpuuuu");
        run.Errors.Length.Should().BeLessThan(5000, "a guest must not fill the memory");
    }

    [Theory, MemberData(nameof(Cpus))]
    public void Reset_gives_10(string cpu)
    {
        using var guest = new MultibootGuest(c =>
        {
            c.mov(al, unchecked((sbyte)0xfe));
            c.@out(0x64, al);
            c.hlt();
        });
        ToolRun run = Run(guest, cpu);
        run.ExitCode.Should().Be(ExitCode.Reset, run.Errors);
        run.Errors.Should().Contain("reset");
    }

    [Theory, MemberData(nameof(Cpus))]
    public void Timeout_gives_6_and_the_counters_are_shown(string cpu)
    {
        using var guest = new MultibootGuest(PrintForEver);
        ToolRun run = Run(guest, cpu, "--timeout", "1.5", "--stats");
        run.ExitCode.Should().Be(ExitCode.TimedOut, run.Errors);
        run.Errors.Should().Contain("stopped after 1.5 s").And.MatchRegex(@"kvm: +\d+ KVM_EXIT_IO\n").And.MatchRegex(@"kvm: +\d+ io_exits\n");
        run.Output.Should().StartWith("x");
    }

    /// <summary>What the runtime does not change when it finds it so.</summary>
    private static bool IgnoresInterrupts => File.Exists("/proc/self/status") && File.ReadLines("/proc/self/status")
        .First(static l => l.StartsWith("SigIgn:", StringComparison.Ordinal)) is var line && (Convert.ToUInt64(line[7..].Trim(), 16) >> 1 & 1) != 0;

    [SkippableTheory]
    [InlineData("INT")]
    [InlineData("TERM")]
    public void Signal_stops_the_guest(string signal)
    {
        Skip.If(OperatingSystem.IsWindows(), "signals are sent with kill");
        Skip.If(signal == "INT" && IgnoresInterrupts, "SIGINT is ignored here, as in a shell's background jobs, and every child inherits that");
        using var guest = new MultibootGuest(PrintForEver);
        using Process process = ToolRun.Start(["run", "--kernel", guest.Path]);
        process.StandardOutput.Read().Should().Be('x'); // it runs, so the signal is handled
        Task<string> rest = process.StandardOutput.ReadToEndAsync(), errors = process.StandardError.ReadToEndAsync();
        Process.Start("kill", [$"-{signal}", $"{process.Id}"]).WaitForExit();
        process.WaitForExit(TimeSpan.FromMinutes(1)).Should().BeTrue();
        process.ExitCode.Should().Be(ExitCode.TimedOut);
        errors.Result.Should().Contain("stopped by the user");
        rest.Result.Should().NotBeNull();
    }

    [SkippableFact]
    public void Closed_pipe_ends_the_guest()
    {
        Skip.If(OperatingSystem.IsWindows(), "the console's own stream is used there");
        using var guest = new MultibootGuest(PrintForEver);
        using Process process = ToolRun.Start(["run", "--kernel", guest.Path]);
        process.StandardOutput.Read().Should().Be('x');
        process.StandardOutput.Close();
        process.WaitForExit(TimeSpan.FromMinutes(1)).Should().BeTrue("nobody reads what it prints");
        process.ExitCode.Should().Be(ExitCode.BadFile);
        process.StandardError.ReadToEnd().Should().Be("kvm: cannot write to standard output: nobody reads it any more\n");
    }

    [SkippableTheory]
    [InlineData("run --kernel {0}")]
    [InlineData("trace run")]
    [InlineData("demo")]
    [InlineData("--help")]
    public void Full_disk_is_one_line(string arguments)
    {
        Skip.IfNot(File.Exists("/dev/full"), "there is no /dev/full");
        using var guest = new MultibootGuest(PrintForEver);
        using Process shell = ToolRun.StartShell($"{string.Format(System.Globalization.CultureInfo.InvariantCulture, arguments, guest.Path)} > /dev/full");
        string errors = shell.StandardError.ReadToEnd();
        shell.WaitForExit(TimeSpan.FromMinutes(1)).Should().BeTrue();
        shell.ExitCode.Should().Be(ExitCode.BadFile);
        errors.Should().StartWith("kvm: cannot write to standard output: ").And.Match(e => e.TrimEnd().Split('\n').Length == 1);
    }

    /// <summary>With the kernel's interrupt controllers a halted processor waits in the kernel, with interrupts off for ever: the VMM's own let HLT exit.</summary>
    private static ToolRun Run(MultibootGuest guest, string cpu, params string[] more) =>
        ToolRun.Of(["run", "--irqchip", "user", "--kernel", guest.Path, "--cpu", cpu, "--memory", "4M", .. more]);

    private static void PrintForEver(Assembler c)
    {
        Label again = c.CreateLabel();
        c.mov(dx, 0x3f8);
        c.mov(al, (sbyte)'x');
        c.Label(ref again);
        c.@out(dx, al);
        c.jmp(again);
    }
}
