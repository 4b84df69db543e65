namespace Kvm.Core;

/// <summary>Limits of asm/kvm_host.h for x86 and of linux/kvm_host.h.</summary>
public static class KvmLimits
{
    public const int KVM_MAX_VCPUS = 1024;
    public const int KVM_MAX_VCPU_IDS = KVM_MAX_VCPUS * 4;
    public const int KVM_MEM_SLOTS_NUM = short.MaxValue;
    public const int KVM_INTERNAL_MEM_SLOTS = 3;
    public const int KVM_USER_MEM_SLOTS = KVM_MEM_SLOTS_NUM - KVM_INTERNAL_MEM_SLOTS;
    public const int KVM_ADDRESS_SPACE_NUM = 2;
    public const ulong KVM_MEM_MAX_NR_PAGES = (1UL << 31) - 1;
    public const int KVM_PIO_PAGE_OFFSET = 1;
    public const int KVM_COALESCED_MMIO_PAGE_OFFSET = 2;
    public const int KVM_DIRTY_LOG_PAGE_OFFSET = 64;
    public const int KVM_DIRTY_RING_MAX_ENTRIES = 65536;
    public const int KVM_MAX_IRQ_ROUTES = 4096;
    public const int NR_IOBUS_DEVS = 1000;
    public const int KVM_MAX_MMIO_FRAGMENTS = 2;
    public const uint KVM_MEMSLOT_INVALID = 1u << 16;
    public const ulong KVM_MEMSLOT_GEN_UPDATE_IN_PROGRESS = 1UL << 63;
    public const int PageShift = 12;
    public const ulong PageSize = 1UL << PageShift;
    public const ulong PageMask = ~(PageSize - 1);

    /// <summary>KVM_HVA_ERR_BAD: PAGE_OFFSET, the first kernel address.</summary>
    public const ulong KVM_HVA_ERR_BAD = 0xffff_8880_0000_0000;

    /// <summary>KVM_HVA_ERR_RO_BAD.</summary>
    public const ulong KVM_HVA_ERR_RO_BAD = KVM_HVA_ERR_BAD + PageSize;

    /// <summary>kvm_is_error_hva.</summary>
    public static bool IsErrorHva(ulong hva) => hva >= KVM_HVA_ERR_BAD;
}
