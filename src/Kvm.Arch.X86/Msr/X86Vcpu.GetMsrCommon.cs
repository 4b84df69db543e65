using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.HypervConst;
using static Kvm.Arch.X86.MsrBits;
using static Kvm.Arch.X86.MsrIndex;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>MSR reads that both vendors treat alike.</remarks>
public partial class X86Vcpu
{
    /// <summary>0 and the value in <paramref name="msr"/>; 1 when the read faults; KVM_MSR_RET_UNSUPPORTED for an MSR that nobody knows.</summary>
    [KernelFunction("kvm_get_msr_common", File = "arch/x86/kvm/x86.c")]
    public int GetMsrCommon(ref MsrData msr)
    {
        using var _ = FunctionTrace.Enter("kvm_get_msr_common");
        bool host = msr.HostInitiated;
        switch (msr.Index)
        {
            case MSR_IA32_PLATFORM_ID:
            case MSR_IA32_EBL_CR_POWERON:
            case MSR_IA32_LASTBRANCHFROMIP:
            case MSR_IA32_LASTBRANCHTOIP:
            case MSR_IA32_LASTINTFROMIP:
            case MSR_IA32_LASTINTTOIP:
            case MSR_AMD64_SYSCFG:
            case MSR_K8_TSEG_ADDR:
            case MSR_K8_TSEG_MASK:
            case MSR_VM_HSAVE_PA:
            case MSR_K8_INT_PENDING_MSG:
            case MSR_AMD64_NB_CFG:
            case MSR_FAM10H_MMIO_CONF_BASE:
            case MSR_AMD64_BU_CFG2:
            case MSR_IA32_PERF_CTL:
            case MSR_AMD64_DC_CFG:
            case MSR_AMD64_TW_CFG:
            case MSR_F15H_EX_CFG:
            case MSR_RAPL_POWER_UNIT:
            case MSR_PP0_ENERGY_STATUS:
            case MSR_PP1_ENERGY_STATUS:
            case MSR_PKG_ENERGY_STATUS:
            case MSR_DRAM_ENERGY_STATUS:
                return Value(ref msr, 0);
            case MSR_IA32_UCODE_REV:
                return Value(ref msr, MicrocodeVersion);
            case MSR_IA32_ARCH_CAPABILITIES:
                return host || GuestCpuidHas(X86Feature.ARCH_CAPABILITIES) ? Value(ref msr, ArchCapabilities) : 1;
            case MSR_IA32_PERF_CAPABILITIES:
                return host || GuestCpuidHas(X86Feature.PDCM) ? Value(ref msr, PerfCapabilities) : 1;
            case MSR_IA32_POWER_CTL:
                return Value(ref msr, MsrIa32PowerCtl);
            case MSR_IA32_TSC:
                // Userspace always sees L1's TSC.
                ulong offset = host ? L1TscOffset : TscOffset;
                ulong ratio = host ? L1TscScalingRatio : TscScalingRatio;
                return Value(ref msr, Arch.ScaleTsc(Arch.HostX86.Rdtsc(), ratio) + offset);
            case 0xcd:
                // FSB frequency.
                return Value(ref msr, 3);
            case MSR_EBC_FREQUENCY_ID:
                // Ratio 1 of core clock to bus: guests divide by it.
                return Value(ref msr, 1 << 24);
            case MSR_IA32_APICBASE:
                return Value(ref msr, ApicBase);
            case MSR_IA32_TSC_DEADLINE:
                return Value(ref msr, Apic?.TscDeadlineMsr ?? 0);
            case MSR_IA32_TSC_ADJUST:
                return Value(ref msr, (ulong)Ia32TscAdjustMsr);
            case MSR_IA32_MISC_ENABLE:
                return Value(ref msr, Ia32MiscEnableMsr);
            case MSR_IA32_SMBASE:
                return host ? Value(ref msr, Smbase) : 1;
            case MSR_SMI_COUNT:
                return Value(ref msr, SmiCount);
            case MSR_IA32_PERF_STATUS:
                // TSC increment by tick, CPU multiplier.
                return Value(ref msr, 1000 | (4ul << 40));
            case MSR_EFER:
                return Value(ref msr, Efer);
            case MSR_IA32_XSS:
                return host || GuestCpuidHas(X86Feature.XSAVES) ? Value(ref msr, Ia32Xss) : 1;
            case MSR_K7_CLK_CTL:
                return Value(ref msr, 0x20000000);
            case MSR_IA32_BBL_CR_CTL3:
                return Value(ref msr, 0xbe702111);
            case MSR_AMD64_OSVW_ID_LENGTH:
                return GuestCpuidHas(X86Feature.OSVW) ? Value(ref msr, OsvwLength) : 1;
            case MSR_AMD64_OSVW_STATUS:
                return GuestCpuidHas(X86Feature.OSVW) ? Value(ref msr, OsvwStatus) : 1;
            case MSR_PLATFORM_INFO:
                return host || Vm.GuestCanReadMsrPlatformInfo ? Value(ref msr, MsrPlatformInfo) : 1;
            case MSR_MISC_FEATURES_ENABLES:
                return Value(ref msr, MsrMiscFeaturesEnables);
            case MSR_K7_HWCR:
                return Value(ref msr, MsrHwcr);
            case MSR_IA32_XFD:
            case MSR_IA32_XFD_ERR:
                return host || GuestCpuidHas(X86Feature.XFD) ? Value(ref msr, 0) : 1;
            default:
                return GetMsrRanges(ref msr);
        }
    }

    private static int Value(ref MsrData msr, ulong value)
    {
        msr.Data = value;
        return 0;
    }

    private int GetMsrRanges(ref MsrData msr)
    {
        uint index = msr.Index;
        switch (index)
        {
            case MSR_MTRRcap:
            case >= 0x200 and < MSR_IA32_MC0_CTL2:
            case >= Mc0Ctl2End and <= 0x2ff:
                return MtrrGetMsr(index, out msr.Data);
            case >= 0x800 and <= 0x8ff:
                return Apic?.X2apicMsrRead(index, out msr.Data) ?? 1;
            case MSR_IA32_P5_MC_ADDR:
            case MSR_IA32_P5_MC_TYPE:
            case MSR_IA32_MCG_CAP:
            case MSR_IA32_MCG_CTL:
            case MSR_IA32_MCG_STATUS:
            case >= MSR_IA32_MC0_CTL and < Mc0CtlEnd:
            case >= MSR_IA32_MC0_CTL2 and < Mc0Ctl2End:
                return GetMsrMce(ref msr);
            case >= MSR_K7_EVNTSEL0 and <= MSR_K7_EVNTSEL0 + 3:
            case >= MSR_K7_PERFCTR0 and <= MSR_K7_PERFCTR0 + 3:
            case >= MSR_P6_PERFCTR0 and <= MSR_P6_PERFCTR0 + 1:
            case >= MSR_P6_EVNTSEL0 and <= MSR_P6_EVNTSEL0 + 1:
                return PmuIsValidMsr(index) ? PmuGetMsr(ref msr) : Value(ref msr, 0);
            case MSR_KVM_WALL_CLOCK or MSR_KVM_SYSTEM_TIME:
            case >= MSR_KVM_WALL_CLOCK_NEW and <= MSR_KVM_ASYNC_PF_ACK:
                return GetMsrPv(ref msr);
            case >= HV_X64_MSR_GUEST_OS_ID and <= HV_X64_MSR_SINT15:
            case >= HV_X64_MSR_STIMER0_CONFIG and <= HV_X64_MSR_STIMER3_COUNT:
            case (>= HV_X64_MSR_SYNDBG_CONTROL and <= HV_X64_MSR_SYNDBG_PENDING_BUFFER) or HV_X64_MSR_SYNDBG_OPTIONS:
            case >= HV_X64_MSR_CRASH_P0 and <= HV_X64_MSR_TSC_EMULATION_STATUS:
                return HvGetMsr(index, out msr.Data, msr.HostInitiated);
            default:
                if (PmuIsValidMsr(index))
                    return PmuGetMsr(ref msr);

                // Userspace may read what KVM lists, supported in full or not.
                if (msr.HostInitiated && Arch.Msrs.IsMsrToSave(index))
                    return Value(ref msr, 0);
                return KVM_MSR_RET_UNSUPPORTED;
        }
    }

    private int GetMsrPv(ref MsrData msr)
    {
        (int feature, ulong value) = msr.Index switch
        {
            MSR_KVM_WALL_CLOCK => (KVM_FEATURE_CLOCKSOURCE, Vm.WallClock),
            MSR_KVM_WALL_CLOCK_NEW => (KVM_FEATURE_CLOCKSOURCE2, Vm.WallClock),
            MSR_KVM_SYSTEM_TIME => (KVM_FEATURE_CLOCKSOURCE, Time),
            MSR_KVM_SYSTEM_TIME_NEW => (KVM_FEATURE_CLOCKSOURCE2, Time),
            MSR_KVM_ASYNC_PF_EN => (KVM_FEATURE_ASYNC_PF, ApfMsrEnVal),
            MSR_KVM_ASYNC_PF_INT => (KVM_FEATURE_ASYNC_PF_INT, ApfMsrIntVal),
            MSR_KVM_ASYNC_PF_ACK => (KVM_FEATURE_ASYNC_PF_INT, 0ul),
            MSR_KVM_STEAL_TIME => (KVM_FEATURE_STEAL_TIME, StMsrVal),
            MSR_KVM_PV_EOI_EN => (KVM_FEATURE_PV_EOI, PvEoiMsrVal),
            MSR_KVM_POLL_CONTROL => (KVM_FEATURE_POLL_CONTROL, MsrKvmPollControl),
            _ => (-1, 0ul),
        };
        return feature >= 0 && GuestPvHas(feature) ? Value(ref msr, value) : KVM_MSR_RET_UNSUPPORTED;
    }
}
