using System.Globalization;
using Kvm.Core;

namespace Kvm.Arch.X86;

/// <summary>The x86 parameters of kvm.ko.</summary>
/// <remarks>x86.c, mmu/mmu.c, mmu/tdp_mmu.c, mmu/spte.c.</remarks>
public sealed class KvmModuleParams
{
    private readonly X86Arch arch;
    private bool nxAuto = true, nxHardDisabled;

    internal KvmModuleParams(X86Arch arch) => this.arch = arch;

    public bool IgnoreMsrs { get; set; }
    public bool ReportIgnoredMsrs { get; set; } = true;
    public uint MinTimerPeriodUs { get; set; } = 200;
    public bool KvmclockPeriodicSync { get; set; } = true;
    public uint TscTolerancePpm { get; set; } = 250;
    public int LapicTimerAdvanceNs { get; set; } = -1;
    public bool VectorHashing { get; set; } = true;
    public bool EnableVmwareBackdoor { get; set; }
    public int ForceEmulationPrefix { get; set; }
    public int PiInjectTimer { get; set; } = -1;
    public bool EnablePmu { get; set; } = true;
    public bool EagerPageSplit { get; set; } = true;
    public bool MitigateSmtRsb { get; set; }
    public bool FlushOnReuse { get; set; }
    public uint NxHugePagesRecoveryRatio { get; set; } = 60;
    public uint NxHugePagesRecoveryPeriodMs { get; set; }
    public bool TdpMmu { get; set; } = true;
    public bool MmioCaching { get; set; } = true;

    /// <summary>nx_huge_pages resolved: huge pages are mapped without execute permission and split on execution.</summary>
    public bool NxHugePages { get; private set; }

    internal void Define(ModuleParameters p)
    {
        p.Define("ignore_msrs", () => IgnoreMsrs, v => IgnoreMsrs = v, ModuleParameters.Writable);
        p.Define("report_ignored_msrs", () => ReportIgnoredMsrs, v => ReportIgnoredMsrs = v, ModuleParameters.Writable);
        p.Define("min_timer_period_us", () => MinTimerPeriodUs, v => MinTimerPeriodUs = v, ModuleParameters.Writable);
        p.Define("kvmclock_periodic_sync", () => KvmclockPeriodicSync, v => KvmclockPeriodicSync = v);
        p.Define("tsc_tolerance_ppm", () => TscTolerancePpm, v => TscTolerancePpm = v, ModuleParameters.Writable);
        p.Define("lapic_timer_advance_ns", () => LapicTimerAdvanceNs, v => LapicTimerAdvanceNs = v, ModuleParameters.Writable);
        p.Define("vector_hashing", () => VectorHashing, v => VectorHashing = v);
        p.Define("enable_vmware_backdoor", () => EnableVmwareBackdoor, v => EnableVmwareBackdoor = v);
        p.Define("force_emulation_prefix", () => ForceEmulationPrefix, v => ForceEmulationPrefix = v, ModuleParameters.Writable);
        // A "bint": set as a truth value, shown as a number.
        p.Define("pi_inject_timer", () => PiInjectTimer.ToString(CultureInfo.InvariantCulture), v => PiInjectTimer = ModuleParameters.TryParseBool(v, out bool on) && on ? 1 : 0, ModuleParameters.Writable)
            .Check = static v => ModuleParameters.TryParseBool((string)v, out bool _) ? 0 : Abi.Errno.EINVAL;
        p.Define("enable_pmu", () => EnablePmu, v => EnablePmu = v);
        p.Define("eager_page_split", () => EagerPageSplit, v => EagerPageSplit = v, ModuleParameters.Writable);
        p.Define("mitigate_smt_rsb", () => MitigateSmtRsb, v => MitigateSmtRsb = v);
        p.Define("nx_huge_pages", () => nxHardDisabled ? "never" : NxHugePages ? "Y" : "N", SetNxHugePages, ModuleParameters.Writable).Check = CheckNxHugePages;
        p.Define("nx_huge_pages_recovery_ratio", () => NxHugePagesRecoveryRatio, v => NxHugePagesRecoveryRatio = v, ModuleParameters.Writable).Check = CheckRecovery;
        p.Define("nx_huge_pages_recovery_period_ms", () => NxHugePagesRecoveryPeriodMs, v => NxHugePagesRecoveryPeriodMs = v, ModuleParameters.Writable).Check = CheckRecovery;
        p.Define("flush_on_reuse", () => FlushOnReuse, v => FlushOnReuse = v, ModuleParameters.Writable);
        p.Define("tdp_mmu", () => TdpMmu, v => TdpMmu = v, ModuleParameters.Writable);
        p.Define("mmio_caching", () => MmioCaching, v => MmioCaching = v);
    }

    /// <summary>kvm_mmu_x86_module_init: "auto" is on exactly where the processor has the iTLB multihit erratum.</summary>
    internal void ResolveNxHugePages()
    {
        if (nxAuto)
            NxHugePages = NxAutoMode;
    }

    private bool NxAutoMode => arch.HostX86.BootCpuHasBug(X86Bug.ITLB_MULTIHIT);

    /// <summary>set_nx_huge_pages: -EPERM for ever after "never", which is -EBUSY while there are VMs; -EINVAL for other words than these and truth values.</summary>
    private KvmResult CheckNxHugePages(object value)
    {
        string text = (string)value;
        if (nxHardDisabled)
            return Abi.Errno.EPERM;
        if (text is "never")
            return arch.HasVms ? Abi.Errno.EBUSY : 0;
        if (text is "off" or "force" or "auto")
            return 0;
        return ModuleParameters.TryParseBool(text, out bool _) ? 0 : Abi.Errno.EINVAL;
    }

    private KvmResult CheckRecovery(object value) => nxHardDisabled ? Abi.Errno.EPERM : 0;

    private void SetNxHugePages(string text)
    {
        bool old = NxHugePages, on = text switch
        {
            "off" or "never" => false,
            "force" => true,
            "auto" => NxAutoMode,
            _ => ModuleParameters.TryParseBool(text, out bool yes) && yes,
        };
        nxHardDisabled = text is "never";
        nxAuto = text is "auto";
        NxHugePages = on;
        if (on != old)
            arch.NxHugePagesChanged();
    }
}
