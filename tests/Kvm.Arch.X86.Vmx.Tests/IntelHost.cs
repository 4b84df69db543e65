using Kvm.Abi;
using Kvm.Core;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Vmx.Tests;

/// <summary>An emulated Intel machine with a kernel on it; modules are loaded by the test.</summary>
internal sealed class IntelHost : IDisposable
{
    private readonly KernelHost kernel;

    public IntelHost(CpuModel? model = null, int cpus = 2, Func<int, BiosSettings>? bios = null, Func<int, CpuModel>? models = null)
    {
        model ??= CpuModel.Load("bochs-skylake-x");
        kernel = KernelHost.Create(
            new MachineOptions
            {
                Processors = [.. Enumerable.Range(0, cpus).Select(i => new ProcessorOptions(models?.Invoke(i) ?? model) { Bios = bios?.Invoke(i) ?? BiosSettings.Default })],
            },
            new HostOptions { CpuCount = cpus });
        kernel.LoadKvm().IsError.Should().BeFalse();
    }

    public Machine Machine => kernel.Machine;
    public Host Host => kernel.Host;
    public HostX86 HostX86 => kernel.X86;
    public X86Arch Arch => kernel.Arch;
    public KvmModule Kvm => kernel.Kvm;
    public KvmIntel Vmx { get; private set; } = null!;
    public HostProcess Process => Host.Process;

    /// <summary>insmod kvm_intel.</summary>
    public KvmResult Load(string parameters = "")
    {
        Vmx = new KvmIntel(Arch);
        return Host.Modules.Insert(Vmx, parameters);
    }

    /// <summary>A host with kvm_intel loaded.</summary>
    public static IntelHost Loaded(string parameters = "", CpuModel? model = null, int cpus = 2)
    {
        var host = new IntelHost(model, cpus);
        host.Load(parameters).Should().Be((KvmResult)0);
        return host;
    }

    public int OpenKvm() => Process.Open("/dev/kvm").Value;

    /// <summary>The descriptor of the vCPU created last.</summary>
    public int VcpuFd { get; private set; } = -1;

    /// <summary>The descriptor of the VM created last.</summary>
    public int VmFd { get; private set; } = -1;

    public int CreateVm()
    {
        int kvm = OpenKvm();
        int vm = Process.Ioctl(kvm, KVM_CREATE_VM).Value;
        Process.Close(kvm);
        vm.Should().BePositive();
        VmFd = vm;
        return vm;
    }

    public int CreateVcpu(int vm, uint id = 0)
    {
        KvmResult fd = Process.Ioctl(vm, KVM_CREATE_VCPU, id);
        fd.IsError.Should().BeFalse(fd.ToString());
        VcpuFd = fd.Value;
        return fd.Value;
    }

    /// <summary>The vCPU object behind the only VM.</summary>
    public VcpuVmx Vcpu(int index = 0, int vm = 0) => (VcpuVmx)Kvm.VmList[vm].GetVcpu(index)!;

    /// <summary>Runs code as the kernel on a CPU.</summary>
    public void OnCpu(int cpu, Action action) => Host.SmpCallFunctionSingle(cpu, _ => action()).Should().Be((KvmResult)0);

    public IEnumerable<string> Dmesg => Host.Log.Lines;

    public void Dispose() => kernel.Dispose();
}
