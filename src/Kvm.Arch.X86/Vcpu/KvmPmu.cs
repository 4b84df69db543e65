namespace Kvm.Arch.X86;

/// <summary>The guest's performance counters; no host counter stands behind them.</summary>
/// <remarks>struct kvm_pmu, asm/kvm_host.h.</remarks>
public sealed class KvmPmu
{
    public const int KVM_INTEL_PMC_MAX_GENERIC = 8;
    public const int KVM_PMC_MAX_FIXED = 3;
    public const int KVM_AMD_PMC_MAX_GENERIC = 6;

    public uint NrArchGpCounters;
    public uint NrArchFixedCounters;
    public uint AvailableEventTypes;
    public ulong FixedCtrCtrl;
    public ulong FixedCtrCtrlMask;
    public ulong GlobalCtrl;
    public ulong GlobalStatus;
    public ulong GlobalCtrlMask;
    public ulong GlobalOvfCtrlMask;
    public ulong ReservedBits;
    public ulong RawEventMask;
    public byte Version;
    public readonly ulong[] CounterBitmask = new ulong[2];
    public readonly ulong[] GpCounters = new ulong[KVM_INTEL_PMC_MAX_GENERIC];
    public readonly ulong[] GpEventsel = new ulong[KVM_INTEL_PMC_MAX_GENERIC];
    public readonly ulong[] FixedCounters = new ulong[KVM_PMC_MAX_FIXED];
    public ulong DsArea;
    public ulong PebsEnable;
    public ulong PebsEnableMask;
    public ulong PebsDataCfg;
    public ulong PebsDataCfgMask;
}
