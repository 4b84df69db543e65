namespace Kvm.Tool.Tests;

/// <summary>Debian's own kernel, fetched by samples/linux/fetch-kernel.sh; skipped where it has not been fetched.</summary>
public class LinuxBootTests
{
    [SkippableTheory]
    [InlineData("intel", 64)]
    [InlineData("amd", 64)]
    [InlineData("intel", 32)]
    [InlineData("amd", 32)]
    [InlineData("intel", 16)]
    [InlineData("amd", 16)]
    public void Kernel_decompresses_itself_and_prints_its_first_messages(string cpu, int entry)
    {
        string? kernel = FetchedKernel();
        Skip.If(kernel is null, "no samples/linux/cache/vmlinuz: run samples/linux/fetch-kernel.sh");
        ToolRun run = ToolRun.UntilOutput("Booting paravirtualized kernel on KVM", TimeSpan.FromMinutes(5),
            "run", "--cpu", cpu, "--memory", "512M", "--kernel", kernel!, "--entry", $"{entry}");
        run.Output.Should().Contain("Linux version 6.1").And.Contain("BIOS-provided physical RAM map").And.Contain("Booting paravirtualized kernel on KVM");
    }

    private static string? FetchedKernel()
    {
        for (DirectoryInfo? at = new(AppContext.BaseDirectory); at is not null; at = at.Parent)
        {
            string file = Path.Combine(at.FullName, "samples", "linux", "cache", "vmlinuz");
            if (File.Exists(file)) return file;
        }

        return null;
    }
}
