using Kvm.Core;

namespace Kvm.Arch.X86;

/// <summary>A virtual machine: struct kvm with struct kvm_arch. The vendors derive KvmVmx and KvmSvm from it.</summary>
/// <remarks>asm/kvm_host.h:struct kvm_arch. Who may touch a member is said at the member; the rest is written under the VM's lock.</remarks>
public abstract partial class X86Vm : KvmVm
{
    protected X86Vm(KvmModule module, X86Arch arch)
        : base(module)
    {
        Arch = arch;
        Mmu = new TdpMmu(this);
        Shadow = new ShadowMmu(this);
        Hyperv = new KvmHv(this);
    }

    /// <summary>kvm.ko of this host.</summary>
    public new X86Arch Arch { get; }

    /// <summary>The two-dimensional MMU: the tables that the processor walks for this VM.</summary>
    public TdpMmu Mmu { get; }

    /// <summary>The Hyper-V interface's shared part.</summary>
    public KvmHv Hyperv { get; }

    // ---- MMU page budget (kvm->arch.n_*_mmu_pages) ----
    public ulong NUsedMmuPages;
    public ulong NRequestedMmuPages;
    public ulong NMaxMmuPages;

    // ---- exits that userspace disabled ----
    public bool MwaitInGuest;
    public bool HltInGuest;
    public bool PauseInGuest;
    public bool CstateInGuest;

    // ---- time: under TscWriteLock ----
    public readonly Lock TscWriteLock = new();
    public ulong LastTscNsec;
    public ulong LastTscWrite;
    public uint LastTscKhz;
    public ulong LastTscOffset;
    public ulong CurTscNsec;
    public ulong CurTscWrite;
    public ulong CurTscOffset;
    public ulong CurTscGeneration;
    public int NrVcpusMatchedTsc;
    public uint DefaultTscKhz;
    public long KvmclockOffset;
    public bool UseMasterClock;
    public long MasterKernelNs;
    public ulong MasterCycleNow;
    public ulong WallClock;
    public bool BackwardsTscObserved;
    public bool BootVcpuRunsOldKvmclock;

    public uint BspVcpuId;
    public ulong DisabledQuirks;
    public int CpuDirtyLoggingCount;
    public byte NrReservedIoapicPins;
    public ulong ApicvInhibitReasons;
    public bool X2apicFormat;
    public bool X2apicBroadcastQuirkDisabled;
    public bool GuestCanReadMsrPlatformInfo;
    public bool ExceptionPayloadEnabled;
    public bool TripleFaultEvent;
    public bool BusLockDetectionEnabled;
    public bool EnablePmu;
    public uint NotifyWindow;
    public uint NotifyVmexitFlags;
    public bool ExitOnEmulationError;
    public uint UserSpaceMsrMask;
    public volatile KvmX86MsrFilter? MsrFilter;
    public volatile KvmPmuEventFilter? PmuEventFilter;
    public uint HypercallExitEnabled;
    public bool DisableNxHugePages;
    public uint MaxVcpuIds;
    public ulong TssAddr;
    public ulong IdentityMapAddr;

    public bool CheckHasQuirk(ulong quirk) => (DisabledQuirks & quirk) == 0;
}
