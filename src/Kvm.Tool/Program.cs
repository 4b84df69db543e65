using Kvm.Client;
using Kvm.Tool;
using Spectre.Console;

if (Console.IsOutputRedirected)
{
    AnsiConsole.Profile.Capabilities.Ansi = false;
    AnsiConsole.Profile.Width = 500; // whoever reads it breaks the lines
}

try
{
    return CommandLine.Run(args);
}
catch (ToolException e)
{
    Console.Error.WriteLine($"kvm: {e.Message}");
    return e.ExitCode;
}
catch (Exception e) when (e is IOException or UnauthorizedAccessException)
{
    Console.Error.WriteLine($"kvm: cannot write to standard output: {e.Message}");
    return ExitCode.BadFile;
}
catch (KvmException e)
{
    Console.Error.WriteLine($"kvm: {e.Message}");
    return ExitCode.NoKvm;
}
