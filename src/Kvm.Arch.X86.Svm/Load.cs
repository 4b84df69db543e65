using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Arch.X86.MsrIndex;

namespace Kvm.Arch.X86.Svm;

/// <summary>Putting a vCPU on a CPU and taking it off; host state that VMRUN and #VMEXIT leave alone.</summary>
public sealed unsafe partial class KvmAmd
{
    [KernelFunction("svm_vcpu_load", File = "arch/x86/kvm/svm/svm.c")]
    public void VcpuLoad(X86Vcpu vcpu, int cpu)
    {
        FunctionTrace.Leaf("svm_vcpu_load");
        VcpuSvm svm = ToSvm(vcpu);
        HostX86Cpu current = vcpu.LoadedCpu;
        svm.Processor = current.Processor;
        ref SvmCpuData sd = ref svmData[cpu];
        if (sd.CurrentVmcb == svm.Vmcb)
            return;
        sd.CurrentVmcb = svm.Vmcb;
        // indirect_branch_prediction_barrier: another guest's branches must not steer this one.
        if (BootCpuHas(X86Feature.USE_IBPB))
            current.Wrmsr(MSR_IA32_PRED_CMD, 1);
    }

    [KernelFunction("svm_vcpu_put", File = "arch/x86/kvm/svm/svm.c")]
    public void VcpuPut(X86Vcpu vcpu)
    {
        FunctionTrace.Leaf("svm_vcpu_put");
        ToSvm(vcpu).GuestStateLoaded = false;
        vcpu.Stat.HostStateReload++;
    }

    /// <summary>Keeps the host's FS, GS, TR, LDTR and SYSCALL MSRs in the host save area, and loads TSC ratio and TSC_AUX of the guest, until the vCPU is put.</summary>
    [KernelFunction("svm_prepare_switch_to_guest", File = "arch/x86/kvm/svm/svm.c", Formerly = "svm_prepare_guest_switch")]
    public void PrepareSwitchToGuest(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("svm_prepare_switch_to_guest");
        VcpuSvm svm = ToSvm(vcpu);
        if (svm.GuestStateLoaded)
            return;
        Expect(svm.Processor.Vmsave(svmData[vcpu.Cpu].SaveAreaPa));
        if (Params.TscScaling != 0)
            WriteTscRatio(vcpu.TscScalingRatio);
        if (tscAuxUretSlot >= 0)
            system.UserReturn.Set(tscAuxUretSlot, svm.TscAux, ulong.MaxValue);
        svm.GuestStateLoaded = true;
    }

    /// <summary>SVM instructions fault only when SVM was turned off under KVM's feet.</summary>
    private void Expect(InstructionResult result)
    {
        if (result.IsFault)
            SpuriousFault();
    }

    [KernelFunction("svm_sched_in", File = "arch/x86/kvm/svm/svm.c")]
    public void SchedIn(X86Vcpu vcpu, int cpu)
    {
        if (!vcpu.Vm.PauseInGuest)
            ShrinkPleWindow(ToSvm(vcpu));
    }
}
