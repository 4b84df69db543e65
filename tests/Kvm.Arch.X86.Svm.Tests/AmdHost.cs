using Kvm.Abi;
using Kvm.Core;
using Kvm.Emulator;
using Kvm.Emulator.Svm;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Svm.Tests;

/// <summary>An emulated AMD machine with a kernel and kvm.ko on it; kvm_amd is loaded by the test.</summary>
internal sealed unsafe class AmdHost : IDisposable
{
    private readonly KernelHost kernel;

    public AmdHost(CpuModel? model = null, int cpus = 2, Func<int, BiosSettings>? bios = null, KernelProfile profile = KernelProfile.Linux61)
    {
        model ??= Recorded;
        kernel = KernelHost.Create(
            new MachineOptions
            {
                Processors = [.. Enumerable.Range(0, cpus).Select(i => new ProcessorOptions(model) { Bios = bios?.Invoke(i) ?? BiosSettings.Default })],
            },
            new HostOptions { CpuCount = cpus, Profile = profile });
        kernel.LoadKvm().IsError.Should().BeFalse();
        Log = new HardwareLog();
        foreach (Processor cpu in Machine.Processors)
            cpu.Observer = Log;
    }

    /// <summary>The processor of the recorded loads and dumps, QEMU's EPYC: of SVM's optional features it has nested paging only.</summary>
    public static CpuModel Recorded { get; } = WithSvmLeaf(new CpuidLeaf(1, 16, 0, 1));

    /// <summary>The same with another leaf 0x8000000a: revision, number of ASIDs, 0, features.</summary>
    public static CpuModel WithSvmLeaf(CpuidLeaf svm) => CpuModel.Load("bochs-ryzen").With(cpuid: (leaf, _, d) => leaf == 0x8000000a ? svm : d);

    public Machine Machine => kernel.Machine;
    public Host Host => kernel.Host;
    public HostX86 HostX86 => kernel.X86;
    public X86Arch Arch => kernel.Arch;
    public KvmModule Kvm => kernel.Kvm;
    public KvmAmd Amd { get; private set; } = null!;
    public HardwareLog Log { get; }
    public HostProcess Process => Host.Process;
    public IEnumerable<string> Dmesg => Host.Log.Records.Select(static r => r.Text);

    /// <summary>insmod kvm_amd.</summary>
    public KvmResult Load(string parameters = "")
    {
        Amd = new KvmAmd(Arch);
        return Host.Modules.Insert(Amd, parameters);
    }

    /// <summary>A host with kvm_amd loaded.</summary>
    public static AmdHost Loaded(string parameters = "", CpuModel? model = null, int cpus = 2)
    {
        var host = new AmdHost(model, cpus);
        host.Load(parameters).Should().Be((KvmResult)0, string.Join("\n", host.Dmesg));
        return host;
    }

    public int OpenKvm() => Process.Open("/dev/kvm").Value;

    public KvmResult TryCreateVm()
    {
        int kvm = OpenKvm();
        KvmResult vm = Process.Ioctl(kvm, KVM_CREATE_VM);
        Process.Close(kvm);
        return vm;
    }

    public int CreateVm()
    {
        KvmResult vm = TryCreateVm();
        vm.IsError.Should().BeFalse(vm.ToString());
        return vm.Value;
    }

    public int CreateVcpu(int vm, uint id = 0)
    {
        KvmResult fd = Process.Ioctl(vm, KVM_CREATE_VCPU, id);
        fd.IsError.Should().BeFalse(fd.ToString());
        return fd.Value;
    }

    public VcpuSvm Vcpu(int index = 0, int vm = 0) => (VcpuSvm)Kvm.VmList[vm].GetVcpu(index)!;

    /// <summary>Runs code as the kernel on a CPU.</summary>
    public void OnCpu(int cpu, Action action) => Host.SmpCallFunctionSingle(cpu, _ => action()).Should().Be((KvmResult)0);

    public ulong ReadMsr(int cpu, uint index)
    {
        ulong value = 0;
        OnCpu(cpu, () => value = HostX86.Cpus[cpu].Rdmsr(index));
        return value;
    }

    public void Dispose() => kernel.Dispose();
}
