using System.CommandLine;
using System.Runtime.InteropServices;
using Kvm.Client;
using Kvm.Emulator;
using Spectre.Console;
using static Kvm.Abi.Uapi;

namespace Kvm.Tool;

/// <summary><c>kvm doctor</c>: which back ends work here, and with which processors.</summary>
internal static class DoctorCommand
{
    public static Command Build()
    {
        var command = new Command("doctor", "Check what works on this machine: the processor models, and /dev/kvm");
        command.SetAction(_ => Run());
        return command;
    }

    private static int Run()
    {
        AnsiConsole.MarkupLineInterpolated($"host: {RuntimeInformation.OSDescription}, {RuntimeInformation.ProcessArchitecture}, {RuntimeInformation.FrameworkDescription}");
        string[] standard = [CpuModel.IntelSkylake.Name, CpuModel.AmdZen.Name];
        bool modelsWork = true;
        foreach (string name in CpuModel.Names)
        {
            bool required = standard.Contains(name);
            modelsWork &= Check($"model, {name}", KvmBackend.ByName("model", name), required) || !required;
        }

        Check("native, /dev/kvm", KvmBackend.Native, required: false);
        return modelsWork ? ExitCode.Success : ExitCode.NoKvm;
    }

    private static bool Check(string name, IKvmBackend backend, bool required)
    {
        try
        {
            using KvmSystem kvm = KvmSystem.Open(backend);
            using Vm vm = kvm.CreateVm();
            using Vcpu vcpu = vm.CreateVcpu(0);
            string irqchip = vm.CheckExtension(KVM_CAP_IRQCHIP) > 0 ? "irqchip" : "no irqchip";
            AnsiConsole.MarkupLineInterpolated($"[green]ok[/]    {name}: API {kvm.ApiVersion}, {vm.CheckExtension(KVM_CAP_MAX_VCPUS)} vCPUs, {irqchip}");
            return true;
        }
        catch (KvmException e)
        {
            if (required) AnsiConsole.MarkupLineInterpolated($"[red]fails[/] {name}: {e.Message}");
            else AnsiConsole.MarkupLineInterpolated($"[yellow]none[/]  {name}: {e.Message}");
            return false;
        }
    }
}
