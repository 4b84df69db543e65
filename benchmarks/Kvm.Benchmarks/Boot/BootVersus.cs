using System.Diagnostics;
using System.Globalization;

namespace Kvm.Benchmarks.Boot;

/// <summary>The same kernel, initial file system and memory on <c>kvm run</c> and on QEMU's TCG, each to its shell's prompt, in turns.</summary>
internal static class BootVersus
{
    private const string CommandLine = "console=ttyS0 quiet panic=-1", Prompt = "/root # ";

    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(5);

    /// <param name="output">The report.</param>
    /// <param name="rounds">How many boots of each.</param>
    /// <param name="kvm">kvm.dll, and further options of kvm run.</param>
    /// <param name="kernel">A bzImage.</param>
    /// <param name="initrd">Its initial file system.</param>
    public static void Report(TextWriter output, int rounds, string[] kvm, string kernel, string initrd)
    {
        string[] qemu = ["-accel", "tcg", "-m", "512", "-kernel", kernel, "-initrd", initrd, "-append", CommandLine, "-display", "none", "-serial", "stdio", "-nodefaults", "-no-reboot"];
        string[] ours = [kvm[0], "run", "--memory", "512M", "--kernel", kernel, "--initrd", initrd, "--append", CommandLine, .. kvm[1..]];
        var wall = new List<double>();
        var processor = new List<double>();
        Line(output, $"seconds from the start of the command to the prompt, wall (processor); {string.Join(' ', kvm[1..])}");
        for (int round = 1; round <= rounds; round++)
        {
            (double Wall, double Processor) a = Once("dotnet", ours), b = Once("qemu-system-x86_64", qemu);
            wall.Add(a.Wall / b.Wall);
            processor.Add(a.Processor / b.Processor);
            Line(output, $"round {round}: kvm run {a.Wall:F2} ({a.Processor:F2}), qemu tcg {b.Wall:F2} ({b.Processor:F2}), ratio {wall[^1]:F2} ({processor[^1]:F2})");
        }

        Line(output, $"median of the ratios: {Median(wall):F2} wall, {Median(processor):F2} processor time");
    }

    private static (double Wall, double Processor) Once(string program, string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardInput = true, RedirectStandardOutput = true };
        long began = Stopwatch.GetTimestamp();
        using Process process = Process.Start(start) ?? throw new InvalidOperationException($"cannot start {program}");
        using var timer = new Timer(_ => process.Kill(), null, s_patience, Timeout.InfiniteTimeSpan);
        int matched = 0;
        while (matched < Prompt.Length)
        {
            int letter = process.StandardOutput.Read();
            if (letter < 0) throw new InvalidOperationException($"{program} came to no prompt");
            matched = letter == Prompt[matched] ? matched + 1 : letter == Prompt[0] ? 1 : 0;
        }

        double seconds = Stopwatch.GetElapsedTime(began).TotalSeconds, busy = process.TotalProcessorTime.TotalSeconds;
        process.Kill();
        process.WaitForExit();
        return (seconds, busy);
    }

    private static double Median(List<double> values)
    {
        double[] sorted = [.. values.Order()];
        return sorted.Length % 2 == 1 ? sorted[sorted.Length / 2] : (sorted[sorted.Length / 2 - 1] + sorted[sorted.Length / 2]) / 2;
    }

    private static void Line(TextWriter output, FormattableString text) => output.WriteLine(text.ToString(CultureInfo.InvariantCulture));
}
