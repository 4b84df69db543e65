// Constants of linux/kvm.h. Linux 6.1, x86-64.

namespace Kvm.Abi;

public static partial class Uapi
{
    public const int KVM_API_VERSION = 12;

    public const int KVM_MEM_LOG_DIRTY_PAGES = 1 << 0;
    public const int KVM_MEM_READONLY = 1 << 1;

    public const int KVM_PIT_SPEAKER_DUMMY = 1;

    public const int SYNC_REGS_SIZE_BYTES = 2048;

    public const int KVM_MP_STATE_RUNNABLE = 0;
    public const int KVM_MP_STATE_UNINITIALIZED = 1;
    public const int KVM_MP_STATE_INIT_RECEIVED = 2;
    public const int KVM_MP_STATE_HALTED = 3;
    public const int KVM_MP_STATE_SIPI_RECEIVED = 4;
    public const int KVM_MP_STATE_STOPPED = 5;
    public const int KVM_MP_STATE_CHECK_STOP = 6;
    public const int KVM_MP_STATE_OPERATING = 7;
    public const int KVM_MP_STATE_LOAD = 8;
    public const int KVM_MP_STATE_AP_RESET_HOLD = 9;
    public const int KVM_MP_STATE_SUSPENDED = 10;

    public const int KVM_GUESTDBG_ENABLE = 0x00000001;
    public const int KVM_GUESTDBG_SINGLESTEP = 0x00000002;

    public const int KVM_IOEVENTFD_FLAG_DATAMATCH = 1 << kvm_ioeventfd_flag_nr_datamatch;
    public const int KVM_IOEVENTFD_FLAG_PIO = 1 << kvm_ioeventfd_flag_nr_pio;
    public const int KVM_IOEVENTFD_FLAG_DEASSIGN = 1 << kvm_ioeventfd_flag_nr_deassign;
    public const int KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY = 1 << kvm_ioeventfd_flag_nr_virtio_ccw_notify;
    public const int KVM_IOEVENTFD_VALID_FLAG_MASK = (1 << kvm_ioeventfd_flag_nr_max) - 1;

    public const int KVM_X86_DISABLE_EXITS_MWAIT = 1 << 0;
    public const int KVM_X86_DISABLE_EXITS_HLT = 1 << 1;
    public const int KVM_X86_DISABLE_EXITS_PAUSE = 1 << 2;
    public const int KVM_X86_DISABLE_EXITS_CSTATE = 1 << 3;
    public const int KVM_X86_DISABLE_VALID_EXITS = KVM_X86_DISABLE_EXITS_MWAIT | KVM_X86_DISABLE_EXITS_HLT | KVM_X86_DISABLE_EXITS_PAUSE | KVM_X86_DISABLE_EXITS_CSTATE;

    public const int KVMIO = 0xAE;

    public const uint KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL = 0xffffffff;
    public const int KVM_IRQ_ROUTING_IRQCHIP = 1;
    public const int KVM_IRQ_ROUTING_MSI = 2;
    public const int KVM_IRQ_ROUTING_S390_ADAPTER = 3;
    public const int KVM_IRQ_ROUTING_HV_SINT = 4;
    public const int KVM_IRQ_ROUTING_XEN_EVTCHN = 5;

    public const int KVM_XEN_HVM_CONFIG_HYPERCALL_MSR = 1 << 0;
    public const int KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL = 1 << 1;
    public const int KVM_XEN_HVM_CONFIG_SHARED_INFO = 1 << 2;
    public const int KVM_XEN_HVM_CONFIG_RUNSTATE = 1 << 3;
    public const int KVM_XEN_HVM_CONFIG_EVTCHN_2LEVEL = 1 << 4;
    public const int KVM_XEN_HVM_CONFIG_EVTCHN_SEND = 1 << 5;

    public const int KVM_IRQFD_FLAG_DEASSIGN = 1 << 0;
    public const int KVM_IRQFD_FLAG_RESAMPLE = 1 << 1;

    public const int KVM_CLOCK_TSC_STABLE = 2;
    public const int KVM_CLOCK_REALTIME = 1 << 2;
    public const int KVM_CLOCK_HOST_TSC = 1 << 3;

    public const ulong KVM_REG_ARCH_MASK = 0xff00000000000000;
    public const int KVM_REG_GENERIC = 0x0000000000000000;
    public const ulong KVM_REG_PPC = 0x1000000000000000;
    public const ulong KVM_REG_X86 = 0x2000000000000000;
    public const ulong KVM_REG_IA64 = 0x3000000000000000;
    public const ulong KVM_REG_ARM = 0x4000000000000000;
    public const ulong KVM_REG_S390 = 0x5000000000000000;
    public const ulong KVM_REG_ARM64 = 0x6000000000000000;
    public const ulong KVM_REG_MIPS = 0x7000000000000000;
    public const ulong KVM_REG_RISCV = 0x8000000000000000;
    public const int KVM_REG_SIZE_SHIFT = 52;
    public const ulong KVM_REG_SIZE_MASK = 0x00f0000000000000;
    public const int KVM_REG_SIZE_U8 = 0x0000000000000000;
    public const ulong KVM_REG_SIZE_U16 = 0x0010000000000000;
    public const ulong KVM_REG_SIZE_U32 = 0x0020000000000000;
    public const ulong KVM_REG_SIZE_U64 = 0x0030000000000000;
    public const ulong KVM_REG_SIZE_U128 = 0x0040000000000000;
    public const ulong KVM_REG_SIZE_U256 = 0x0050000000000000;
    public const ulong KVM_REG_SIZE_U512 = 0x0060000000000000;
    public const ulong KVM_REG_SIZE_U1024 = 0x0070000000000000;
    public const ulong KVM_REG_SIZE_U2048 = 0x0080000000000000;

    public const int KVM_MSI_VALID_DEVID = 1 << 0;

    public const int KVM_CREATE_DEVICE_TEST = 1;

    public const int KVM_DEV_VFIO_GROUP = 1;
    public const int KVM_DEV_VFIO_GROUP_ADD = 1;
    public const int KVM_DEV_VFIO_GROUP_DEL = 2;
    public const int KVM_DEV_VFIO_GROUP_SET_SPAPR_TCE = 3;
    public const int KVM_DEV_TYPE_FSL_MPIC_20 = 1;
    public const int KVM_DEV_TYPE_FSL_MPIC_42 = 2;
    public const int KVM_DEV_TYPE_XICS = 3;
    public const int KVM_DEV_TYPE_VFIO = 4;
    public const int KVM_DEV_TYPE_ARM_VGIC_V2 = 5;
    public const int KVM_DEV_TYPE_FLIC = 6;
    public const int KVM_DEV_TYPE_ARM_VGIC_V3 = 7;
    public const int KVM_DEV_TYPE_ARM_VGIC_ITS = 8;
    public const int KVM_DEV_TYPE_XIVE = 9;
    public const int KVM_DEV_TYPE_ARM_PV_TIME = 10;

    public const uint KVM_ASSIGN_IRQ = __KVM_DEPRECATED_VM_R_0x70;
    public const uint KVM_DEBUG_GUEST = __KVM_DEPRECATED_VCPU_W_0x87;

    public const int KVM_XEN_EVTCHN_DEASSIGN = 1 << 0;
    public const int KVM_XEN_EVTCHN_UPDATE = 1 << 1;
    public const int KVM_XEN_EVTCHN_RESET = 1 << 2;
    public const int KVM_XEN_ATTR_TYPE_LONG_MODE = 0x0;
    public const int KVM_XEN_ATTR_TYPE_SHARED_INFO = 0x1;
    public const int KVM_XEN_ATTR_TYPE_UPCALL_VECTOR = 0x2;
    public const int KVM_XEN_ATTR_TYPE_EVTCHN = 0x3;
    public const int KVM_XEN_ATTR_TYPE_XEN_VERSION = 0x4;
    public const int KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO = 0x0;
    public const int KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO = 0x1;
    public const int KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR = 0x2;
    public const int KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT = 0x3;
    public const int KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA = 0x4;
    public const int KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADJUST = 0x5;
    public const int KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID = 0x6;
    public const int KVM_XEN_VCPU_ATTR_TYPE_TIMER = 0x7;
    public const int KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR = 0x8;

    public const int KVM_DEV_ASSIGN_ENABLE_IOMMU = 1 << 0;
    public const int KVM_DEV_ASSIGN_PCI_2_3 = 1 << 1;
    public const int KVM_DEV_ASSIGN_MASK_INTX = 1 << 2;
    public const int KVM_DEV_IRQ_HOST_INTX = 1 << 0;
    public const int KVM_DEV_IRQ_HOST_MSI = 1 << 1;
    public const int KVM_DEV_IRQ_HOST_MSIX = 1 << 2;
    public const int KVM_DEV_IRQ_GUEST_INTX = 1 << 8;
    public const int KVM_DEV_IRQ_GUEST_MSI = 1 << 9;
    public const int KVM_DEV_IRQ_GUEST_MSIX = 1 << 10;
    public const int KVM_DEV_IRQ_HOST_MASK = 0x00ff;
    public const int KVM_DEV_IRQ_GUEST_MASK = 0xff00;

    public const int KVM_MAX_MSIX_PER_DEV = 256;
    public const int KVM_X2APIC_API_USE_32BIT_IDS = 1 << 0;
    public const int KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK = 1 << 1;

    public const int KVM_HYPERV_CONN_ID_MASK = 0x00ffffff;
    public const int KVM_HYPERV_EVENTFD_DEASSIGN = 1 << 0;

    public const int KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE = 1 << 0;
    public const int KVM_DIRTY_LOG_INITIALLY_SET = 1 << 1;
    public const int KVM_DIRTY_GFN_F_DIRTY = 1;
    public const int KVM_DIRTY_GFN_F_RESET = 2;
    public const int KVM_DIRTY_GFN_F_MASK = 0x3;

    public const int KVM_BUS_LOCK_DETECTION_OFF = 1 << 0;
    public const int KVM_BUS_LOCK_DETECTION_EXIT = 1 << 1;

    public const int KVM_PMU_CAP_DISABLE = 1 << 0;

    public const int KVM_X86_NOTIFY_VMEXIT_ENABLED = 1 << 0;
    public const int KVM_X86_NOTIFY_VMEXIT_USER = 1 << 1;

    /// <summary>Entries of the ring that fills the rest of its page: <c>(PAGE_SIZE - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio)</c>.</summary>
    public const int KVM_COALESCED_MMIO_MAX = (4096 - 8) / 24;
}
