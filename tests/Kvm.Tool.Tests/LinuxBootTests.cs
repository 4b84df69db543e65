using Kvm.Vmm.Boot;
using LinuxHello;
using Xunit.Abstractions;

namespace Kvm.Tool.Tests;

/// <summary>Debian's own kernel on <c>kvm run</c>; see <see cref="DebianKernel"/> for where it comes from and when these tests are skipped.</summary>
public class LinuxBootTests(ITestOutputHelper output)
{
    private const string UntilUserSpace = "console=ttyS0 earlyprintk=ttyS0,115200 nokaslr panic=-1";
    private const string AsInTheReadme = "console=ttyS0 earlyprintk=ttyS0,115200 nokaslr";

    /// <summary>The kernel unpacks itself, finds its memory and its devices, runs our program as process 1, and restarts the machine when that asks for it.</summary>
    [SkippableTheory]
    [InlineData("intel")]
    [InlineData("amd")]
    public void Boots_to_a_program_in_user_space(string cpu)
    {
        string kernel = DebianKernel.Path, initrd = Path.GetTempFileName();
        try
        {
            File.WriteAllBytes(initrd, HelloInit.FileSystem());
            ToolRun run = ToolRun.Of("run", "--cpu", cpu, "--memory", "512M", "--kernel", kernel, "--append", UntilUserSpace, "--initrd", initrd, "--timeout", "150", "--stats");
            Write(run);
            IsLinux(run.Output);
            // What a kernel other than the one this was made with needs, nobody knows.
            Skip.IfNot(Version(kernel).StartsWith("6.1.", StringComparison.Ordinal), $"booted {Version(kernel)}; how far it comes is known of 6.1 only");
            run.Output.Should().Contain("Booting paravirtualized kernel on KVM").And.Contain("Freeing unused kernel image").And.Contain("Run /init as init process")
                .And.Contain($"hello from user space on Linux {Version(kernel).Split(' ')[0]}\r\n").And.Contain("reboot: Restarting system");
            run.Output.Should().Contain("x86/fpu: Supporting XSAVE feature 0x004: 'AVX registers'")
                .And.Contain($"x86/fpu: Enabled xstate features {(cpu == "intel" ? "0x207" : "0x7")}, context size is").And.Contain("using 'compacted' format.");
            run.Errors.Should().Contain("guest reset through port 0xcf9");
            run.ExitCode.Should().Be(ExitCode.Reset);
        }
        finally
        {
            File.Delete(initrd);
        }
    }

    /// <summary>The same kernel on Hyper-V: its clock page, its timers and its APIC take the places of KVM's.</summary>
    [SkippableTheory]
    [InlineData("intel")]
    [InlineData("amd")]
    public void Boots_to_a_program_in_user_space_on_hyperv(string cpu)
    {
        string kernel = DebianKernel.Path, initrd = Path.GetTempFileName();
        try
        {
            File.WriteAllBytes(initrd, HelloInit.FileSystem());
            ToolRun run = ToolRun.Of("run", "--cpu", cpu, "--hyperv", "--memory", "512M", "--kernel", kernel, "--append", UntilUserSpace, "--initrd", initrd, "--timeout", "150", "--stats");
            Write(run);
            IsLinux(run.Output, "Microsoft Hyper-V");
            run.Output.Should().Contain("Hyper-V: Using hypercall for remote TLB flush").And.Contain("Hyper-V: Using IPI hypercalls").And.Contain("Hyper-V: Using enlightened APIC (")
                .And.Contain("clocksource: Switched to clocksource hyperv_clocksource_tsc_page").And.Contain("Run /init as init process").And.Contain("hello from user space on Linux");
            run.ExitCode.Should().Be(ExitCode.Reset);
        }
        finally
        {
            File.Delete(initrd);
        }
    }

    /// <summary>The same kernel without nested paging, and without real mode in hardware: KVM shadows its tables, emulates what a processor can't enter.</summary>
    [SkippableTheory]
    [InlineData("intel", "ept=0")]
    [InlineData("intel", "unrestricted_guest=0")]
    [InlineData("amd", "npt=0")]
    public void Boots_to_a_program_in_user_space_with(string cpu, string parameter)
    {
        string kernel = DebianKernel.Path, initrd = Path.GetTempFileName();
        try
        {
            File.WriteAllBytes(initrd, HelloInit.FileSystem());
            ToolRun run = ToolRun.Of("run", "--cpu", cpu, "--parameter", parameter, "--memory", "512M", "--kernel", kernel, "--append", UntilUserSpace, "--initrd", initrd, "--timeout", "240", "--stats");
            Write(run);
            IsLinux(run.Output);
            run.Output.Should().Contain("Run /init as init process").And.Contain("hello from user space on Linux").And.Contain("reboot: Restarting system");
            run.ExitCode.Should().Be(ExitCode.Reset);
        }
        finally
        {
            File.Delete(initrd);
        }
    }

    /// <summary>The other entry points: protected mode without paging, and the real-mode setup code with its BIOS calls.</summary>
    [SkippableTheory]
    [InlineData("intel", 32)]
    [InlineData("amd", 32)]
    [InlineData("intel", 16)]
    [InlineData("amd", 16)]
    public void Boots_from_entry(string cpu, int entry)
    {
        ToolRun run = ToolRun.UntilOutput("Booting paravirtualized kernel on KVM", TimeSpan.FromMinutes(3),
            "run", "--cpu", cpu, "--memory", "512M", "--kernel", DebianKernel.Path, "--append", AsInTheReadme, "--entry", $"{entry}");
        Write(run);
        IsLinux(run.Output);
        run.Output.Should().Contain("Booting paravirtualized kernel on KVM");
    }

    private static void IsLinux(string text, string hypervisor = "KVM")
    {
        text.Should().Contain("KASLR disabled: 'nokaslr' on cmdline.", "the decompressor prints through earlyprintk").And.Contain("] Linux version ")
            .And.Contain("BIOS-provided physical RAM map:").And.Contain("BIOS-e820: [mem 0x0000000000100000-0x000000001fffffff] usable", "512 MiB")
            .And.Contain($"Hypervisor detected: {hypervisor}").And.NotContain("Disabled fast string operations");
    }

    private static string Version(string kernel) => BzImage.Parse(File.ReadAllBytes(kernel)).KernelVersion;

    private void Write(ToolRun run)
    {
        output.WriteLine(run.Errors);
        output.WriteLine(run.Output);
    }
}
