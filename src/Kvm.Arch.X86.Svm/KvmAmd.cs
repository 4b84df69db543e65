using System.Runtime.CompilerServices;
using Kvm.Core;
using Kvm.Core.Tracing;
using Kvm.Emulator.Svm;

namespace Kvm.Arch.X86.Svm;

/// <summary>
/// The kernel module kvm_amd: SVM for KVM. Insert it with <c>host.Modules.Insert(new KvmAmd(arch))</c> after kvm. One object per host; its files follow the functions of svm.c:
/// Module, HardwareSetup, HardwareEnable, Vcpu, VcpuReset, Load, Run, Exits, Events, Segments, ControlRegisters, Msr, Tlb, Nested, Dump.
/// </summary>
/// <remarks>arch/x86/kvm/svm/svm.c. SEV, AVIC and Hyper-V enlightenments are absent: the modelled processors do not announce them.</remarks>
public sealed unsafe partial class KvmAmd : HostModule, IKvmX86Ops, IKvmX86InitOps
{
    private readonly X86Arch arch;
    private readonly HostX86 system;

    /// <summary>svm_data: per possible CPU.</summary>
    private readonly SvmCpuData[] svmData;

    /// <summary>The module's parameters, as hardware_setup left them.</summary>
    internal SvmParameters Params { get; } = new();

    IKvmX86Ops IKvmX86InitOps.RuntimeOps => this;

    IKvmPmuOps IKvmX86InitOps.PmuOps { get; } = new AmdPmu();

    public X86Vm AllocVm(KvmModule module) => new KvmSvm(module, arch);

    public X86Vcpu AllocVcpu(X86Vm vm) => new VcpuSvm((KvmSvm)vm);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static VcpuSvm ToSvm(X86Vcpu vcpu) => Unsafe.As<VcpuSvm>(vcpu);

    private HostX86Cpu ThisCpu => system.ThisCpu;

    private int SmpProcessorId => Host.CurrentCpu.Id;

    private bool BootCpuHas(X86Feature feature) => system.BootCpuHas(feature);

    private static void MarkDirty(Vmcb* vmcb, int bit) => vmcb->Control.Clean &= (VmcbClean)~(1u << bit);

    private static void MarkAllDirty(Vmcb* vmcb) => vmcb->Control.Clean = VmcbClean.None;

    private static void MarkAllClean(Vmcb* vmcb) => vmcb->Control.Clean = (VmcbClean)(SvmConst.VMCB_ALL_CLEAN_MASK & ~SvmConst.VMCB_ALWAYS_DIRTY_MASK);

    /// <summary>pr_info and pr_err with this module's prefix.</summary>
    private void PrInfo(string text) => Host.Log.Info("SVM: " + text);

    private void PrErr(string text) => Host.Log.Err("SVM: " + text);

    [KernelFunction("vcpu_unimpl", File = "include/linux/kvm_host.h")]
    private void VcpuUnimpl(VcpuSvm svm, string text) => Host.Log.Ratelimited(LogLevel.Err, "vcpu_unimpl", $"kvm [{HostTask.Current.Pid}]: vcpu{svm.VcpuId}, guest rIP: 0x{svm.Rip:x} {text}");

    /// <summary>An SVM instruction raised an exception: a bug, unless virtualization was switched off for a reboot.</summary>
    [KernelFunction("kvm_spurious_fault", File = "arch/x86/kvm/x86.c")]
    private void SpuriousFault()
    {
        if (!arch.Module.Rebooting)
            Host.Log.WarnOnce(true, "kvm_spurious_fault", "kernel BUG at arch/x86/kvm/x86.c: kvm_spurious_fault");
    }
}
