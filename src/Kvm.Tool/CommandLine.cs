using System.CommandLine;
using System.CommandLine.Help;

namespace Kvm.Tool;

/// <summary>The commands and their options.</summary>
internal static class CommandLine
{
    public static RootCommand Build()
    {
        var root = new RootCommand("A software KVM: the KVM of Linux 6.1 on emulated Intel and AMD processors, in one process. Without a command: demo.")
        {
            DemoCommand.Build(),
            RunCommand.Build(),
            RunCommand.BuildStat(),
            RunCommand.BuildDebug(),
            TraceCommand.Build(),
            TopCommand.Build(),
            ConformanceCommand.Build(),
            DoctorCommand.Build(),
            CompletionCommand.Build(),
        };
        root.SetAction(_ => DemoCommand.Run());
        foreach (HelpOption help in root.Options.OfType<HelpOption>()) help.Action = new HelpWithMore((HelpAction)help.Action!);
        return root;
    }

    /// <summary>Parses and runs.</summary>
    /// <returns>The exit code; see <see cref="ExitCode"/>.</returns>
    public static int Run(string[] args)
    {
        ParseResult parsed = Build().Parse(args);
        if (parsed.Errors.Count == 0) return parsed.Invoke(new InvocationConfiguration { EnableDefaultExceptionHandler = false });
        foreach (string message in parsed.Errors.Select(e => e.Message).Distinct()) Console.Error.WriteLine($"kvm: {message.ReplaceLineEndings(" ")}");
        Console.Error.WriteLine($"kvm: try {Name(parsed.CommandResult.Command)} --help");
        return ExitCode.Usage;
    }

    /// <summary>As the user types it: <c>kvm run</c>.</summary>
    private static string Name(Command command) => command is RootCommand ? "kvm" : $"kvm {command.Name}";
}
