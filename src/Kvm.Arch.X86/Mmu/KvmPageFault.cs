using Kvm.Core;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <summary>One guest-physical fault on its way.</summary>
/// <remarks>struct kvm_page_fault, mmu/mmu_internal.h.</remarks>
internal struct KvmPageFault
{
    public ulong Addr;
    public uint ErrorCode;
    public bool Exec;
    public bool Write;
    public bool Present;
    public bool Rsvd;
    public bool NxHugePageWorkaroundEnabled;
    public bool HugePageDisallowed;
    public int MaxLevel;
    public int ReqLevel;
    public int GoalLevel;
    public ulong Gfn;
    public KvmMemorySlot? Slot;
    public ulong Pfn;
    public ulong Hva;
    public bool MapWritable;

    public static KvmPageFault Of(ulong addr, uint errorCode, bool nxWorkaround, int maxLevel) => new()
    {
        Addr = addr,
        ErrorCode = errorCode,
        Exec = (errorCode & PFERR_FETCH_MASK) != 0,
        Write = (errorCode & PFERR_WRITE_MASK) != 0,
        Present = (errorCode & PFERR_PRESENT_MASK) != 0,
        Rsvd = (errorCode & PFERR_RSVD_MASK) != 0,
        NxHugePageWorkaroundEnabled = nxWorkaround,
        MaxLevel = maxLevel,
        ReqLevel = PG_LEVEL_4K,
        GoalLevel = PG_LEVEL_4K,
        Gfn = addr >> 12,
    };
}
