using Kvm.Core;
using Kvm.Emulator;

namespace Kvm.Arch.X86.Svm.Tests;

/// <summary>An emulated machine for kvm_amd with a kernel on it; the module is loaded by the test. Records what the kernel does to MSRs.</summary>
internal sealed class AmdHost : IDisposable, IHardwareObserver
{
    private readonly KernelHost _kernel;

    public AmdHost(CpuModel? model = null, int cpus = 2, BiosSettings? bios = null, KernelProfile profile = KernelProfile.Linux61)
    {
        _kernel = KernelHost.Create(MachineOptions.Uniform(model ?? CpuModel.AmdZen, cpus, bios), new HostOptions { CpuCount = cpus, Profile = profile });
        Module = new KvmAmd(_kernel.Arch);
        foreach (Processor cpu in _kernel.Machine.Processors)
            cpu.Observer = this;
    }

    /// <summary>MSR accesses in order: processor, write, index, value.</summary>
    public List<(int Cpu, bool Write, uint Index, ulong Value)> Msrs { get; } = [];

    public KvmAmd Module { get; }

    public Host Host => _kernel.Host;

    public HostX86 X86 => _kernel.X86;

    public Machine Machine => _kernel.Machine;

    public IEnumerable<string> Dmesg => Host.Log.Lines;

    public KvmResult LoadKvm() => _kernel.LoadKvm();

    public KvmResult Load() => _kernel.LoadVendor(Module);

    public int OpenKvm() => Host.Process.Open("/dev/kvm").Value;

    public KvmResult CreateVm(int kvm) => Host.Process.Ioctl(kvm, Abi.Uapi.KVM_CREATE_VM);

    /// <summary>Runs code as the kernel on a CPU.</summary>
    public void OnCpu(int cpu, Action<HostX86Cpu> action) => Host.SmpCallFunctionSingle(cpu, _ => action(X86.ThisCpu)).IsError.Should().BeFalse();

    public void Dispose() => _kernel.Dispose();

    void IHardwareObserver.Msr(Processor cpu, bool write, uint index, ulong value, bool faulted)
    {
        lock (Msrs) Msrs.Add((cpu.Index, write, index, value));
    }

    void IHardwareObserver.ControlRegister(Processor cpu, int register, ulong oldValue, ulong newValue) { }
    void IHardwareObserver.Virtualization(Processor cpu, string mnemonic, ulong operand, ulong value, InstructionResult result) { }
    void IHardwareObserver.EntryCheckFailed(Processor cpu, string rule) { }
    void IHardwareObserver.VmExit(Processor cpu, ulong reason, ulong qualification) { }
}
