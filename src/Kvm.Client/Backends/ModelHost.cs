using Kvm.Abi;
using Kvm.Arch.X86;
using Kvm.Arch.X86.Svm;
using Kvm.Arch.X86.Vmx;
using Kvm.Core;
using Kvm.Emulator;

namespace Kvm.Client.Backends;

/// <summary>A machine, the kernel on it, and its KVM modules.</summary>
internal sealed class ModelHost : IDisposable
{
    /// <summary>Parameters of kvm itself are written with its name, as on the kernel's command line: <c>kvm.ignore_msrs</c>.</summary>
    private const string KvmPrefix = "kvm.";

    private readonly KernelHost _kernel;

    private ModelHost(KernelHost kernel) => _kernel = kernel;

    public Host Host => _kernel.Host;

    /// <summary>Builds the machine, boots the kernel, loads kvm and the vendor's module.</summary>
    /// <exception cref="KvmException">A module refused to load.</exception>
    public static ModelHost Boot(ModelOptions options)
    {
        MachineOptions machine = MachineOptions.Uniform(options.Processor, options.Processors) with { Time = options.Time, Engine = options.Engine };
        KernelHost kernel = KernelHost.Create(machine, new HostOptions { CpuCount = options.Processors, TimeProvider = options.Time, PreemptionSeed = options.PreemptionSeed });
        try
        {
            Insert(kernel.LoadKvm(Parameters(options, ofKvm: true)), "kvm", kernel);
            bool intel = options.Processor.Vendor == CpuVendor.Intel;
            HostModule vendor = intel ? new KvmIntel(kernel.Arch) : new KvmAmd(kernel.Arch);
            Insert(kernel.LoadVendor(vendor, Parameters(options, ofKvm: false)), vendor.Name, kernel);
            return new ModelHost(kernel);
        }
        catch
        {
            kernel.Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        foreach (HostModule module in Host.Modules.Loaded.Reverse()) Host.Modules.Remove(module.Name);
        _kernel.Dispose();
    }

    private static string Parameters(ModelOptions options, bool ofKvm) => string.Join(' ', options.ModuleParameters
        .Where(p => p.Key.StartsWith(KvmPrefix, StringComparison.Ordinal) == ofKvm)
        .Select(p => $"{(ofKvm ? p.Key[KvmPrefix.Length..] : p.Key)}={p.Value}"));

    /// <summary>modprobe: a refusal is explained by the kernel's last message.</summary>
    private static void Insert(KvmResult result, string module, KernelHost kernel)
    {
        if (!result.IsError) return;
        string? message = kernel.Host.Log.Lines.LastOrDefault();
        throw new KvmException($"modprobe {module}", (Errno)(-result.Raw), message ?? "no message");
    }
}
