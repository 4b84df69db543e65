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

    /// <summary>insmod kvm.</summary>
    public KvmResult LoadKvm() => _kernel.LoadKvm();

    /// <summary>insmod kvm_intel or kvm_amd, and kvm before it if need be.</summary>
    public KvmResult Load() => _kernel.LoadVendor(Vendor);

    public KvmResult Unload() => Host.Modules.Remove(Vendor.Name);

    public KvmResult Open() => Process.Open("/dev/kvm", Fcntl.O_RDWR | Fcntl.O_CLOEXEC);

    public KvmResult CreateVm(int kvm) => Process.Ioctl(kvm, KVM_CREATE_VM);

    /// <summary>KVM_ENABLE_CAP KVM_CAP_DIRTY_LOG_RING: each vCPU gets a ring.</summary>
    /// <returns>The VM's descriptor.</returns>
    public int WithDirtyRing(int vm)
    {
        var cap = new kvm_enable_cap { cap = (uint)KVM_CAP_DIRTY_LOG_RING };
        cap.args[0] = 65536; // bytes
        Process.Ioctl(vm, KVM_ENABLE_CAP, ref cap);
        return vm;
    }

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

    /// <summary>Takes <see cref="Break"/> back.</summary>
    public void Mend(int cpu) => Host.SmpCallFunctionSingle(cpu, _ =>
    {
        HostX86Cpu here = _kernel.X86.ThisCpu;
        if (_intel) here.WriteCr0(here.ReadCr0() | Cr0Ne);
        else here.Wrmsr(MsrEfer, here.Rdmsr(MsrEfer) & ~EferSvme);
    });

    /// <summary>The next VMXON of a processor raises #GP.</summary>
    public void BreakNextVmxon(int cpu) => _kernel.Machine.Processors[cpu].InstructionFaults.Add("VMXON", InstructionResult.Faulted(Fault.Gp()));

    /// <summary>Everything that a call which fails must leave as it was, in one line.</summary>
    public string State
    {
        get
        {
            string modules = string.Join(',', Host.Modules.Loaded.Select(m => $"{m.Name}:{m.RefCount}"));
            int debugfs = Host.Debugfs.Exists("kvm") ? Host.Debugfs.List("kvm").Count : 0;
            return $"{Host.Pages.InUse} pages, {Host.Pages.VmallocInUse} vmalloc, {Process.Files.Count} files, {Host.Devices.All.Count} devices, " +
                $"{debugfs} in debugfs, modules {modules}, {Kvm.UsageCount} VMs, {Kvm.VmList.Sum(v => v.CreatedVcpus)} vCPUs, virtualization on in [{EnabledCpus}]";
        }
    }

    private Processor Processor => _kernel.X86.ThisCpu.Processor;

    public void Dispose() => _kernel.Dispose();
}
