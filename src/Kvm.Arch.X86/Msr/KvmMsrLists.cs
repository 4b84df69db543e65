using static Kvm.Arch.X86.MsrIndex;

namespace Kvm.Arch.X86;

/// <summary>The MSRs that KVM lists to userspace on this host: real ones that exist here, emulated ones, and those that describe features.</summary>
/// <remarks>x86.c: msrs_to_save, emulated_msrs, msr_based_features; filled by kvm_init_msr_list when a vendor module loads.</remarks>
public sealed class KvmMsrLists
{
    private uint[] msrsToSave = [];
    private uint[] emulatedMsrs = [];
    private uint[] msrBasedFeatures = [];

    public ReadOnlySpan<uint> MsrsToSave => msrsToSave;

    public ReadOnlySpan<uint> EmulatedMsrs => emulatedMsrs;

    public ReadOnlySpan<uint> MsrBasedFeatures => msrBasedFeatures;

    /// <summary>kvm_is_msr_to_save: userspace may read it (as 0) and write 0 even where KVM does not implement it.</summary>
    public bool IsMsrToSave(uint index) => Array.IndexOf(msrsToSave, index) >= 0;

    /// <summary>kvm_init_msr_list: reads every candidate on the current CPU and asks the vendor about the emulated ones.</summary>
    internal void Init(X86Arch arch)
    {
        HostX86Cpu cpu = arch.HostX86.ThisCpu;
        var save = new List<uint>();
        foreach (uint msr in KvmMsrTables.MsrsToSaveAll)
        {
            if (cpu.RdmsrSafe(msr, out _) && MayBeExposed(arch, msr))
                save.Add(msr);
        }

        msrsToSave = [.. save];

        var emulated = new List<uint>();
        foreach (uint msr in KvmMsrTables.EmulatedMsrsAll)
        {
            if (arch.Ops.HasEmulatedMsr(null, msr))
                emulated.Add(msr);
        }

        emulatedMsrs = [.. emulated];

        var features = new List<uint>();
        foreach (uint msr in KvmMsrTables.MsrBasedFeaturesAll)
        {
            var entry = new MsrData(msr, 0, true);
            if (arch.GetMsrFeature(ref entry) == 0)
                features.Add(msr);
        }

        msrBasedFeatures = [.. features];
    }

    /// <summary>Valid on the host, but hidden where the feature it belongs to is.</summary>
    private static bool MayBeExposed(X86Arch arch, uint msr)
    {
        int counters = Math.Min(KvmPmu.KVM_INTEL_PMC_MAX_GENERIC, arch.PmuCap.NumCountersGp);
        return msr switch
        {
            MSR_IA32_BNDCFGS => (arch.KvmCaps.SupportedXcr0 & (X86Const.XFEATURE_MASK_BNDREGS | X86Const.XFEATURE_MASK_BNDCSR)) != 0,
            MSR_TSC_AUX => arch.CpuCapHas(X86Feature.RDTSCP) || arch.CpuCapHas(X86Feature.RDPID),
            MSR_IA32_UMWAIT_CONTROL => arch.CpuCapHas(X86Feature.WAITPKG),
            MSR_IA32_RTIT_CTL or MSR_IA32_RTIT_STATUS or MSR_IA32_RTIT_CR3_MATCH or MSR_IA32_RTIT_OUTPUT_BASE or MSR_IA32_RTIT_OUTPUT_MASK
                or (>= MSR_IA32_RTIT_ADDR0_A and <= MSR_IA32_RTIT_ADDR3_B) => arch.CpuCapHas(X86Feature.INTEL_PT),
            >= MSR_ARCH_PERFMON_PERFCTR0 and < MSR_ARCH_PERFMON_PERFCTR0 + 8 => msr - MSR_ARCH_PERFMON_PERFCTR0 < counters,
            >= MSR_ARCH_PERFMON_EVENTSEL0 and < MSR_ARCH_PERFMON_EVENTSEL0 + 8 => msr - MSR_ARCH_PERFMON_EVENTSEL0 < counters,
            MSR_IA32_XFD or MSR_IA32_XFD_ERR => arch.CpuCapHas(X86Feature.XFD),
            _ => true,
        };
    }
}
