using Kvm.Abi;
using Kvm.Arch.X86;
using Kvm.Arch.X86.Svm;
using Kvm.Arch.X86.Vmx;
using Kvm.Core;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;

namespace Lifecycle;

/// <summary>A machine with two (or more) processors, a kernel, one process, and the vendor's module at hand.</summary>
internal sealed class Computer : IDisposable
{
    private const uint MsrEfer = 0xc0000080;
    private const ulong Cr4Vmxe = 1 << 13;
    private const ulong EferSvme = 1 << 12;
    private const ulong Cr0Ne = 1 << 5;

    private readonly KernelHost _kernel;
    private readonly bool _intel;

    public Computer(bool intel, params ProcessorOptions[] processors)
    {
        _intel = intel;
        if (processors.Length == 0) processors = [new(Model(intel)), new(Model(intel))];
        _kernel = KernelHost.Create(new MachineOptions { Processors = processors });
        Vendor = intel ? new KvmIntel(_kernel.Arch) : new KvmAmd(_kernel.Arch);
    }

    public static CpuModel Model(bool intel) => intel ? CpuModel.IntelSkylake : CpuModel.AmdZen;

    public Host Host => _kernel.Host;

    public KvmModule Kvm => _kernel.Kvm;

    public HostModule Vendor { get; }

    public HostProcess Process => Host.Process;

    /// <summary>insmod kvm; insmod kvm_intel or kvm_amd.</summary>
    public KvmResult Load() => _kernel.LoadVendor(Vendor);

    public KvmResult Unload() => Host.Modules.Remove(Vendor.Name);

    public KvmResult Open() => Process.Open("/dev/kvm", Fcntl.O_RDWR | Fcntl.O_CLOEXEC);

    public KvmResult CreateVm(int kvm) => Process.Ioctl(kvm, KVM_CREATE_VM);

    public KvmResult CreateVcpu(int vm, uint id = 0) => Process.Ioctl(vm, KVM_CREATE_VCPU, id);

    /// <summary>Whether virtualization is switched on in a processor: CR4.VMXE, or EFER.SVME.</summary>
    public bool Enabled(int cpu)
    {
        bool on = false;
        if (Host.SmpCallFunctionSingle(cpu, _ => on = (_intel ? Processor.ReadCr(4) & Cr4Vmxe : _kernel.X86.ThisCpu.Rdmsr(MsrEfer) & EferSvme) != 0).IsError)
            return false; // offline
        return on;
    }

    /// <summary>The processors in which virtualization is switched on: "0,1".</summary>
    public string EnabledCpus => string.Join(',', Host.Cpus.Select(c => c.Id).Where(Enabled));

    /// <summary>
    /// Makes a processor unable to enter: on Intel CR0.NE is cleared, so that VMXON raises #GP; on AMD EFER.SVME is set already, as if another hypervisor ran.
    /// </summary>
    public void Break(int cpu) => Host.SmpCallFunctionSingle(cpu, _ =>
    {
        HostX86Cpu here = _kernel.X86.ThisCpu;
        if (_intel) here.WriteCr0(here.ReadCr0() & ~Cr0Ne);
        else here.Wrmsr(MsrEfer, here.Rdmsr(MsrEfer) | EferSvme);
    });

    private Processor Processor => _kernel.X86.ThisCpu.Processor;

    public void Dispose() => _kernel.Dispose();
}
