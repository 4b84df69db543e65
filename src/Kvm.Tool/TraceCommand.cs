using System.CommandLine;
using Kvm.Core.Tracing;

namespace Kvm.Tool;

/// <summary><c>kvm trace</c>: the functions that the kernel goes through for one call, as ftrace's function graph shows them.</summary>
internal static class TraceCommand
{
    private static readonly string[] s_calls = ["create-vm", "create-vcpu", "run"];

    public static Command Build()
    {
        Option<string> cpu = Options.Cpu();
        Option<int> cpus = Options.Count("--cpus", "How many processors the host has: a call that reaches all of them shows each one's part", standard: 2, most: 64);
        var fold = new Option<bool>("--fold") { Description = "Without times; equal calls in a row once, with their number" };
        var call = new Argument<string>("call") { Description = "create-vm: KVM_CREATE_VM; create-vcpu: KVM_CREATE_VCPU; run: the first KVM_RUN of a small guest", HelpName = string.Join('|', s_calls) };
        call.OneOf("trace", s_calls);
        var command = new Command("trace", "Show the kernel's path through one call as ftrace's function graph") { call, cpu, cpus, fold };
        command.SetAction(result =>
        {
            FunctionTraceSession path = Path(result.GetRequiredValue(call), result.GetRequiredValue(cpu), result.GetValue(cpus), warm: !result.GetValue(fold));
            Console.Out.Write(result.GetValue(fold) ? path.Format(TracedGuest.IsIoctl) : path.FormatGraph(TracedGuest.IsIoctl));
            return ExitCode.Success;
        });
        return command;
    }

    /// <param name="call">create-vm, create-vcpu or run.</param>
    /// <param name="cpu">The processor model.</param>
    /// <param name="cpus">Processors of the host.</param>
    /// <param name="warm">Do it all once before, so that the times are not those of the first time.</param>
    private static FunctionTraceSession Path(string call, string cpu, int cpus, bool warm)
    {
        if (warm)
        {
            using var before = new TracedGuest(cpu, cpus);
            before.CreateVm();
            before.CreateVcpu();
            before.Run();
        }

        using var guest = new TracedGuest(cpu, cpus);
        FunctionTraceSession path = guest.CreateVm();
        if (call == "create-vm") return path;
        path = guest.CreateVcpu();
        return call == "create-vcpu" ? path : guest.Run();
    }
}
