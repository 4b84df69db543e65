using Kvm.Core;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <summary>One fault on its way: guest-physical, or a page fault of a guest whose tables are shadowed.</summary>
/// <remarks>struct kvm_page_fault, mmu/mmu_internal.h.</remarks>
internal struct KvmPageFault
{
    public ulong Addr;
    public uint ErrorCode;
    public bool Exec;
    public bool Write;
    public bool Present;
    public bool Rsvd;
    public bool User;

    /// <summary>The address is guest-physical.</summary>
    public bool IsTdp;
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

    /// <summary>The guest writes a table that the translation of that very write goes through.</summary>
    public bool WriteFaultToShadowPgtable;

    public static KvmPageFault Of(ulong addr, uint errorCode, bool nxWorkaround, int maxLevel) => new()
    {
        Addr = addr,
        ErrorCode = errorCode,
        Exec = (errorCode & PFERR_FETCH_MASK) != 0,
        Write = (errorCode & PFERR_WRITE_MASK) != 0,
        Present = (errorCode & PFERR_PRESENT_MASK) != 0,
        Rsvd = (errorCode & PFERR_RSVD_MASK) != 0,
        User = (errorCode & PFERR_USER_MASK) != 0,
        NxHugePageWorkaroundEnabled = nxWorkaround,
        MaxLevel = maxLevel,
        ReqLevel = PG_LEVEL_4K,
        GoalLevel = PG_LEVEL_4K,
        Gfn = addr >> 12,
    };
}
