using Kvm.Arch.X86;
using Kvm.Arch.X86.Svm;
using Kvm.Arch.X86.Vmx;
using Kvm.Core;
using Kvm.Emulator;

namespace Kvm.Conformance.Tests.Sessions;

/// <summary>The machine of the recordings: two processors of one model, a booted kernel, kvm.ko.</summary>
internal sealed class ModelHost : IDisposable
{
    /// <summary>With the processor of the vendor's recorded instruction log, or another one.</summary>
    public ModelHost(string vendor, CpuModel? processor = null)
    {
        Vendor = vendor;
        CpuModel model = processor ?? CpuModel.Load(vendor == "intel" ? "bochs-skylake-x" : "bochs-ryzen");
        Machine = new Machine(new MachineOptions { Processors = [new ProcessorOptions(model), new ProcessorOptions(model)] });
        Host = new Host(new HostOptions { CpuCount = 2 });
        Arch = new X86Arch(new HostX86(Host, Machine));
        Kvm = new KvmModule(Host, Arch);
    }

    public string Vendor { get; }
    public Machine Machine { get; }
    public Host Host { get; }
    public X86Arch Arch { get; }
    public KvmModule Kvm { get; }
    public string VendorModuleName => Vendor == "intel" ? "kvm_intel" : "kvm_amd";

    public KvmResult LoadKvm() => Host.Modules.Insert(Kvm);

    /// <summary>insmod by the calling thread, which may be bound to a CPU.</summary>
    public KvmResult LoadVendor(string parameters = "")
    {
        using Host.KernelScope _ = Host.Enter(Host.Process.Task);
        return Host.Modules.Insert(Vendor == "intel" ? new KvmIntel(Arch) : new KvmAmd(Arch), parameters);
    }

    public KvmResult UnloadVendor()
    {
        using Host.KernelScope _ = Host.Enter(Host.Process.Task);
        return Host.Modules.Remove(VendorModuleName);
    }

    public void Observe(IHardwareObserver observer)
    {
        foreach (Processor cpu in Machine.Processors)
            cpu.Observer = observer;
    }

    public void Dispose()
    {
        Host.Dispose();
        Machine.Dispose();
    }
}
