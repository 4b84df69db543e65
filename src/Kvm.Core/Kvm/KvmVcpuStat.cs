using System.Runtime.InteropServices;

namespace Kvm.Core;

/// <summary>struct kvm_vcpu_stat: the vCPU's counters in the order of the binary statistics interface.</summary>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct KvmVcpuStat
{
    /// <summary>HALT_POLL_HIST_COUNT.</summary>
    public const int HistogramBuckets = 32;

    public ulong HaltSuccessfulPoll;
    public ulong HaltAttemptedPoll;
    public ulong HaltPollInvalid;
    public ulong HaltWakeup;
    public ulong HaltPollSuccessNs;
    public ulong HaltPollFailNs;
    public ulong HaltWaitNs;
    public fixed ulong HaltPollSuccessHist[HistogramBuckets];
    public fixed ulong HaltPollFailHist[HistogramBuckets];
    public fixed ulong HaltWaitHist[HistogramBuckets];
    public ulong Blocking;
    public ulong PfTaken;
    public ulong PfFixed;
    public ulong PfEmulate;
    public ulong PfSpurious;
    public ulong PfFast;
    public ulong PfMmioSpteCreated;
    public ulong PfGuest;
    public ulong TlbFlush;
    public ulong Invlpg;
    public ulong Exits;
    public ulong IoExits;
    public ulong MmioExits;
    public ulong SignalExits;
    public ulong IrqWindowExits;
    public ulong NmiWindowExits;
    public ulong L1dFlush;
    public ulong HaltExits;
    public ulong RequestIrqExits;
    public ulong IrqExits;
    public ulong HostStateReload;
    public ulong FpuReload;
    public ulong InsnEmulation;
    public ulong InsnEmulationFail;
    public ulong Hypercalls;
    public ulong IrqInjections;
    public ulong NmiInjections;
    public ulong ReqEvent;
    public ulong NestedRun;
    public ulong DirectedYieldAttempted;
    public ulong DirectedYieldSuccessful;
    public ulong PreemptionReported;
    public ulong PreemptionOther;
    public ulong GuestMode;
    public ulong NotifyWindowExits;
}
