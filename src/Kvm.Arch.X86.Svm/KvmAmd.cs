using System.Runtime.CompilerServices;
using Kvm.Core;
using Kvm.Emulator.Svm;

namespace Kvm.Arch.X86.Svm;

/// <summary>
/// kvm_amd: the SVM implementation of <see cref="IKvmX86Ops"/>. One object per loaded module; its files follow the functions of svm.c:
/// Module, HardwareSetup, HardwareEnable, Vcpu, VcpuReset, Load, Run, Exits, Events, Segments, ControlRegisters, Msr, Tlb, Nested, Dump.
/// </summary>
/// <remarks>arch/x86/kvm/svm/svm.c. SEV, AVIC and Hyper-V enlightenments are absent: the modelled processors do not announce them.</remarks>
public sealed unsafe partial class KvmAmd : IKvmX86Ops, IKvmX86InitOps
{
    private readonly X86Arch arch;
    private readonly Host host;
    private readonly HostX86 system;

    // svm_data: per possible CPU.
    private readonly SvmCpuData[] svmData;

    internal KvmAmd(X86Arch arch, SvmParameters parameters)
    {
        this.arch = arch;
        host = arch.Host;
        system = arch.HostX86;
        Parameters = parameters;
        svmData = new SvmCpuData[host.Cpus.Count];
        currentTscRatio = new ulong[host.Cpus.Count];
    }

    /// <summary>The module's parameters, as hardware_setup left them.</summary>
    internal SvmParameters Parameters { get; }

    public string Name => "kvm_amd";

    public IKvmX86Ops RuntimeOps => this;

    public IKvmPmuOps PmuOps { get; } = new AmdPmu();

    public X86Vm AllocVm() => new KvmSvm(arch);

    public X86Vcpu AllocVcpu(X86Vm vm) => new VcpuSvm((KvmSvm)vm);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static VcpuSvm ToSvm(X86Vcpu vcpu) => Unsafe.As<VcpuSvm>(vcpu);

    private HostX86Cpu ThisCpu => system.ThisCpu;

    private int SmpProcessorId => host.CurrentCpu.Id;

    private bool BootCpuHas(X86Feature feature) => system.BootCpuHas(feature);

    private static void MarkDirty(Vmcb* vmcb, int bit) => vmcb->Control.Clean &= (VmcbClean)~(1u << bit);

    private static void MarkAllDirty(Vmcb* vmcb) => vmcb->Control.Clean = VmcbClean.None;

    private static void MarkAllClean(Vmcb* vmcb) => vmcb->Control.Clean = (VmcbClean)(SvmConst.VMCB_ALL_CLEAN_MASK & ~SvmConst.VMCB_ALWAYS_DIRTY_MASK);
}
