using System.CommandLine;
using Kvm.Core.Tracing;
using Spectre.Console;

namespace Kvm.Tool;

/// <summary><c>kvm demo</c>: the embedded guest on an Intel and on an AMD machine.</summary>
internal static class DemoCommand
{
    private const int NoteColumn = 38;

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
            using var guest = new TracedGuest(cpu, processors: 2);
            FunctionTraceSession createVm = guest.CreateVm(), createVcpu = guest.CreateVcpu(), run = guest.Run();
            AnsiConsole.MarkupLineInterpolated($"[bold underline]{guest.Name}[/]");
            AnsiConsole.MarkupLineInterpolated($"  the guest printed: [green]{guest.Output.TrimEnd()}[/]");
            AnsiConsole.WriteLine("  the kernel's path there, in short:");
            Show("KVM_CREATE_VM", createVm);
            Show("KVM_CREATE_VCPU", createVcpu);
            Show("KVM_RUN, the first", run);
            AnsiConsole.WriteLine();
        }

        AnsiConsole.MarkupLine("The whole of it: [bold]kvm trace create-vm|create-vcpu|run --cpu intel|amd[/]");
        AnsiConsole.MarkupLine("A Linux kernel:  [bold]kvm run --help[/]");
        AnsiConsole.MarkupLine("In the source tree, [bold]kvm[/] is [bold]dotnet run --project src/Kvm.Tool --[/]");
        return ExitCode.Success;
    }

    private static void Show(string title, FunctionTraceSession path)
    {
        AnsiConsole.MarkupLineInterpolated($"    [bold]{title}[/]");
        foreach ((_, IReadOnlyList<FunctionTraceNode> roots) in path.Groups)
        {
            foreach (FunctionTraceNode root in roots.Where(TracedGuest.IsIoctl)) Show(root, depth: 0);
        }
    }

    /// <summary>Milestones only: a function that is none gives its place to those that it calls.</summary>
    private static void Show(FunctionTraceNode node, int depth)
    {
        if (Milestones.NoteOf(node.Name) is { } note)
        {
            string call = $"      {new string(' ', depth * 2)}{node.Name}{(depth == 0 ? $" on cpu{node.Cpu}" : "")}";
            if (note.Length == 0) AnsiConsole.WriteLine(call);
            else AnsiConsole.MarkupLineInterpolated($"{call.PadRight(NoteColumn)} [dim]{note}[/]");
            depth++;
        }

        foreach (FunctionTraceNode child in node.Children) Show(child, depth);
    }
}
