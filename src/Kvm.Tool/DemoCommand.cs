using System.CommandLine;
using Spectre.Console;

namespace Kvm.Tool;

/// <summary><c>kvm demo</c>: the embedded guest on an Intel and on an AMD machine.</summary>
internal static class DemoCommand
{
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
            AnsiConsole.Write(new Rule($"[bold]{Markup.Escape(guest.Name)}[/]").LeftJustified());
            Show("The kernel's path through KVM_CREATE_VM", guest.CreateVm());
            Show("… KVM_CREATE_VCPU", guest.CreateVcpu());
            Show("… the first KVM_RUN", guest.Run());
            AnsiConsole.Write(new Panel(new Text(guest.Output.TrimEnd())).Header("the guest printed").Expand());
        }

        return ExitCode.Success;
    }

    private static void Show(string title, string path)
    {
        AnsiConsole.MarkupLineInterpolated($"[bold]{title}[/]");
        foreach (string line in path.TrimEnd().Split('\n')) AnsiConsole.WriteLine("  " + line);
        AnsiConsole.WriteLine();
    }
}
