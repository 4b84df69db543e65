using System.Diagnostics;
using System.Globalization;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Tool.Tests;

/// <summary><c>kvm top</c> and the sockets it asks.</summary>
public class TopTests
{
    /// <summary>Writes a port again and again.</summary>
    private static void Program(Iced.Intel.Assembler c)
    {
        Iced.Intel.Label loop = c.CreateLabel();
        c.Label(ref loop);
        c.@out(0x80, al);
        c.jmp(loop);
    }

    [Fact]
    public async Task Running_guests_are_listed_with_their_exits_a_second()
    {
        using var guest = new MultibootGuest(Program);
        using Process run = ToolRun.Start(["run", "--kernel", guest.Path, "--cpu", "amd", "--memory", "8M", "--timeout", "100"]);
        Task<string> errors = run.StandardError.ReadToEndAsync();
        string pid = run.Id.ToString(CultureInfo.InvariantCulture);
        string[] words = Retry(() => Words(ToolRun.Of("top", "--once"), Path.GetFileName(guest.Path)), w => w.Length > 8 && w[7] != "0" && w[8] != "0");
        words.Should().StartWith([pid, Path.GetFileName(guest.Path), "model,", "amd-zen", "1", "8", "MiB"]);
        double.Parse(words[7], CultureInfo.InvariantCulture).Should().BePositive("exits a second");
        double.Parse(words[8], CultureInfo.InvariantCulture).Should().BePositive("exits to userspace a second");

        ToolRun one = ToolRun.Of("top", pid, "--interval", "1");
        one.ExitCode.Should().Be(ExitCode.Success, one.Errors);
        one.Output.Should().MatchRegex(@"\nexits +\d+ +\d+").And.MatchRegex(@"\nio_exits +\d+ +[1-9]").And.MatchRegex(@"\nKVM_EXIT_IO +\d+ +[1-9]");
        run.Kill();
        await run.WaitForExitAsync();
        (await errors).Should().BeEmpty();

        ToolRun gone = ToolRun.Of("top", pid);
        gone.ExitCode.Should().Be(ExitCode.BadFile, "its socket is there, but nobody answers");
        gone.Errors.Should().Contain($"process {pid} has no guest of yours");
    }

    [Fact]
    public void A_guest_that_ends_takes_its_socket_along()
    {
        string folder = Directory.CreateTempSubdirectory().FullName;
        try
        {
            using var guest = new MultibootGuest(c => c.hlt());
            Process run = ToolRun.Start("env", [$"XDG_RUNTIME_DIR={folder}", "dotnet", Path.Combine(AppContext.BaseDirectory, "kvm.dll"), "run", "--kernel", guest.Path, "--timeout", "1"]);
            string errors = run.StandardError.ReadToEnd();
            run.WaitForExit();
            errors.Should().Contain("stopped after 1 s", "HLT with interrupts off is forever where the interrupt controllers are the kernel's");
            Directory.GetFiles(Path.Combine(folder, "kvm")).Should().BeEmpty();
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    [Fact]
    public void A_guest_without_a_place_for_its_socket_says_so_and_runs()
    {
        using var guest = new MultibootGuest(c =>
        {
            c.mov(al, 3);
            c.@out(0xf4, al);
        });
        using Process run = ToolRun.Start("env", [$"XDG_RUNTIME_DIR={guest.Path}", "dotnet", Path.Combine(AppContext.BaseDirectory, "kvm.dll"), "run", "--kernel", guest.Path]);
        run.StandardError.ReadToEnd().Should().Contain("kvm top will not show this guest: ");
        run.WaitForExit();
        run.ExitCode.Should().Be(7);
    }

    [Theory]
    [InlineData("bash", "complete -o default -F _kvm kvm")]
    [InlineData("zsh", "compdef _kvm kvm")]
    [InlineData("fish", "complete -c kvm")]
    public void Completion_is_a_script_for_the_shell(string shell, string line) => ToolRun.Of("completion", shell).Output.Should().Contain(line);

    [Fact]
    public void Completion_knows_commands_options_and_words()
    {
        ToolRun.Of("[suggest:4]", "kvm ").Output.Split('\n').Should().Contain(["run", "debug", "top", "doctor"]);
        ToolRun.Of("[suggest:10]", "kvm run --").Output.Split('\n').Should().Contain(["--kernel", "--cpu", "--memory"]);
        ToolRun.Of("[suggest:14]", "kvm run --cpu ").Output.Split('\n').Should().Contain(["intel", "amd"]);
        ToolRun.Of("completion", "csh").ExitCode.Should().Be(ExitCode.Usage);
    }

    /// <summary>Bash itself, with a kvm on its path, completes the command's line.</summary>
    [SkippableFact]
    public void Bash_completes()
    {
        Skip.IfNot(File.Exists("/bin/bash"), "there is no bash");
        string folder = Directory.CreateTempSubdirectory().FullName;
        try
        {
            string kvm = Path.Combine(folder, "kvm");
            File.WriteAllText(kvm, $"#!/bin/sh\nexec dotnet '{Path.Combine(AppContext.BaseDirectory, "kvm.dll")}' \"$@\"\n");
            if (!OperatingSystem.IsWindows()) File.SetUnixFileMode(kvm, UnixFileMode.UserRead | UnixFileMode.UserExecute);
            const string script = "eval \"$(kvm completion bash)\"; COMP_WORDS=(kvm conf); COMP_CWORD=1; COMP_LINE='kvm conf'; COMP_POINT=8; _kvm; echo \"${COMPREPLY[@]}\"";
            using Process bash = ToolRun.Start("/bin/bash", ["-c", $"PATH='{folder}':$PATH; {script}"]);
            bash.StandardOutput.ReadToEnd().Trim().Should().Be("conformance");
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    /// <summary>The guest's line; empty: there is none yet.</summary>
    private static string[] Words(ToolRun top, string guest) =>
        top.Output.Split('\n').FirstOrDefault(l => l.Contains(guest, StringComparison.Ordinal))?.Split(' ', StringSplitOptions.RemoveEmptyEntries) ?? [];

    /// <summary>Until the guest has come so far.</summary>
    private static string[] Retry(Func<string[]> look, Func<string[], bool> good)
    {
        string[] last = look();
        for (int i = 0; i < 30 && !good(last); i++) last = look();
        return last;
    }
}
