using System.Diagnostics;

namespace Kvm.Tool.Tests;

/// <summary>One run of the <c>kvm</c> command, as a user runs it.</summary>
internal sealed record ToolRun(int ExitCode, string Output, string Errors)
{
    public static ToolRun Of(params string[] arguments) => Program(s_program, null, arguments);

    /// <summary>One run of a program, to its end.</summary>
    /// <param name="assembly">The program's .dll.</param>
    /// <param name="folder">Where it runs; null: here.</param>
    /// <param name="arguments">Its arguments.</param>
    public static ToolRun Program(string assembly, string? folder, params string[] arguments)
    {
        using Process process = Start("dotnet", [assembly, .. arguments], folder);
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        if (!process.WaitForExit(TimeSpan.FromMinutes(3)))
        {
            process.Kill();
            throw new TimeoutException(string.Join(' ', arguments));
        }

        return new ToolRun(process.ExitCode, output, errors.Result);
    }

    /// <summary>Runs until a line of the output contains the text, the process ends, or the time is up; then ends it.</summary>
    public static ToolRun UntilOutput(string text, TimeSpan limit, params string[] arguments)
    {
        using Process process = Start(arguments);
        Task<string> errors = process.StandardError.ReadToEndAsync();
        using var timer = new Timer(_ => process.Kill(), null, limit, Timeout.InfiniteTimeSpan);
        var output = new System.Text.StringBuilder();
        while (process.StandardOutput.ReadLine() is { } line)
        {
            output.AppendLine(line);
            if (line.Contains(text)) break;
        }

        process.Kill();
        process.WaitForExit();
        return new ToolRun(process.ExitCode, output.ToString(), errors.Result);
    }

    /// <summary>The command, running: its output and errors are the caller's to read.</summary>
    public static Process Start(string[] arguments) => Start("dotnet", [s_program, .. arguments]);

    /// <summary>The command, running: its input too is the caller's.</summary>
    public static Process StartWithInput(string[] arguments) => Start("dotnet", [s_program, .. arguments], null, keepInput: true);

    /// <summary>The command with whatever follows it in a shell's line.</summary>
    public static Process StartShell(string line) => Start("sh", ["-c", $"exec dotnet '{s_program}' {line}"]);

    private static readonly string s_program = Path.Combine(AppContext.BaseDirectory, "kvm.dll");

    /// <summary>Any program, with nothing to read and its output for the caller.</summary>
    public static Process Start(string program, string[] arguments, string? folder = null, bool keepInput = false)
    {
        var start = new ProcessStartInfo(program)
        {
            RedirectStandardInput = true, // not the terminal of whoever runs the tests
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = folder ?? "",
        };
        foreach (string argument in arguments) start.ArgumentList.Add(argument);
        Process process = Process.Start(start)!;
        if (!keepInput) process.StandardInput.Close();
        return process;
    }
}
