namespace Kvm.Arch.X86;

/// <summary>enum hv_tsc_page_status: how far the partition's reference TSC page is.</summary>
/// <remarks>asm/kvm_host.h.</remarks>
public enum HvTscPageStatus
{
    /// <summary>Not set up, or turned off.</summary>
    HV_TSC_PAGE_UNSET,

    /// <summary>The guest wrote the MSR; the page is written with the next clock update.</summary>
    HV_TSC_PAGE_GUEST_CHANGED,

    /// <summary>Userspace wrote the MSR, or the master clock changed; likewise.</summary>
    HV_TSC_PAGE_HOST_CHANGED,

    /// <summary>The page tells the time.</summary>
    HV_TSC_PAGE_SET,

    /// <summary>There is no memory at the address, or no master clock: the guest has to use the counter MSR.</summary>
    HV_TSC_PAGE_BROKEN,
}
