using Kvm.Core;
using Kvm.Emulator;

namespace Kvm.Arch.X86;

/// <summary>
/// An emulated machine with a booted host kernel and kvm.ko at hand, ready for a vendor module: <c>insmod kvm; insmod kvm_intel</c>.
/// </summary>
public sealed class KernelHost : IDisposable
{
    private KernelHost(Machine machine, Host host)
    {
        Machine = machine;
        Host = host;
        X86 = new HostX86(host, machine);
        Arch = new X86Arch(X86);
        Kvm = new KvmModule(host, Arch);
    }

    public Machine Machine { get; }

    public Host Host { get; }

    public HostX86 X86 { get; }

    public X86Arch Arch { get; }

    /// <summary>kvm.ko; not loaded yet.</summary>
    public KvmModule Kvm { get; }

    /// <summary>Powers a machine on and boots the kernel; no module is loaded. The machine has as many processors as the host has CPUs.</summary>
    public static KernelHost Create(MachineOptions machine, HostOptions? host = null)
    {
        HostOptions options = host ?? new HostOptions { CpuCount = machine.Processors.Count };
        if (options.CpuCount != machine.Processors.Count)
            throw new ArgumentException("HostOptions.CpuCount differs from MachineOptions.Processors.", nameof(host));
        return new KernelHost(new Machine(machine), new Host(options));
    }

    /// <summary>insmod kvm, with "name=value" parameters separated by blanks.</summary>
    public KvmResult LoadKvm(string parameters = "") => Host.Modules.Insert(Kvm, parameters);

    /// <summary>insmod kvm_intel or kvm_amd; kvm is loaded first if it is not.</summary>
    public KvmResult LoadVendor(HostModule vendor, string parameters = "")
    {
        if (Host.Modules.Find("kvm") is null)
        {
            KvmResult r = LoadKvm();
            if (r.IsError)
                return r;
        }

        return Host.Modules.Insert(vendor, parameters);
    }

    public void Dispose()
    {
        Host.Dispose();
        Machine.Dispose();
    }
}
