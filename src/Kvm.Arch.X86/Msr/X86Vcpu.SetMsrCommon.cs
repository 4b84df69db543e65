using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.HypervConst;
using static Kvm.Arch.X86.MsrBits;
using static Kvm.Arch.X86.MsrIndex;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>MSR writes that both vendors treat alike.</remarks>
public partial class X86Vcpu
{
    private const uint Mc0CtlEnd = MSR_IA32_MC0_CTL + (KVM_MAX_MCE_BANKS * 4);
    private const uint Mc0Ctl2End = MSR_IA32_MC0_CTL2 + KVM_MAX_MCE_BANKS;

    /// <summary>0; 1 when the write faults; KVM_MSR_RET_UNSUPPORTED for an MSR that nobody knows.</summary>
    [KernelFunction("kvm_set_msr_common", File = "arch/x86/kvm/x86.c")]
    public int SetMsrCommon(ref MsrData msr)
    {
        using var _ = FunctionTrace.Enter("kvm_set_msr_common");
        ulong data = msr.Data;
        bool host = msr.HostInitiated;
        switch (msr.Index)
        {
            case MSR_AMD64_NB_CFG:
            case MSR_IA32_UCODE_WRITE:
            case MSR_VM_HSAVE_PA:
            case MSR_AMD64_PATCH_LOADER:
            case MSR_AMD64_BU_CFG2:
            case MSR_AMD64_DC_CFG:
            case MSR_AMD64_TW_CFG:
            case MSR_F15H_EX_CFG:
            case MSR_K7_CLK_CTL:
                return 0;
            case MSR_IA32_UCODE_REV:
                if (host)
                    MicrocodeVersion = data;
                return 0;
            case MSR_IA32_ARCH_CAPABILITIES:
                if (!host)
                    return 1;
                ArchCapabilities = data;
                return 0;
            case MSR_IA32_PERF_CAPABILITIES:
                return SetPerfCapabilities(data, host);
            case MSR_EFER:
                return SetEfer(msr);
            case MSR_K7_HWCR:
                // The flush-filter, IGNNE and TLB-cache bits are accepted and dropped.
                data &= ~(0x40ul | 0x100 | 0x8);
                if (data == K7_HWCR_MC_STATUS_WR_EN)
                    MsrHwcr = data;
                else if (data != 0)
                    return UnimplementedWrmsr(msr.Index, data);
                return 0;
            case MSR_FAM10H_MMIO_CONF_BASE:
                return data != 0 ? UnimplementedWrmsr(msr.Index, data) : 0;
            case MSR_IA32_APICBASE:
                return SetApicBase(msr);
            case MSR_IA32_TSC_DEADLINE:
                Apic?.SetTscDeadlineMsr(data);
                return 0;
            case MSR_IA32_TSC_ADJUST:
                SetTscAdjust(data, host);
                return 0;
            case MSR_IA32_MISC_ENABLE:
                return SetMiscEnable(data, host);
            case MSR_IA32_SMBASE:
                if (!host)
                    return 1;
                Smbase = data;
                return 0;
            case MSR_IA32_POWER_CTL:
                MsrIa32PowerCtl = data;
                return 0;
            case MSR_IA32_TSC:
                SetTscMsr(data, host);
                return 0;
            case MSR_IA32_XSS:
                if (!host && !GuestCpuidHas(X86Feature.XSAVES))
                    return 1;
                if ((data & ~Arch.KvmCaps.SupportedXss) != 0)
                    return 1;
                Ia32Xss = data;
                UpdateCpuidRuntime();
                return 0;
            case MSR_SMI_COUNT:
                if (!host)
                    return 1;
                SmiCount = data;
                return 0;
            case MSR_AMD64_OSVW_ID_LENGTH:
                if (!GuestCpuidHas(X86Feature.OSVW))
                    return 1;
                OsvwLength = data;
                return 0;
            case MSR_AMD64_OSVW_STATUS:
                if (!GuestCpuidHas(X86Feature.OSVW))
                    return 1;
                OsvwStatus = data;
                return 0;
            case MSR_IA32_BBL_CR_CTL3:
                UnimplementedWrmsr(msr.Index, data);
                return 0;
            case MSR_PLATFORM_INFO:
                if (!host || ((data & MSR_PLATFORM_INFO_CPUID_FAULT) == 0 && CpuidFaultEnabled))
                    return 1;
                MsrPlatformInfo = data;
                return 0;
            case MSR_MISC_FEATURES_ENABLES:
                if ((data & ~MSR_MISC_FEATURES_ENABLES_CPUID_FAULT) != 0
                    || ((data & MSR_MISC_FEATURES_ENABLES_CPUID_FAULT) != 0 && !SupportsCpuidFault))
                    return 1;
                MsrMiscFeaturesEnables = data;
                return 0;
            case MSR_IA32_XFD:
            case MSR_IA32_XFD_ERR:
                // No dynamic feature is ever supported: only 0 can be written.
                if (!host && !GuestCpuidHas(X86Feature.XFD))
                    return 1;
                return data != 0 ? 1 : 0;
            default:
                return SetMsrRanges(ref msr);
        }
    }

    private int SetMsrRanges(ref MsrData msr)
    {
        uint index = msr.Index;
        ulong data = msr.Data;
        switch (index)
        {
            case >= 0x200 and < MSR_IA32_MC0_CTL2:
            case >= Mc0Ctl2End and <= 0x2ff:
                return MtrrSetMsr(index, data);
            case >= 0x800 and <= 0x8ff:
                return Apic?.X2apicMsrWrite(index, data) ?? 1;
            case MSR_IA32_MCG_CTL:
            case MSR_IA32_MCG_STATUS:
            case >= MSR_IA32_MC0_CTL and < Mc0CtlEnd:
            case >= MSR_IA32_MC0_CTL2 and < Mc0Ctl2End:
                return SetMsrMce(msr);
            case >= MSR_K7_PERFCTR0 and <= MSR_K7_PERFCTR0 + 3:
            case >= MSR_P6_PERFCTR0 and <= MSR_P6_PERFCTR0 + 1:
            case >= MSR_K7_EVNTSEL0 and <= MSR_K7_EVNTSEL0 + 3:
            case >= MSR_P6_EVNTSEL0 and <= MSR_P6_EVNTSEL0 + 1:
                if (PmuIsValidMsr(index))
                    return PmuSetMsr(ref msr);
                if (data != 0)
                    UnimplementedWrmsr(index, data);
                return 0;
            case MSR_KVM_WALL_CLOCK or MSR_KVM_SYSTEM_TIME:
            case >= MSR_KVM_WALL_CLOCK_NEW and <= MSR_KVM_ASYNC_PF_ACK:
                return SetMsrPv(index, data, msr.HostInitiated);
            case >= HV_X64_MSR_GUEST_OS_ID and <= HV_X64_MSR_SINT15:
            case >= HV_X64_MSR_STIMER0_CONFIG and <= HV_X64_MSR_STIMER3_COUNT:
            case (>= HV_X64_MSR_SYNDBG_CONTROL and <= HV_X64_MSR_SYNDBG_PENDING_BUFFER) or HV_X64_MSR_SYNDBG_OPTIONS:
            case >= HV_X64_MSR_CRASH_P0 and <= HV_X64_MSR_TSC_EMULATION_STATUS:
                return HvSetMsr(index, data, msr.HostInitiated);
            default:
                if (PmuIsValidMsr(index))
                    return PmuSetMsr(ref msr);

                // Userspace may write 0 to what KVM lists, supported in full or not.
                if (msr.HostInitiated && data == 0 && Arch.Msrs.IsMsrToSave(index))
                    return 0;
                return KVM_MSR_RET_UNSUPPORTED;
        }
    }

    private int SetPerfCapabilities(ulong data, bool host)
    {
        if (!host)
            return 1;
        var feature = new MsrData(MSR_IA32_PERF_CAPABILITIES, 0, true);
        if (Arch.GetMsrFeature(ref feature) != 0)
            return 1;
        if ((data & ~feature.Data) != 0)
            return 1;
        PerfCapabilities = data;
        PmuRefresh();
        return 0;
    }

    private void SetTscAdjust(ulong data, bool host)
    {
        if (!GuestCpuidHas(X86Feature.TSC_ADJUST))
            return;
        if (!host)
        {
            AdjustTscOffsetGuest((long)data - Ia32TscAdjustMsr);
            MakeRequest(KVM_REQ_CLOCK_UPDATE);
        }

        Ia32TscAdjustMsr = (long)data;
    }

    private int SetMiscEnable(ulong data, bool host)
    {
        ulong old = Ia32MiscEnableMsr;
        if (!host)
        {
            if (((old ^ data) & MSR_IA32_MISC_ENABLE_PMU_RO_MASK) != 0)
                return 1;

            // Read-only without a fault.
            data = (data & ~MSR_IA32_MISC_ENABLE_EMON) | (old & MSR_IA32_MISC_ENABLE_EMON);
        }

        if (!Vm.CheckHasQuirk(KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT) && ((old ^ data) & MSR_IA32_MISC_ENABLE_MWAIT) != 0)
        {
            if (!GuestCpuidHas(X86Feature.XMM3))
                return 1;
            Ia32MiscEnableMsr = data;
            UpdateCpuidRuntime();
        }
        else
        {
            Ia32MiscEnableMsr = data;
        }

        return 0;
    }

    private void SetTscMsr(ulong data, bool host)
    {
        if (host)
        {
            SynchronizeTsc(data);
            return;
        }

        long adjustment = (long)(ComputeL1TscOffset(data) - L1TscOffset);
        AdjustTscOffsetGuest(adjustment);
        Ia32TscAdjustMsr += adjustment;
    }

    private int SetMsrPv(uint index, ulong data, bool host)
    {
        switch (index)
        {
            case MSR_KVM_WALL_CLOCK_NEW:
            case MSR_KVM_WALL_CLOCK:
                if (!GuestPvHas(index == MSR_KVM_WALL_CLOCK ? KVM_FEATURE_CLOCKSOURCE : KVM_FEATURE_CLOCKSOURCE2))
                    return KVM_MSR_RET_UNSUPPORTED;
                Vm.WallClock = data;
                Vm.WriteWallClock(data);
                return 0;
            case MSR_KVM_SYSTEM_TIME_NEW:
            case MSR_KVM_SYSTEM_TIME:
                if (!GuestPvHas(index == MSR_KVM_SYSTEM_TIME ? KVM_FEATURE_CLOCKSOURCE : KVM_FEATURE_CLOCKSOURCE2))
                    return KVM_MSR_RET_UNSUPPORTED;
                WriteSystemTime(data, index == MSR_KVM_SYSTEM_TIME, host);
                return 0;
            case MSR_KVM_ASYNC_PF_EN:
                if (!GuestPvHas(KVM_FEATURE_ASYNC_PF))
                    return KVM_MSR_RET_UNSUPPORTED;
                return PvEnableAsyncPf(data);
            case MSR_KVM_ASYNC_PF_INT:
                if (!GuestPvHas(KVM_FEATURE_ASYNC_PF_INT))
                    return KVM_MSR_RET_UNSUPPORTED;
                if (data >> 8 != 0 || !LapicInKernel)
                    return 1;
                ApfMsrIntVal = data;
                return 0;
            case MSR_KVM_ASYNC_PF_ACK:
                return GuestPvHas(KVM_FEATURE_ASYNC_PF_INT) ? 0 : KVM_MSR_RET_UNSUPPORTED;
            case MSR_KVM_STEAL_TIME:
                if (!GuestPvHas(KVM_FEATURE_STEAL_TIME))
                    return KVM_MSR_RET_UNSUPPORTED;
                if ((data & 0x3e) != 0)
                    return 1;
                StMsrVal = data;
                if ((data & 1) != 0)
                    MakeRequest(KVM_REQ_STEAL_UPDATE);
                return 0;
            case MSR_KVM_PV_EOI_EN:
                if (!GuestPvHas(KVM_FEATURE_PV_EOI))
                    return KVM_MSR_RET_UNSUPPORTED;
                return SetPvEoi(data, 1);
            case MSR_KVM_POLL_CONTROL:
                if (!GuestPvHas(KVM_FEATURE_POLL_CONTROL))
                    return KVM_MSR_RET_UNSUPPORTED;
                if ((data & ~1ul) != 0)
                    return 1;
                MsrKvmPollControl = data;
                return 0;
            default:
                return KVM_MSR_RET_UNSUPPORTED;
        }
    }

    private int PvEnableAsyncPf(ulong data)
    {
        if ((data & 0x30) != 0)
            return 1;
        if (!GuestPvHas(KVM_FEATURE_ASYNC_PF_VMEXIT) && (data & 4) != 0)
            return 1;
        if (!GuestPvHas(KVM_FEATURE_ASYNC_PF_INT) && (data & KVM_ASYNC_PF_DELIVERY_AS_INT_BIT) != 0)
            return 1;

        // Without the in-kernel local APIC the feature can only stay off.
        if (!LapicInKernel)
            return data != 0 ? 1 : 0;
        ApfMsrEnVal = data;
        return PvAsyncPfEnabled && Vm.GfnToHvaCacheInit(new Core.GfnToHvaCache(), data & ~0x3ful, sizeof(ulong)).IsError ? 1 : 0;
    }

    /// <summary>kvm_set_apic_base: 0, or 1 for a reserved bit or a transition that the APIC does not allow.</summary>
    [KernelFunction("kvm_set_apic_base", File = "arch/x86/kvm/x86.c")]
    public int SetApicBase(in MsrData msr)
    {
        using var _ = FunctionTrace.Enter("kvm_set_apic_base");
        const ulong modeBits = MSR_IA32_APICBASE_ENABLE | X2APIC_ENABLE;
        ulong oldMode = ApicBase & modeBits;
        ulong newMode = msr.Data & modeBits;
        ulong reserved = ReservedGpaBitsRaw | 0x2ff | (GuestCpuidHas(X86Feature.X2APIC) ? 0 : X2APIC_ENABLE);
        if ((msr.Data & reserved) != 0 || newMode == X2APIC_ENABLE)
            return 1;
        if (!msr.HostInitiated)
        {
            if (oldMode == modeBits && newMode == MSR_IA32_APICBASE_ENABLE)
                return 1;
            if (oldMode == 0 && newMode == modeBits)
                return 1;
        }

        KvmLapic.SetBase(this, msr.Data);
        Vm.RecalculateApicMap();
        return 0;
    }

    private int UnimplementedWrmsr(uint index, ulong data)
    {
        Arch.PrUnimplWrmsr(this, index, data);
        return 1;
    }
}
