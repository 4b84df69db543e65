using Kvm.Core.Tracing;
using Kvm.Emulator.Svm;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.MsrIndex;
using static Kvm.Arch.X86.Svm.SvmConst;
using static Kvm.Arch.X86.Svm.SvmIntercept;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86.Svm;

/// <summary>The VMCB of a new or reset vCPU, and what CPUID changes in it.</summary>
public sealed unsafe partial class KvmAmd
{
    // Read/write data; the accessed bit is not set, as the kernel leaves it.
    private const ushort attribData = SVM_SELECTOR_P_MASK | SVM_SELECTOR_S_MASK | SVM_SELECTOR_WRITE_MASK;
    private const ushort attribCode = SVM_SELECTOR_READ_MASK | SVM_SELECTOR_P_MASK | SVM_SELECTOR_S_MASK | SVM_SELECTOR_CODE_MASK;

    private static void InitSeg(ref VmcbSegment seg) => seg = new VmcbSegment { Attributes = attribData, Limit = 0xffff };

    private static void InitSysSeg(ref VmcbSegment seg, int type) => seg = new VmcbSegment { Attributes = (ushort)(SVM_SELECTOR_P_MASK | type), Limit = 0xffff };

    [KernelFunction("svm_vcpu_reset", File = "arch/x86/kvm/svm/svm.c")]
    public void VcpuReset(X86Vcpu vcpu, bool initEvent)
    {
        using var _ = FunctionTrace.Enter("svm_vcpu_reset");
        VcpuSvm svm = ToSvm(vcpu);
        svm.SpecCtrl = 0;
        svm.VirtSpecCtrl = 0;
        InitVmcb(svm);
        if (!initEvent)
            ResetOnce(svm);
    }

    /// <summary>What power-up resets and INIT leaves: the permission map, errata status, microcode revision, the guest's TSC ratio.</summary>
    [KernelFunction("__svm_vcpu_reset", File = "arch/x86/kvm/svm/svm.c")]
    private void ResetOnce(VcpuSvm svm)
    {
        VcpuInitMsrpm(svm);
        InitOsvw(svm);
        svm.MicrocodeVersion = 0x01000065;
        svm.TscRatioMsr = arch.KvmCaps.DefaultTscScalingRatio;
    }

    /// <summary>Guests see errata 400 and 415 as fixed; 298 as present when the host can't say.</summary>
    private void InitOsvw(VcpuSvm svm)
    {
        svm.OsvwLength = osvwLen >= 3 ? osvwLen : 3;
        svm.OsvwStatus = osvwStatus & ~6ul;
        if (osvwLen == 0 && system.BootCpuData.Family == 0x10)
            svm.OsvwStatus |= 1;
    }

    [KernelFunction("init_vmcb", File = "arch/x86/kvm/svm/svm.c")]
    private void InitVmcb(VcpuSvm svm)
    {
        Vmcb* vmcb = svm.Vmcb01.Ptr;
        InitIntercepts(svm);
        InitControls(svm, &vmcb->Control);
        InitSave(&vmcb->Save);

        if (Params.Npt)
        {
            vmcb->Control.NestedControl |= SvmNestedControl.NpEnable;
            ClrIntercept(svm, INTERCEPT_INVLPG);
            ClrExceptionIntercept(svm, PF_VECTOR);
            ClrIntercept(svm, INTERCEPT_CR3_READ);
            ClrIntercept(svm, INTERCEPT_CR3_WRITE);
            vmcb->Save.GPat = svm.Pat;
            vmcb->Save.Cr3 = 0;
        }

        svm.CurrentVmcb.AsidGeneration = 0;
        svm.Asid = 0;
        svm.NestedVmcb12Gpa = INVALID_GPA;

        if (!svm.Vm.PauseInGuest)
        {
            vmcb->Control.PauseFilterCount = (ushort)Params.PauseFilterCount;
            if (Params.PauseFilterThresh != 0)
                vmcb->Control.PauseFilterThreshold = (ushort)Params.PauseFilterThresh;
            SetIntercept(svm, INTERCEPT_PAUSE);
        }
        else
        {
            ClrIntercept(svm, INTERCEPT_PAUSE);
        }

        RecalcInstructionIntercepts(svm);
        if (BootCpuHas(X86Feature.V_SPEC_CTRL))
            SetMsrInterception(svm, MSR_IA32_SPEC_CTRL, true, true);
        if (Params.Vgif != 0)
        {
            ClrIntercept(svm, INTERCEPT_STGI);
            ClrIntercept(svm, INTERCEPT_CLGI);
            vmcb->Control.IntControl |= (SvmIntControl)V_GIF_ENABLE_MASK;
        }

        InitVmcbAfterSetCpuid(svm);
        MarkAllDirty(vmcb);
        EnableGif(svm);
    }

    private void InitIntercepts(VcpuSvm svm)
    {
        SetIntercept(svm, INTERCEPT_CR0_READ);
        SetIntercept(svm, INTERCEPT_CR3_READ);
        SetIntercept(svm, INTERCEPT_CR4_READ);
        SetIntercept(svm, INTERCEPT_CR0_WRITE);
        SetIntercept(svm, INTERCEPT_CR3_WRITE);
        SetIntercept(svm, INTERCEPT_CR4_WRITE);
        SetIntercept(svm, INTERCEPT_CR8_WRITE);
        SetDrIntercepts(svm);
        SetExceptionIntercept(svm, PF_VECTOR);
        SetExceptionIntercept(svm, UD_VECTOR);
        SetExceptionIntercept(svm, MC_VECTOR);
        SetExceptionIntercept(svm, AC_VECTOR);
        SetExceptionIntercept(svm, DB_VECTOR);
        // VMware backdoor ports may raise #GP because of the I/O permission bitmap of the guest's TSS.
        if (arch.Params.EnableVmwareBackdoor)
            SetExceptionIntercept(svm, GP_VECTOR);
        SetIntercept(svm, INTERCEPT_INTR);
        SetIntercept(svm, INTERCEPT_NMI);
        if (Params.InterceptSmi)
            SetIntercept(svm, INTERCEPT_SMI);
        SetIntercept(svm, INTERCEPT_SELECTIVE_CR0);
        SetIntercept(svm, INTERCEPT_RDPMC);
        SetIntercept(svm, INTERCEPT_CPUID);
        SetIntercept(svm, INTERCEPT_INVD);
        SetIntercept(svm, INTERCEPT_INVLPG);
        SetIntercept(svm, INTERCEPT_INVLPGA);
        SetIntercept(svm, INTERCEPT_IOIO_PROT);
        SetIntercept(svm, INTERCEPT_MSR_PROT);
        SetIntercept(svm, INTERCEPT_TASK_SWITCH);
        SetIntercept(svm, INTERCEPT_SHUTDOWN);
        SetIntercept(svm, INTERCEPT_VMRUN);
        SetIntercept(svm, INTERCEPT_VMMCALL);
        SetIntercept(svm, INTERCEPT_VMLOAD);
        SetIntercept(svm, INTERCEPT_VMSAVE);
        SetIntercept(svm, INTERCEPT_STGI);
        SetIntercept(svm, INTERCEPT_CLGI);
        SetIntercept(svm, INTERCEPT_SKINIT);
        SetIntercept(svm, INTERCEPT_WBINVD);
        SetIntercept(svm, INTERCEPT_XSETBV);
        SetIntercept(svm, INTERCEPT_RDPRU);
        SetIntercept(svm, INTERCEPT_RSM);
        if (!svm.Vm.MwaitInGuest)
        {
            SetIntercept(svm, INTERCEPT_MONITOR);
            SetIntercept(svm, INTERCEPT_MWAIT);
        }

        if (!svm.Vm.HltInGuest)
            SetIntercept(svm, INTERCEPT_HLT);
    }

    private void InitControls(VcpuSvm svm, VmcbControlArea* control)
    {
        control->IopmBasePa = iopmBase;
        control->MsrpmBasePa = (ulong)svm.Msrpm;
        control->IntControl = (SvmIntControl)V_INTR_MASKING_MASK;
    }

    private static void InitSave(VmcbSaveArea* save)
    {
        InitSeg(ref save->Es);
        InitSeg(ref save->Ss);
        InitSeg(ref save->Ds);
        InitSeg(ref save->Fs);
        InitSeg(ref save->Gs);
        save->Cs = new VmcbSegment { Selector = 0xf000, Base = 0xffff0000, Attributes = attribCode, Limit = 0xffff };
        save->Gdtr.Base = 0;
        save->Gdtr.Limit = 0xffff;
        save->Idtr.Base = 0;
        save->Idtr.Limit = 0xffff;
        InitSysSeg(ref save->Ldtr, SEG_TYPE_LDT);
        InitSysSeg(ref save->Tr, SEG_TYPE_BUSY_TSS16);
    }

    /// <summary>
    /// A guest that believes in an Intel processor has 64-bit SYSENTER MSRs, of which this hardware keeps 32 bits: those accesses exit, and virtual VMLOAD/VMSAVE is off.
    /// </summary>
    private void InitVmcbAfterSetCpuid(VcpuSvm svm)
    {
        ref ulong extensions = ref *(ulong*)&svm.Vmcb->Control.VirtualExtensions;
        if (svm.GuestCpuidIsIntel)
        {
            SetIntercept(svm, INTERCEPT_VMLOAD);
            SetIntercept(svm, INTERCEPT_VMSAVE);
            extensions &= ~VIRTUAL_VMLOAD_VMSAVE_ENABLE_MASK;
            SetMsrInterception(svm, MSR_IA32_SYSENTER_EIP, false, false);
            SetMsrInterception(svm, MSR_IA32_SYSENTER_ESP, false, false);
            svm.VVmloadVmsaveEnabled = false;
            return;
        }

        if (Params.Vls != 0)
        {
            ClrIntercept(svm, INTERCEPT_VMLOAD);
            ClrIntercept(svm, INTERCEPT_VMSAVE);
            extensions |= VIRTUAL_VMLOAD_VMSAVE_ENABLE_MASK;
        }

        SetMsrInterception(svm, MSR_IA32_SYSENTER_EIP, true, true);
        SetMsrInterception(svm, MSR_IA32_SYSENTER_ESP, true, true);
    }

    [KernelFunction("svm_vcpu_after_set_cpuid", File = "arch/x86/kvm/svm/svm.c", Formerly = "svm_cpuid_update")]
    public void VcpuAfterSetCpuid(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("svm_vcpu_after_set_cpuid");
        VcpuSvm svm = ToSvm(vcpu);
        vcpu.XsavesEnabled = vcpu.GuestCpuidHas(X86Feature.XSAVE) && BootCpuHas(X86Feature.XSAVE) && BootCpuHas(X86Feature.XSAVES);
        svm.NripsEnabled = arch.CpuCapHas(X86Feature.NRIPS) && vcpu.GuestCpuidHas(X86Feature.NRIPS);
        svm.TscScalingEnabled = Params.TscScaling != 0 && vcpu.GuestCpuidHas(X86Feature.TSCRATEMSR);
        svm.LbrvEnabled = Params.Lbrv != 0 && vcpu.GuestCpuidHas(X86Feature.LBRV);
        svm.VVmloadVmsaveEnabled = Params.Vls != 0 && vcpu.GuestCpuidHas(X86Feature.V_VMSAVE_VMLOAD);
        svm.PauseFilterEnabled = arch.CpuCapHas(X86Feature.PAUSEFILTER) && vcpu.GuestCpuidHas(X86Feature.PAUSEFILTER);
        svm.PauseThresholdEnabled = arch.CpuCapHas(X86Feature.PFTHRESHOLD) && vcpu.GuestCpuidHas(X86Feature.PFTHRESHOLD);
        svm.VgifEnabled = Params.Vgif != 0 && vcpu.GuestCpuidHas(X86Feature.VGIF);
        RecalcInstructionIntercepts(svm);
        InitVmcbAfterSetCpuid(svm);
    }
}
