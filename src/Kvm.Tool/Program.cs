using System.CommandLine;
using Kvm.Client;
using Kvm.Tool;
using Spectre.Console;

if (Console.IsOutputRedirected)
{
    AnsiConsole.Profile.Capabilities.Ansi = false;
    AnsiConsole.Profile.Width = 500; // whoever reads it breaks the lines
}

RootCommand root = CommandLine.Build();
ParseResult parsed = root.Parse(args);
if (parsed.Errors.Count > 0)
{
    foreach (var error in parsed.Errors) Console.Error.WriteLine($"kvm: {error.Message}");
    Console.Error.WriteLine("kvm: try --help");
    return ExitCode.Usage;
}

try
{
    return parsed.Invoke(new InvocationConfiguration { EnableDefaultExceptionHandler = false });
}
catch (ToolException e)
{
    Console.Error.WriteLine($"kvm: {e.Message}");
    return e.ExitCode;
}
catch (KvmException e)
{
    Console.Error.WriteLine($"kvm: {e.Message}");
    return ExitCode.NoKvm;
}
