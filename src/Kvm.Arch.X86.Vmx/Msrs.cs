using Kvm.Abi;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Arch.X86.Vmx.VmxControls;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx;

/// <summary>MSRs of the guest that kvm_intel keeps itself; all others are the common code's. 0 = done, anything else = #GP (or the errno of KVM_SET_MSRS).</summary>
public sealed unsafe partial class KvmIntel
{
    private const ulong debugctlLbr = 1 << 0, debugctlBtf = 1 << 1, debugctlBusLockDetect = 1 << 2, debugctlFreezeLbrsOnPmi = 1 << 11, debugctlFreezeInSmm = 1 << 14, debugctlRtmDebug = 1 << 15;
    private const ulong tsxCtrlRtmDisable = 1, predCmdIbpb = 1, mcgExtCtlLmceEn = 1;

    /// <summary>Slot of an MSR among those restored at the return to userspace, -1 when it is not one.</summary>
    [KernelFunction("vmx_find_uret_msr", File = "arch/x86/kvm/vmx/vmx.c")]
    private int FindUretMsr(uint msr) => arch.UserReturn.Find(msr);

    [KernelFunction("vmx_set_guest_uret_msr", File = "arch/x86/kvm/vmx/vmx.c")]
    private int SetGuestUretMsr(VcpuVmx vmx, int slot, ulong data)
    {
        ref VmxUretMsr msr = ref vmx.GuestUretMsrs[slot];
        if (msr.LoadIntoHardware)
        {
            int r = arch.UserReturn.Set(slot, data, msr.Mask);
            if (r != 0)
                return r;
        }
        msr.Data = data;
        return 0;
    }

    [KernelFunction("vmx_setup_uret_msr", File = "arch/x86/kvm/vmx/vmx.c")]
    private void SetupUretMsr(VcpuVmx vmx, uint msr, bool loadIntoHardware)
    {
        int slot = FindUretMsr(msr);
        if (slot >= 0)
            vmx.GuestUretMsrs[slot].LoadIntoHardware = loadIntoHardware;
    }

    /// <summary>Decides which MSRs must hold guest values while the guest runs: the SYSCALL ones in long mode with EFER.SCE only, TSC_AUX when RDTSCP or RDPID may be used.</summary>
    [KernelFunction("vmx_setup_uret_msrs", File = "arch/x86/kvm/vmx/vmx.c", Formerly = "setup_msrs")]
    private void SetupUretMsrs(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("vmx_setup_uret_msrs");
        bool loadSyscallMsrs = vmx.IsLongMode && (vmx.Efer & Efer.SCE) != 0;
        SetupUretMsr(vmx, MSR_STAR, loadSyscallMsrs);
        SetupUretMsr(vmx, MSR_LSTAR, loadSyscallMsrs);
        SetupUretMsr(vmx, MSR_SYSCALL_MASK, loadSyscallMsrs);
        SetupUretMsr(vmx, MSR_EFER, UpdateTransitionEfer(vmx));
        SetupUretMsr(vmx, MSR_TSC_AUX, vmx.GuestCpuidHas(X86Feature.RDTSCP) || vmx.GuestCpuidHas(X86Feature.RDPID));
        SetupUretMsr(vmx, MSR_IA32_TSX_CTRL, BootCpuHas(X86Feature.RTM));
        // The set may have changed: load again before the next entry.
        vmx.GuestUretMsrsLoaded = false;
    }

    /// <summary>
    /// Arranges for EFER to hold what the guest needs: by VM-entry and VM-exit controls where the processor has them (or NX differs under EPT),
    /// else as a user-return MSR (true).
    /// </summary>
    [KernelFunction("update_transition_efer", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool UpdateTransitionEfer(VcpuVmx vmx)
    {
        ulong guestEfer = vmx.Efer;
        if (!EnableEpt)
            guestEfer |= Efer.NXE; // shadow pages use it
        ulong ignore = Efer.SCE | Efer.LMA | Efer.LME;
        if ((guestEfer & Efer.LMA) != 0)
            ignore &= ~Efer.SCE;

        if (CpuHasLoadIa32Efer || (EnableEpt && ((vmx.Efer ^ arch.HostEfer) & Efer.NXE) != 0))
        {
            if ((guestEfer & Efer.LMA) == 0)
                guestEfer &= ~Efer.LME;
            if (guestEfer != arch.HostEfer)
                AddAtomicSwitchMsr(vmx, MSR_EFER, guestEfer, arch.HostEfer);
            else
                ClearAtomicSwitchMsr(vmx, MSR_EFER);
            return false;
        }
        int slot = arch.UserReturn.Find(MSR_EFER);
        if (slot < 0)
            return false;
        ClearAtomicSwitchMsr(vmx, MSR_EFER);
        guestEfer &= ~ignore;
        guestEfer |= arch.HostEfer & ignore;
        vmx.GuestUretMsrs[slot].Data = guestEfer;
        vmx.GuestUretMsrs[slot].Mask = ~ignore;
        return true;
    }

    [KernelFunction("clear_atomic_switch_msr", File = "arch/x86/kvm/vmx/vmx.c")]
    private void ClearAtomicSwitchMsr(VcpuVmx vmx, uint msr)
    {
        if (msr == MSR_EFER && CpuHasLoadIa32Efer)
        {
            vmx.VmEntryControlsClearbit(VM_ENTRY_LOAD_IA32_EFER);
            vmx.VmExitControlsClearbit(VM_EXIT_LOAD_IA32_EFER);
            return;
        }
        if (msr == MSR_CORE_PERF_GLOBAL_CTRL && CpuHasLoadPerfGlobalCtrl)
        {
            vmx.VmEntryControlsClearbit(VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL);
            vmx.VmExitControlsClearbit(VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL);
            return;
        }
        if (Remove(ref vmx.MsrAutoloadGuest, msr))
            vmx.Write32(VM_ENTRY_MSR_LOAD_COUNT, vmx.MsrAutoloadGuest.Nr);
        if (Remove(ref vmx.MsrAutoloadHost, msr))
            vmx.Write32(VM_EXIT_MSR_LOAD_COUNT, vmx.MsrAutoloadHost.Nr);

        static bool Remove(ref MsrAutoload area, uint msr)
        {
            int i = area.Find(msr);
            if (i < 0)
                return false;
            area.Nr--;
            area.Values[i] = area.Values[area.Nr];
            return true;
        }
    }

    [KernelFunction("add_atomic_switch_msr", File = "arch/x86/kvm/vmx/vmx.c")]
    private void AddAtomicSwitchMsr(VcpuVmx vmx, uint msr, ulong guestValue, ulong hostValue)
    {
        using var _ = FunctionTrace.Enter("add_atomic_switch_msr");
        if (msr == MSR_EFER && CpuHasLoadIa32Efer)
        {
            // HOST_IA32_EFER is constant host state.
            vmx.Write64(GUEST_IA32_EFER, guestValue);
            vmx.VmEntryControlsSetbit(VM_ENTRY_LOAD_IA32_EFER);
            vmx.VmExitControlsSetbit(VM_EXIT_LOAD_IA32_EFER);
            return;
        }
        if (msr == MSR_CORE_PERF_GLOBAL_CTRL && CpuHasLoadPerfGlobalCtrl)
        {
            vmx.Write64(GUEST_IA32_PERF_GLOBAL_CTRL, guestValue);
            vmx.Write64(HOST_IA32_PERF_GLOBAL_CTRL, hostValue);
            vmx.VmEntryControlsSetbit(VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL);
            vmx.VmExitControlsSetbit(VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL);
            return;
        }
        int i = vmx.MsrAutoloadGuest.Find(msr);
        int j = vmx.MsrAutoloadHost.Find(msr);
        if ((i < 0 && vmx.MsrAutoloadGuest.Nr == MAX_NR_LOADSTORE_MSRS) || (j < 0 && vmx.MsrAutoloadHost.Nr == MAX_NR_LOADSTORE_MSRS))
        {
            PrWarnOnce($"Not enough msr switch entries. Can't add msr {msr:x}");
            return;
        }
        if (i < 0)
        {
            i = (int)vmx.MsrAutoloadGuest.Nr++;
            vmx.Write32(VM_ENTRY_MSR_LOAD_COUNT, vmx.MsrAutoloadGuest.Nr);
        }
        vmx.MsrAutoloadGuest.Values[i] = new VmxMsrEntry { Index = msr, Value = guestValue };
        if (j < 0)
        {
            j = (int)vmx.MsrAutoloadHost.Nr++;
            vmx.Write32(VM_EXIT_MSR_LOAD_COUNT, vmx.MsrAutoloadHost.Nr);
        }
        vmx.MsrAutoloadHost.Values[j] = new VmxMsrEntry { Index = msr, Value = hostValue };
    }

    /// <summary>A feature MSR of KVM_GET_MSRS on the system fd.</summary>
    [KernelFunction("vmx_get_msr_feature", File = "arch/x86/kvm/vmx/vmx.c")]
    public int GetMsrFeature(ref MsrData entry)
    {
        using var _ = FunctionTrace.Enter("vmx_get_msr_feature");
        switch (entry.Index)
        {
            case >= Msr.IA32_VMX_BASIC and <= Msr.IA32_VMX_VMFUNC:
                return !Nested ? 1 : GetVmxMsr(in VmcsConfig.Nested, entry.Index, out entry.Data);
            case MSR_IA32_PERF_CAPABILITIES:
                entry.Data = arch.KvmCaps.SupportedPerfCap;
                return 0;
            default:
                return KVM_MSR_RET_UNSUPPORTED;
        }
    }

    [KernelFunction("vmx_has_emulated_msr", File = "arch/x86/kvm/vmx/vmx.c")]
    public bool HasEmulatedMsr(X86Vm? kvm, uint index)
    {
        using var _ = FunctionTrace.Enter("vmx_has_emulated_msr");
        return index switch
        {
            // SMM needs big real mode.
            MSR_IA32_SMBASE => EnableUnrestrictedGuest || EmulateInvalidGuestState,
            >= Msr.IA32_VMX_BASIC and <= Msr.IA32_VMX_VMFUNC => Nested,
            MSR_AMD64_VIRT_SPEC_CTRL or MSR_AMD64_TSC_RATIO => false,
            _ => true,
        };
    }

    [KernelFunction("vmx_get_msr", File = "arch/x86/kvm/vmx/vmx.c")]
    public int GetMsr(X86Vcpu vcpu, ref MsrData msrInfo)
    {
        using var _ = FunctionTrace.Enter("vmx_get_msr");
        VcpuVmx vmx = ToVmx(vcpu);
        bool host = msrInfo.HostInitiated;
        switch (msrInfo.Index)
        {
            case MSR_FS_BASE:
                msrInfo.Data = vmx.Readl(GUEST_FS_BASE);
                return 0;
            case MSR_GS_BASE:
                msrInfo.Data = vmx.Readl(GUEST_GS_BASE);
                return 0;
            case MSR_KERNEL_GS_BASE:
                msrInfo.Data = ReadGuestKernelGsBase(vmx);
                return 0;
            case MSR_EFER:
                return vmx.GetMsrCommon(ref msrInfo);
            case MSR_IA32_TSX_CTRL:
                if (!host && (vmx.ArchCapabilities & ARCH_CAP_TSX_CTRL_MSR) == 0)
                    return 1;
                break;
            case MSR_IA32_UMWAIT_CONTROL:
                if (!host && !HasWaitpkg(vmx))
                    return 1;
                msrInfo.Data = vmx.MsrIa32UmwaitControl;
                return 0;
            case MSR_IA32_SPEC_CTRL:
                if (!host && !GuestHasSpecCtrlMsr(vmx))
                    return 1;
                msrInfo.Data = vmx.SpecCtrl;
                return 0;
            case MSR_IA32_SYSENTER_CS:
                msrInfo.Data = vmx.Read32(GUEST_SYSENTER_CS);
                return 0;
            case MSR_IA32_SYSENTER_EIP:
                msrInfo.Data = vmx.Readl(GUEST_SYSENTER_EIP);
                return 0;
            case MSR_IA32_SYSENTER_ESP:
                msrInfo.Data = vmx.Readl(GUEST_SYSENTER_ESP);
                return 0;
            case MSR_IA32_BNDCFGS:
                if (!KvmMpxSupported || (!host && !vmx.GuestCpuidHas(X86Feature.MPX)))
                    return 1;
                msrInfo.Data = vmx.Read64(GUEST_BNDCFGS);
                return 0;
            case MSR_IA32_MCG_EXT_CTL:
                if (!host && (vmx.MsrIa32FeatureControl & FEAT_CTL_LMCE_ENABLED) == 0)
                    return 1;
                msrInfo.Data = vmx.McgExtCtl;
                return 0;
            case MSR_IA32_FEAT_CTL:
                msrInfo.Data = vmx.MsrIa32FeatureControl;
                return 0;
            case >= MSR_IA32_SGXLEPUBKEYHASH0 and <= MSR_IA32_SGXLEPUBKEYHASH3:
                if (!host && !vmx.GuestCpuidHas(X86Feature.SGX_LC))
                    return 1;
                msrInfo.Data = vmx.MsrIa32Sgxlepubkeyhash[msrInfo.Index - MSR_IA32_SGXLEPUBKEYHASH0];
                return 0;
            case >= Msr.IA32_VMX_BASIC and <= Msr.IA32_VMX_VMFUNC:
                if (!NestedVmxAllowed(vmx))
                    return 1;
                if (GetVmxMsr(in vmx.NestedMsrs, msrInfo.Index, out msrInfo.Data) != 0)
                    return 1;
                if (!host && vmx.HypervEnabled && vmx.EnlightenedVmcsEnabled)
                    msrInfo.Data = Evmcs.FilterControlMsr(vmx, msrInfo.Index, msrInfo.Data);
                return 0;
            case >= MSR_IA32_RTIT_OUTPUT_BASE and <= MSR_IA32_RTIT_OUTPUT_MASK:
            case >= MSR_IA32_RTIT_CTL and <= MSR_IA32_RTIT_CR3_MATCH:
            case >= MSR_IA32_RTIT_ADDR0_A and <= MSR_IA32_RTIT_ADDR3_B:
                return 1; // processor trace is the host's
            case MSR_IA32_DEBUGCTLMSR:
                msrInfo.Data = vmx.Read64(GUEST_IA32_DEBUGCTL) & ~debugctlFreezeInSmm;
                return 0;
        }
        int slot = FindUretMsr(msrInfo.Index);
        if (slot < 0)
            return vmx.GetMsrCommon(ref msrInfo);
        msrInfo.Data = vmx.GuestUretMsrs[slot].Data;
        return 0;
    }

    [KernelFunction("vmx_get_supported_debugctl", File = "arch/x86/kvm/vmx/vmx.c")]
    private ulong GetSupportedDebugctl(VcpuVmx vmx, bool host)
    {
        ulong debugctl = 0;
        if (BootCpuHas(X86Feature.BUS_LOCK_DETECT) && (host || vmx.GuestCpuidHas(X86Feature.BUS_LOCK_DETECT)))
            debugctl |= debugctlBusLockDetect;
        if ((arch.KvmCaps.SupportedPerfCap & PMU_CAP_LBR_FMT) != 0 && host)
            debugctl |= debugctlLbr | debugctlFreezeLbrsOnPmi;
        if (BootCpuHas(X86Feature.RTM) && (host || vmx.GuestCpuidHas(X86Feature.RTM)))
            debugctl |= debugctlRtmDebug;
        return debugctl;
    }

    /// <summary>BTF and LBR that the guest can't have are dropped with a message instead of a #GP.</summary>
    [KernelFunction("vmx_is_valid_debugctl", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool IsValidDebugctl(VcpuVmx vmx, ulong data, bool host)
    {
        ulong invalid = data & ~GetSupportedDebugctl(vmx, host);
        if ((invalid & (debugctlBtf | debugctlLbr)) != 0)
        {
            arch.PrUnimplWrmsr(vmx, MSR_IA32_DEBUGCTLMSR, data);
            invalid &= ~(debugctlBtf | debugctlLbr);
        }
        return invalid == 0;
    }

    /// <summary>The guest's DEBUGCTL; FREEZE_IN_SMM stays the host's.</summary>
    [KernelFunction("vmx_guest_debugctl_write", File = "arch/x86/kvm/vmx/vmx.h")]
    private static void GuestDebugctlWrite(VcpuVmx vmx, ulong value) => vmx.Write64(GUEST_IA32_DEBUGCTL, value | (vmx.HostDebugctl & debugctlFreezeInSmm));

    [KernelFunction("vmx_reload_guest_debugctl", File = "arch/x86/kvm/vmx/vmx.h")]
    private static void ReloadGuestDebugctl(VcpuVmx vmx)
    {
        ulong value = vmx.Read64(GUEST_IA32_DEBUGCTL);
        if (((value ^ vmx.HostDebugctl) & debugctlFreezeInSmm) != 0)
            GuestDebugctlWrite(vmx, value & ~debugctlFreezeInSmm);
    }

    [KernelFunction("vmx_set_msr", File = "arch/x86/kvm/vmx/vmx.c")]
    public int SetMsr(X86Vcpu vcpu, ref MsrData msrInfo)
    {
        using var _ = FunctionTrace.Enter("vmx_set_msr");
        VcpuVmx vmx = ToVmx(vcpu);
        ulong data = msrInfo.Data;
        switch (msrInfo.Index)
        {
            case MSR_EFER:
                return vmx.SetMsrCommon(ref msrInfo);
            case MSR_FS_BASE:
                SegmentCacheClear(vmx);
                vmx.Writel(GUEST_FS_BASE, data);
                return 0;
            case MSR_GS_BASE:
                SegmentCacheClear(vmx);
                vmx.Writel(GUEST_GS_BASE, data);
                return 0;
            case MSR_KERNEL_GS_BASE:
                WriteGuestKernelGsBase(vmx, data);
                return 0;
            case MSR_IA32_XFD:
                return SetXfd(vmx, ref msrInfo);
            case MSR_IA32_SYSENTER_CS:
                vmx.Write32(GUEST_SYSENTER_CS, (uint)data);
                return 0;
            case MSR_IA32_SYSENTER_EIP:
                vmx.Writel(GUEST_SYSENTER_EIP, data);
                return 0;
            case MSR_IA32_SYSENTER_ESP:
                vmx.Writel(GUEST_SYSENTER_ESP, data);
                return 0;
            default:
                return SetOtherMsr(vmx, ref msrInfo);
        }
    }

    /// <summary>The first non-zero XFD announces dynamic features: from then on the guest owns the MSR, and #NM is intercepted to save XFD_ERR.</summary>
    private int SetXfd(VcpuVmx vmx, ref MsrData msrInfo)
    {
        ulong data = msrInfo.Data;
        int r = vmx.SetMsrCommon(ref msrInfo);
        if (r == 0 && data != 0)
        {
            DisableInterceptForMsr(vmx, MSR_IA32_XFD, MSR_TYPE_RW);
            vmx.XfdNoWriteIntercept = true;
            UpdateExceptionBitmap(vmx);
        }
        return r;
    }

    private int SetOtherMsr(VcpuVmx vmx, ref MsrData msrInfo)
    {
        ulong data = msrInfo.Data;
        bool host = msrInfo.HostInitiated;
        switch (msrInfo.Index)
        {
            case MSR_IA32_DEBUGCTLMSR:
                if (!IsValidDebugctl(vmx, data, host))
                    return 1;
                GuestDebugctlWrite(vmx, data & GetSupportedDebugctl(vmx, host));
                return 0;
            case MSR_IA32_BNDCFGS:
                if (!KvmMpxSupported || (!host && !vmx.GuestCpuidHas(X86Feature.MPX)))
                    return 1;
                if (vmx.IsNoncanonicalAddress(data & ~0xffful) || (data & 0xffc) != 0)
                    return 1;
                vmx.Write64(GUEST_BNDCFGS, data);
                return 0;
            case MSR_IA32_UMWAIT_CONTROL:
                if (!host && !HasWaitpkg(vmx))
                    return 1;
                if ((data & (2 | 0xffffffff00000000)) != 0)
                    return 1;
                vmx.MsrIa32UmwaitControl = (uint)data;
                return 0;
            case MSR_IA32_SPEC_CTRL:
                if ((!host && !GuestHasSpecCtrlMsr(vmx)) || SpecCtrlTestValue(data))
                    return 1;
                vmx.SpecCtrl = data;
                if (data != 0)
                    DisableInterceptForMsr(vmx, MSR_IA32_SPEC_CTRL, MSR_TYPE_RW);
                return 0;
            case MSR_IA32_TSX_CTRL:
                if (!host && (vmx.ArchCapabilities & ARCH_CAP_TSX_CTRL_MSR) == 0)
                    return 1;
                if ((data & ~(tsxCtrlRtmDisable | TSX_CTRL_CPUID_CLEAR)) != 0)
                    return 1;
                break;
            case MSR_IA32_PRED_CMD:
                if (!host && !GuestHasPredCmdMsr(vmx))
                    return 1;
                if ((data & ~predCmdIbpb) != 0 || !BootCpuHas(X86Feature.IBPB))
                    return 1;
                if (data != 0)
                {
                    arch.HostX86.ThisCpu.Wrmsr(MSR_IA32_PRED_CMD, predCmdIbpb);
                    DisableInterceptForMsr(vmx, MSR_IA32_PRED_CMD, MSR_TYPE_W);
                }
                return 0;
            case MSR_IA32_CR_PAT:
                if (!X86Vcpu.PatValid(data))
                    return 1;
                if ((VmcsConfig.VmentryCtrl & VM_ENTRY_LOAD_IA32_PAT) == 0)
                    return vmx.SetMsrCommon(ref msrInfo);
                vmx.Write64(GUEST_IA32_PAT, data);
                vmx.Pat = data;
                return 0;
            case MSR_IA32_MCG_EXT_CTL:
                if ((!host && (vmx.MsrIa32FeatureControl & FEAT_CTL_LMCE_ENABLED) == 0) || (data & ~mcgExtCtlLmceEn) != 0)
                    return 1;
                vmx.McgExtCtl = data;
                return 0;
            case MSR_IA32_FEAT_CTL:
                if ((data & ~vmx.MsrIa32FeatureControlValidBits) != 0 || ((vmx.MsrIa32FeatureControl & FEAT_CTL_LOCKED) != 0 && !host))
                    return 1;
                vmx.MsrIa32FeatureControl = data;
                WriteEnclsBitmap(vmx);
                return 0;
            case >= MSR_IA32_SGXLEPUBKEYHASH0 and <= MSR_IA32_SGXLEPUBKEYHASH3:
                if (!host && (!vmx.GuestCpuidHas(X86Feature.SGX_LC) ||
                    ((vmx.MsrIa32FeatureControl & FEAT_CTL_LOCKED) != 0 && (vmx.MsrIa32FeatureControl & FEAT_CTL_SGX_LC_ENABLED) == 0)))
                    return 1;
                vmx.MsrIa32Sgxlepubkeyhash[msrInfo.Index - MSR_IA32_SGXLEPUBKEYHASH0] = data;
                return 0;
            case >= Msr.IA32_VMX_BASIC and <= Msr.IA32_VMX_VMFUNC:
                if (!host || !NestedVmxAllowed(vmx))
                    return 1;
                return SetVmxMsr(vmx, msrInfo.Index, data);
            case >= MSR_IA32_RTIT_OUTPUT_BASE and <= MSR_IA32_RTIT_OUTPUT_MASK:
            case >= MSR_IA32_RTIT_CTL and <= MSR_IA32_RTIT_CR3_MATCH:
            case >= MSR_IA32_RTIT_ADDR0_A and <= MSR_IA32_RTIT_ADDR3_B:
                return 1;
            case MSR_IA32_PERF_CAPABILITIES:
                return SetPerfCapabilities(vmx, ref msrInfo);
        }
        int slot = FindUretMsr(msrInfo.Index);
        int ret = slot >= 0 ? SetGuestUretMsr(vmx, slot, data) : vmx.SetMsrCommon(ref msrInfo);
        if (msrInfo.Index == MSR_IA32_ARCH_CAPABILITIES)
            UpdateFbClearDis(vmx);
        return ret;
    }

    private int SetPerfCapabilities(VcpuVmx vmx, ref MsrData msrInfo)
    {
        ulong data = msrInfo.Data;
        if (data != 0 && vmx.Pmu.Version == 0)
            return 1;
        if ((data & PMU_CAP_LBR_FMT) != 0 && (data & PMU_CAP_LBR_FMT) != (arch.KvmCaps.SupportedPerfCap & PMU_CAP_LBR_FMT))
            return 1;
        if ((data & PERF_CAP_PEBS_FORMAT) != 0)
        {
            if ((data & PERF_CAP_PEBS_MASK) != (arch.KvmCaps.SupportedPerfCap & PERF_CAP_PEBS_MASK))
                return 1;
            if (!vmx.GuestCpuidHas(X86Feature.DS) || !vmx.GuestCpuidHas(X86Feature.DTES64))
                return 1;
        }
        return vmx.SetMsrCommon(ref msrInfo);
    }

    [KernelFunction("vmx_has_waitpkg", File = "arch/x86/kvm/vmx/vmx.h")]
    private static bool HasWaitpkg(VcpuVmx vmx) => (vmx.SecondaryExecControlsGet() & SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE) != 0;
}
