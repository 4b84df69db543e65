using System.Runtime.InteropServices;

namespace Kvm.Core;

/// <summary>struct kvm_vm_stat: the VM's counters in the order of the binary statistics interface.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct KvmVmStat
{
    public ulong RemoteTlbFlush;
    public ulong RemoteTlbFlushRequests;
    public ulong MmuShadowZapped;
    public ulong MmuPteWrite;
    public ulong MmuPdeZapped;
    public ulong MmuFlooded;
    public ulong MmuRecycled;
    public ulong MmuCacheMiss;
    public long MmuUnsync;
    public long Pages4k;
    public long Pages2m;
    public long Pages1g;
    public long NxLpageSplits;
    public ulong MaxMmuRmapSize;
    public ulong MaxMmuPageHashCollisions;
}
