using System.CommandLine;

namespace Kvm.Tool;

/// <summary><c>kvm trace</c>: the functions that the kernel goes through for one call, as ftrace's function graph shows them.</summary>
internal static class TraceCommand
{
    public static Command Build()
    {
        Option<string> cpu = Options.Cpu();
        var step = new Argument<string>("call") { Description = "create-vm, create-vcpu or run" };
        step.AcceptOnlyFromAmong("create-vm", "create-vcpu", "run");
        var command = new Command("trace", "Show the kernel's path through KVM_CREATE_VM, KVM_CREATE_VCPU or the first KVM_RUN") { step, cpu };
        command.SetAction(result =>
        {
            using var guest = new TracedGuest(result.GetRequiredValue(cpu));
            string createVm = guest.CreateVm();
            string createVcpu = guest.CreateVcpu();
            Console.Out.Write(result.GetRequiredValue(step) switch
            {
                "create-vm" => createVm,
                "create-vcpu" => createVcpu,
                _ => guest.Run(),
            });
            return ExitCode.Success;
        });
        return command;
    }
}
