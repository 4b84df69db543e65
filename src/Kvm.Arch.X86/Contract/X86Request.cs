using Kvm.Core;

namespace Kvm.Arch.X86;

/// <summary>The x86 requests to a vCPU: bit numbers with Core's flag bits, base 8.</summary>
/// <remarks>KVM_ARCH_REQ(), asm/kvm_host.h; linux/kvm_host.h: bit 8 KVM_REQUEST_NO_WAKEUP, bit 9 KVM_REQUEST_WAIT, bit 10 KVM_REQUEST_NO_ACTION.</remarks>
public static class X86Request
{
    private const uint Base = KvmRequest.KVM_REQUEST_ARCH_BASE;
    private const uint WaitNoWakeup = KvmRequest.KVM_REQUEST_NO_WAKEUP | KvmRequest.KVM_REQUEST_WAIT;

    public const uint KVM_REQ_MIGRATE_TIMER = Base + 0;
    public const uint KVM_REQ_REPORT_TPR_ACCESS = Base + 1;
    public const uint KVM_REQ_TRIPLE_FAULT = Base + 2;
    public const uint KVM_REQ_MMU_SYNC = Base + 3;
    public const uint KVM_REQ_CLOCK_UPDATE = Base + 4;
    public const uint KVM_REQ_LOAD_MMU_PGD = Base + 5;
    public const uint KVM_REQ_EVENT = Base + 6;
    public const uint KVM_REQ_APF_HALT = Base + 7;
    public const uint KVM_REQ_STEAL_UPDATE = Base + 8;
    public const uint KVM_REQ_NMI = Base + 9;
    public const uint KVM_REQ_PMU = Base + 10;
    public const uint KVM_REQ_PMI = Base + 11;
    public const uint KVM_REQ_SMI = Base + 12;
    public const uint KVM_REQ_MASTERCLOCK_UPDATE = Base + 13;
    public const uint KVM_REQ_MCLOCK_INPROGRESS = (Base + 14) | WaitNoWakeup;
    public const uint KVM_REQ_SCAN_IOAPIC = (Base + 15) | WaitNoWakeup;
    public const uint KVM_REQ_GLOBAL_CLOCK_UPDATE = Base + 16;
    public const uint KVM_REQ_APIC_PAGE_RELOAD = (Base + 17) | WaitNoWakeup;
    public const uint KVM_REQ_HV_CRASH = Base + 18;
    public const uint KVM_REQ_IOAPIC_EOI_EXIT = Base + 19;
    public const uint KVM_REQ_HV_RESET = Base + 20;
    public const uint KVM_REQ_HV_EXIT = Base + 21;
    public const uint KVM_REQ_HV_STIMER = Base + 22;
    public const uint KVM_REQ_LOAD_EOI_EXITMAP = Base + 23;
    public const uint KVM_REQ_GET_NESTED_STATE_PAGES = Base + 24;
    public const uint KVM_REQ_APICV_UPDATE = (Base + 25) | WaitNoWakeup;
    public const uint KVM_REQ_TLB_FLUSH_CURRENT = Base + 26;
    public const uint KVM_REQ_TLB_FLUSH_GUEST = (Base + 27) | WaitNoWakeup;
    public const uint KVM_REQ_APF_READY = Base + 28;
    public const uint KVM_REQ_MSR_FILTER_CHANGED = Base + 29;
    public const uint KVM_REQ_UPDATE_CPU_DIRTY_LOGGING = (Base + 30) | WaitNoWakeup;
    public const uint KVM_REQ_MMU_FREE_OBSOLETE_ROOTS = (Base + 31) | WaitNoWakeup;
}
