namespace Kvm.Core;

/// <summary>Page frame numbers and the error values they carry (kvm_pfn_t).</summary>
public static class KvmPfn
{
    /// <summary>KVM_PFN_ERR_MASK: bits 62:52.</summary>
    public const ulong ErrMask = 0x7ffUL << 52;

    /// <summary>KVM_PFN_ERR_NOSLOT_MASK: bits 63:52.</summary>
    public const ulong ErrNoslotMask = 0xfffUL << 52;

    /// <summary>KVM_PFN_NOSLOT: no slot behind the frame.</summary>
    public const ulong Noslot = 1UL << 63;

    /// <summary>KVM_PFN_ERR_FAULT: nothing is mapped at the slot's process address.</summary>
    public const ulong ErrFault = ErrMask;

    /// <summary>KVM_PFN_ERR_HWPOISON.</summary>
    public const ulong ErrHwpoison = ErrMask + 1;

    /// <summary>KVM_PFN_ERR_RO_FAULT: a write to a read-only slot.</summary>
    public const ulong ErrRoFault = ErrMask + 2;

    /// <summary>is_error_pfn: an error that is not "no slot".</summary>
    public static bool IsError(ulong pfn) => (pfn & ErrMask) != 0;

    /// <summary>is_error_noslot_pfn.</summary>
    public static bool IsErrorOrNoslot(ulong pfn) => (pfn & ErrNoslotMask) != 0;

    /// <summary>is_noslot_pfn.</summary>
    public static bool IsNoslot(ulong pfn) => pfn == Noslot;
}
