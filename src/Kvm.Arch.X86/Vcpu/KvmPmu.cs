namespace Kvm.Arch.X86;

/// <summary>The guest's performance counters.</summary>
/// <remarks>struct kvm_pmu, asm/kvm_host.h.</remarks>
public sealed class KvmPmu
{
    public const int KVM_INTEL_PMC_MAX_GENERIC = 8;
    public const int KVM_PMC_MAX_FIXED = 3;
    public const int KVM_AMD_PMC_MAX_GENERIC = 6;
    internal const ulong EventselUser = 1 << 16, EventselOs = 1 << 17, EventselInt = 1 << 20, EventselEnable = 1 << 22;

    public KvmPmu()
    {
        for (int i = 0; i < GpCounters.Length; i++)
            GpCounters[i] = new KvmPmc(this, false, i);
        for (int i = 0; i < FixedCounters.Length; i++)
            FixedCounters[i] = new KvmPmc(this, true, HostPmu.IndexFixed + i);
    }

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
    public readonly KvmPmc[] GpCounters = new KvmPmc[KVM_INTEL_PMC_MAX_GENERIC];
    public readonly KvmPmc[] FixedCounters = new KvmPmc[KVM_PMC_MAX_FIXED];
    public ulong DsArea;
    public ulong PebsEnable;
    public ulong PebsEnableMask;
    public ulong PebsDataCfg;
    public ulong PebsDataCfgMask;

    /// <summary>Counters that have overflowed and are to be programmed again; bits as in the global registers.</summary>
    public ulong ReprogramPmi;
    public ulong AllValidPmcIdx;
    public ulong PmcInUse;
    public bool NeedCleanup;
    /// <summary>Events of the host that exist for this guest.</summary>
    public int EventCount;
}
