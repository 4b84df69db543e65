using System.CommandLine;
using Spectre.Console;

namespace Kvm.Tool;

/// <summary><c>kvm demo</c>: the embedded guest on an Intel and on an AMD machine.</summary>
internal static class DemoCommand
{
    private const int Levels = 3;

    public static Command Build()
    {
        var command = new Command("demo", "Run an embedded guest on both vendors and show the kernel's path");
        command.SetAction(_ => Run());
        return command;
    }

    public static int Run()
    {
        foreach (string cpu in (string[])["intel", "amd"])
        {
            using var guest = new TracedGuest(cpu);
            string createVm = guest.CreateVm(), createVcpu = guest.CreateVcpu(), run = guest.Run();
            AnsiConsole.MarkupLineInterpolated($"[bold underline]{guest.Name}[/]");
            AnsiConsole.MarkupLineInterpolated($"the guest printed: [green]{guest.Output.TrimEnd()}[/]");
            AnsiConsole.WriteLine("the kernel's path there:");
            Show("KVM_CREATE_VM", createVm);
            Show("KVM_CREATE_VCPU", createVcpu);
            Show("the first KVM_RUN", run);
        }

        AnsiConsole.MarkupLine("The whole trees: [bold]kvm trace create-vm|create-vcpu|run --cpu intel|amd[/].");
        return ExitCode.Success;
    }

    /// <summary>The tree's upper levels.</summary>
    private static void Show(string title, string path)
    {
        AnsiConsole.MarkupLineInterpolated($"  [bold]{title}[/]");
        foreach (string line in path.TrimEnd().Split('\n'))
        {
            string call = line.TrimStart();
            int depth = (line.Length - call.Length) / 2;
            if (depth >= Levels || call.StartsWith('}') || call.StartsWith('[')) continue;
            string shown = call.Replace(" {", depth == Levels - 1 ? " { … }" : "").TrimEnd();
            AnsiConsole.WriteLine($"    {new string(' ', depth * 2)}{shown}");
        }
    }
}
