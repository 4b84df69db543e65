using Kvm.Core.Tracing;
using Kvm.Emulator.Svm;
using static Kvm.Arch.X86.MsrIndex;
using static Kvm.Arch.X86.Svm.SvmConst;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86.Svm;

/// <summary>MSRs that live in the VMCB or belong to SVM; the others go to common code.</summary>
public sealed unsafe partial class KvmAmd
{
    private const ulong MSR_AMD64_DE_CFG_LFENCE_SERIALIZE = 2, PRED_CMD_IBPB = 1, SPEC_CTRL_IBRS = 1, SPEC_CTRL_STIBP = 2, SPEC_CTRL_SSBD = 4;

    [KernelFunction("svm_get_msr_feature", File = "arch/x86/kvm/svm/svm.c")]
    public int GetMsrFeature(ref MsrData entry)
    {
        FunctionTrace.Leaf("svm_get_msr_feature");
        entry.Data = 0;
        switch (entry.Index)
        {
            case MSR_AMD64_DE_CFG:
                if (BootCpuHas(X86Feature.LFENCE_RDTSC))
                    entry.Data |= MSR_AMD64_DE_CFG_LFENCE_SERIALIZE;
                return 0;
            case MSR_IA32_PERF_CAPABILITIES:
                entry.Data = arch.KvmCaps.SupportedPerfCap;
                return 0;
            default:
                return KVM_MSR_RET_UNSUPPORTED;
        }
    }

    private static bool GuestHasSpecCtrlMsr(X86Vcpu vcpu) => vcpu.GuestCpuidHas(X86Feature.SPEC_CTRL) || vcpu.GuestCpuidHas(X86Feature.AMD_STIBP)
        || vcpu.GuestCpuidHas(X86Feature.AMD_IBRS) || vcpu.GuestCpuidHas(X86Feature.AMD_SSBD);

    private static bool GuestHasPredCmdMsr(X86Vcpu vcpu) => vcpu.GuestCpuidHas(X86Feature.SPEC_CTRL) || vcpu.GuestCpuidHas(X86Feature.AMD_IBPB);

    [KernelFunction("svm_get_msr", File = "arch/x86/kvm/svm/svm.c")]
    public int GetMsr(X86Vcpu vcpu, ref MsrData msr)
    {
        using var _ = FunctionTrace.Enter("svm_get_msr");
        VcpuSvm svm = ToSvm(vcpu);
        VmcbSaveArea* save = &svm.Vmcb01.Ptr->Save;
        switch (msr.Index)
        {
            case MSR_AMD64_TSC_RATIO:
                if (!msr.HostInitiated && !svm.TscScalingEnabled)
                    return 1;
                msr.Data = svm.TscRatioMsr;
                return 0;
            case MSR_STAR: msr.Data = save->Star; return 0;
            case MSR_LSTAR: msr.Data = save->Lstar; return 0;
            case MSR_CSTAR: msr.Data = save->Cstar; return 0;
            case MSR_GS_BASE: msr.Data = save->Gs.Base; return 0;
            case MSR_FS_BASE: msr.Data = save->Fs.Base; return 0;
            case MSR_KERNEL_GS_BASE: msr.Data = save->KernelGsBase; return 0;
            case MSR_SYSCALL_MASK: msr.Data = save->Sfmask; return 0;
            case MSR_IA32_SYSENTER_CS: msr.Data = save->SysenterCs; return 0;
            case MSR_IA32_SYSENTER_EIP:
                msr.Data = (uint)save->SysenterEip;
                if (vcpu.GuestCpuidIsIntel)
                    msr.Data |= (ulong)svm.SysenterEipHi << 32;
                return 0;
            case MSR_IA32_SYSENTER_ESP:
                msr.Data = save->SysenterEsp;
                if (vcpu.GuestCpuidIsIntel)
                    msr.Data |= (ulong)svm.SysenterEspHi << 32;
                return 0;
            case MSR_TSC_AUX: msr.Data = svm.TscAux; return 0;
            case MSR_IA32_DEBUGCTLMSR or MSR_IA32_LASTBRANCHFROMIP or MSR_IA32_LASTBRANCHTOIP or MSR_IA32_LASTINTFROMIP or MSR_IA32_LASTINTTOIP:
                msr.Data = GetLbrMsr(svm, msr.Index);
                return 0;
            case MSR_VM_HSAVE_PA: msr.Data = svm.NestedHsaveMsr; return 0;
            case MSR_VM_CR: msr.Data = svm.NestedVmCrMsr; return 0;
            case MSR_IA32_SPEC_CTRL:
                if (!msr.HostInitiated && !GuestHasSpecCtrlMsr(vcpu))
                    return 1;
                msr.Data = BootCpuHas(X86Feature.V_SPEC_CTRL) ? svm.Vmcb->Save.SpecCtrl : svm.SpecCtrl;
                return 0;
            case MSR_AMD64_VIRT_SPEC_CTRL:
                if (!msr.HostInitiated && !vcpu.GuestCpuidHas(X86Feature.VIRT_SSBD))
                    return 1;
                msr.Data = svm.VirtSpecCtrl;
                return 0;
            case MSR_F15H_IC_CFG: return GetF15hIcCfg(vcpu, ref msr);
            case MSR_AMD64_DE_CFG: msr.Data = svm.MsrDecfg; return 0;
            default: return vcpu.GetMsrCommon(ref msr);
        }
    }

    private static int GetF15hIcCfg(X86Vcpu vcpu, ref MsrData msr)
    {
        int family = vcpu.GuestCpuidFamily;
        if (!vcpu.FindCpuidEntry(1, out Abi.kvm_cpuid_entry2 entry))
            return vcpu.GetMsrCommon(ref msr);
        uint model = (entry.eax >> 4 & 0xf) | (entry.eax >> 12 & 0xf0);
        msr.Data = family == 0x15 && model is >= 2 and < 0x20 ? 0x1eu : 0;
        return 0;
    }

    [KernelFunction("svm_set_msr", File = "arch/x86/kvm/svm/svm.c")]
    public int SetMsr(X86Vcpu vcpu, ref MsrData msr)
    {
        using var _ = FunctionTrace.Enter("svm_set_msr");
        VcpuSvm svm = ToSvm(vcpu);
        VmcbSaveArea* save = &svm.Vmcb01.Ptr->Save;
        ulong data = msr.Data;
        switch (msr.Index)
        {
            case MSR_AMD64_TSC_RATIO: return SetTscRatio(svm, msr);
            case MSR_IA32_CR_PAT:
                if (!vcpu.MtrrValid(MSR_IA32_CR_PAT, data))
                    return 1;
                vcpu.Pat = data;
                save->GPat = data;
                MarkDirty(svm.Vmcb, VMCB_NPT);
                return 0;
            case MSR_IA32_SPEC_CTRL: return SetSpecCtrl(svm, msr);
            case MSR_IA32_PRED_CMD: return SetPredCmd(svm, msr);
            case MSR_AMD64_VIRT_SPEC_CTRL:
                if (!msr.HostInitiated && !vcpu.GuestCpuidHas(X86Feature.VIRT_SSBD))
                    return 1;
                if ((data & ~SPEC_CTRL_SSBD) != 0)
                    return 1;
                svm.VirtSpecCtrl = data;
                return 0;
            case MSR_STAR: save->Star = data; return 0;
            case MSR_LSTAR: save->Lstar = data; return 0;
            case MSR_CSTAR: save->Cstar = data; return 0;
            case MSR_GS_BASE: save->Gs.Base = data; return 0;
            case MSR_FS_BASE: save->Fs.Base = data; return 0;
            case MSR_KERNEL_GS_BASE: save->KernelGsBase = data; return 0;
            case MSR_SYSCALL_MASK: save->Sfmask = data; return 0;
            case MSR_IA32_SYSENTER_CS: save->SysenterCs = data; return 0;
            case MSR_IA32_SYSENTER_EIP:
                // Intercepted only for guests that believe in Intel: the upper half, which the hardware drops, is kept here.
                save->SysenterEip = (uint)data;
                svm.SysenterEipHi = vcpu.GuestCpuidIsIntel ? (uint)(data >> 32) : 0;
                return 0;
            case MSR_IA32_SYSENTER_ESP:
                save->SysenterEsp = (uint)data;
                svm.SysenterEspHi = vcpu.GuestCpuidIsIntel ? (uint)(data >> 32) : 0;
                return 0;
            case MSR_TSC_AUX:
                if (system.UserReturn.Set(tscAuxUretSlot, data, ulong.MaxValue) != 0)
                    return 1;
                svm.TscAux = data;
                return 0;
            case MSR_IA32_DEBUGCTLMSR: return SetDebugctl(svm, msr.Index, data);
            case MSR_VM_HSAVE_PA:
                // Userspace may restore what an older kernel let a guest write.
                if (!msr.HostInitiated && ((data & 0xfff) != 0 || vcpu.IsIllegalGpa(data)))
                    return 1;
                svm.NestedHsaveMsr = data & ~0xffful;
                return 0;
            case MSR_VM_CR: return SetVmCr(svm, data);
            case MSR_VM_IGNNE:
                arch.PrUnimplWrmsr(vcpu, msr.Index, data);
                return 0;
            case MSR_AMD64_DE_CFG: return SetDeCfg(svm, msr);
            default: return vcpu.SetMsrCommon(ref msr);
        }
    }

    private static int SetTscRatio(VcpuSvm svm, in MsrData msr)
    {
        if (!svm.TscScalingEnabled)
        {
            if (!msr.HostInitiated)
                return 1;
            // A userspace is known that writes 0 here; the value stays the default.
            return msr.Data != 0 && msr.Data != svm.TscRatioMsr ? 1 : 0;
        }

        if ((msr.Data & SVM_TSC_RATIO_RSVD) != 0)
            return 1;
        svm.TscRatioMsr = msr.Data;
        return 0;
    }

    /// <summary>The first non-zero value passes the MSR through from then on.</summary>
    private int SetSpecCtrl(VcpuSvm svm, in MsrData msr)
    {
        if (!msr.HostInitiated && !GuestHasSpecCtrlMsr(svm))
            return 1;
        if (SpecCtrlTestValue(msr.Data))
            return 1;
        if (BootCpuHas(X86Feature.V_SPEC_CTRL))
            svm.Vmcb->Save.SpecCtrl = msr.Data;
        else
            svm.SpecCtrl = msr.Data;
        if (msr.Data != 0)
            SetMsrInterception(svm, MSR_IA32_SPEC_CTRL, true, true);
        return 0;
    }

    /// <summary>kvm_spec_ctrl_test_value: true when the host's processor would refuse the value.</summary>
    private bool SpecCtrlTestValue(ulong value)
    {
        ulong supported = 0;
        if (BootCpuHas(X86Feature.MSR_SPEC_CTRL) || BootCpuHas(X86Feature.AMD_IBRS) || BootCpuHas(X86Feature.SPEC_CTRL))
            supported |= SPEC_CTRL_IBRS;
        if (BootCpuHas(X86Feature.AMD_STIBP) || BootCpuHas(X86Feature.STIBP))
            supported |= SPEC_CTRL_STIBP;
        if (BootCpuHas(X86Feature.AMD_SSBD) || BootCpuHas(X86Feature.SSBD))
            supported |= SPEC_CTRL_SSBD;
        return (value & ~supported) != 0;
    }

    private int SetPredCmd(VcpuSvm svm, in MsrData msr)
    {
        if (!msr.HostInitiated && !GuestHasPredCmdMsr(svm))
            return 1;
        if ((msr.Data & ~PRED_CMD_IBPB) != 0 || !BootCpuHas(X86Feature.IBPB))
            return 1;
        if (msr.Data == 0)
            return 0;
        ThisCpu.Wrmsr(MSR_IA32_PRED_CMD, PRED_CMD_IBPB);
        SetMsrInterception(svm, MSR_IA32_PRED_CMD, false, true);
        return 0;
    }

    [KernelFunction("svm_set_vm_cr", File = "arch/x86/kvm/svm/svm.c")]
    private static int SetVmCr(VcpuSvm svm, ulong data)
    {
        if ((data & ~SVM_VM_CR_VALID_MASK) != 0)
            return 1;
        ulong change = SVM_VM_CR_VALID_MASK;
        if ((svm.NestedVmCrMsr & SVM_VM_CR_SVM_DIS_MASK) != 0)
            change &= ~(SVM_VM_CR_SVM_LOCK_MASK | SVM_VM_CR_SVM_DIS_MASK);
        svm.NestedVmCrMsr = (svm.NestedVmCrMsr & ~change) | (data & change);
        return (svm.NestedVmCrMsr & SVM_VM_CR_SVM_DIS_MASK) != 0 && (svm.Efer & EFER_SVME) != 0 ? 1 : 0;
    }

    /// <summary>Only supported bits, and a guest may not change any.</summary>
    private int SetDeCfg(VcpuSvm svm, in MsrData msr)
    {
        var entry = new MsrData { Index = msr.Index };
        if (GetMsrFeature(ref entry) != 0)
            return 1;
        if ((msr.Data & ~entry.Data) != 0)
            return 1;
        if (!msr.HostInitiated && (msr.Data ^ entry.Data) != 0)
            return 1;
        svm.MsrDecfg = msr.Data;
        return 0;
    }

    [KernelFunction("svm_complete_emulated_msr", File = "arch/x86/kvm/svm/svm.c")]
    public int CompleteEmulatedMsr(X86Vcpu vcpu, int err)
    {
        using var _ = FunctionTrace.Enter("svm_complete_emulated_msr");
        return vcpu.CompleteInsnGp(err);
    }

    [KernelFunction("svm_write_tsc_offset", File = "arch/x86/kvm/svm/svm.c")]
    public void WriteTscOffset(X86Vcpu vcpu, ulong offset)
    {
        FunctionTrace.Leaf("svm_write_tsc_offset");
        VcpuSvm svm = ToSvm(vcpu);
        svm.Vmcb01.Ptr->Control.TscOffset = vcpu.L1TscOffset;
        svm.Vmcb->Control.TscOffset = offset;
        MarkDirty(svm.Vmcb, VMCB_INTERCEPTS);
    }

    [KernelFunction("svm_write_tsc_multiplier", File = "arch/x86/kvm/svm/svm.c")]
    public void WriteTscMultiplier(X86Vcpu vcpu, ulong multiplier) => WriteTscRatio(multiplier);
}
