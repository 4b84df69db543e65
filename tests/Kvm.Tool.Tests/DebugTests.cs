using System.Diagnostics;
using System.Text.RegularExpressions;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Tool.Tests;

/// <summary><c>kvm debug</c> with the real gdb.</summary>
public class DebugTests
{
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(2);

    public static TheoryData<string> Cpus => ["intel", "amd"];

    /// <summary>Protected mode, from the first instruction: steps, a breakpoint in a loop, a watchpoint, memory and registers changed, the guest ended by what was put there.</summary>
    [SkippableTheory, MemberData(nameof(Cpus))]
    public void Gdb_breaks_steps_watches_and_changes(string cpu)
    {
        using var guest = new MultibootGuest(c =>
        {
            Iced.Intel.Label loop = c.CreateLabel();
            c.mov(ecx, 5); // 0x100020
            c.Label(ref loop);
            c.inc(__dword_ptr[0x200000]); // 0x100025, 6 bytes
            c.dec(ecx); // 0x10002b
            c.jne(loop);
            c.mov(al, __byte_ptr[0x200000]);
            c.@out(0xf4, al);
            c.hlt();
        });
        (string text, ToolRun run) = Debug(["--cpu", cpu, "--kernel", guest.Path],
            "info registers rip", "stepi", "break *0x10002b", "continue", "print $ecx", "print *(int*)0x200000", "ignore 1 1", "continue", "print *(int*)0x200000", "delete",
            "watch *(int*)0x200000", "continue", "delete", "print $ecx", "set var *(int*)0x200000 = 16", "monitor disassemble 100025 2", "info threads", "continue");
        text.Should().Contain("0x100020").And.Contain("Breakpoint 1, 0x000000000010002b").And.Contain("$1 = 5").And.Contain("$2 = 1").And.Contain("$3 = 3", "one crossing was ignored")
            .And.Contain("Hardware watchpoint 2").And.Contain("Old value = 3").And.Contain("New value = 4").And.Contain("$4 = 2")
            .And.Contain("inc dword [200000h]").And.Contain("vCPU 0").And.Contain("exited normally");
        run.ExitCode.Should().Be((17 << 1) | 1, run.Errors);
    }

    /// <summary>From the reset vector, in real mode, over the first jump into the BIOS.</summary>
    [SkippableTheory, MemberData(nameof(Cpus))]
    public void Gdb_steps_from_the_reset_vector(string cpu)
    {
        string bios = DebianFirmware.Path("bios-256k.bin");
        (string text, ToolRun run) = Debug(["--cpu", cpu, "--firmware", bios, "--memory", "32M"],
            "info registers rip cs cs_base cr0", "monitor disassemble", "stepi", "info registers rip", "hbreak *0xfd155", "tbreak *0xfe05b", "monitor registers", "stepi", "info registers rip", "kill");
        text.Should().MatchRegex(@"rip +0xfffffff0").And.MatchRegex(@"cs +0xf000").And.MatchRegex(@"cs_base +0xffff0000").And.Contain("jmp 0F000h:0E05Bh")
            .And.MatchRegex(@"rip +0xfe05b").And.Contain("base 00000000000f0000").And.Contain("16-bit code");
        Regex.Matches(text, @"rip +0x").Should().HaveCount(3);
        run.ExitCode.Should().Be(ExitCode.TimedOut, "the user ended it");
    }

    [Fact]
    public void A_port_that_is_taken_or_nonsense_is_a_line_and_exit_code_2()
    {
        using var guest = new MultibootGuest(c => c.hlt());
        using var taken = new System.Net.Sockets.TcpListener(System.Net.IPAddress.Loopback, 0);
        taken.Start();
        ToolRun run = ToolRun.Of("debug", "--kernel", guest.Path, "--listen", taken.LocalEndpoint.ToString()!);
        run.ExitCode.Should().Be(ExitCode.Usage);
        run.Errors.Should().Contain("--listen 127.0.0.1:").And.Contain("another port");
        foreach (string nonsense in new[] { "x", "70000", "1.2.3.4.5:6", "host:1" })
            ToolRun.Of("debug", "--kernel", guest.Path, "--listen", nonsense).Should().Match<ToolRun>(r => r.ExitCode == ExitCode.Usage && r.Errors.Contains("not a port"), nonsense);
    }

    /// <summary>Starts the command, and gdb with these commands after it has connected.</summary>
    private static (string Gdb, ToolRun Run) Debug(string[] options, params string[] commands)
    {
        string? program = Environment.GetEnvironmentVariable("PATH")?.Split(':').Select(p => Path.Combine(p, "gdb")).FirstOrDefault(File.Exists);
        Skip.If(program is null, "there is no gdb on this machine (apt-get install gdb)");
        using Process kvm = ToolRun.Start(["debug", .. options, "--listen", "0", "--timeout", "120"]);
        Task<string> output = kvm.StandardOutput.ReadToEndAsync();
        string waiting = kvm.StandardError.ReadLine() ?? throw new InvalidOperationException("kvm debug said nothing");
        Task<string> errors = kvm.StandardError.ReadToEndAsync();
        string address = Regex.Match(waiting, @"target remote (\S+)").Groups[1].Value;
        string[] arguments = ["-nx", "-batch", "-ex", "set tcp connect-timeout 60", "-ex", $"target remote {address}", .. commands.SelectMany(c => new[] { "-ex", c })];
        using Process gdb = ToolRun.Start(program!, arguments);
        Task<string> complaints = gdb.StandardError.ReadToEndAsync();
        Task<string> text = gdb.StandardOutput.ReadToEndAsync();
        bool ended = gdb.WaitForExit(s_patience) && kvm.WaitForExit(s_patience);
        if (!ended)
        {
            gdb.Kill();
            kvm.Kill();
        }

        string all = text.Result + complaints.Result;
        ended.Should().BeTrue("gdb said: {0}", all);
        return (all, new ToolRun(kvm.ExitCode, output.Result, waiting + errors.Result));
    }
}
