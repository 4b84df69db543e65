// The ioctl numbers of linux/kvm.h, Linux 6.1, x86-64. Each line: the value as _IOC composes it; the C definition; on which fd x86 handles it.

namespace Kvm.Abi;

public static partial class Uapi
{
    /// <summary><c>_IOW(KVMIO, 0x06, struct kvm_user_trace_setup)</c>; not on x86.</summary>
    public const uint __KVM_DEPRECATED_MAIN_W_0x06 = (_IOC_WRITE << 30) | (8 << 16) | (KVMIO << 8) | 0x06;
    /// <summary><c>_IO(KVMIO, 0x07)</c>; not on x86.</summary>
    public const uint __KVM_DEPRECATED_MAIN_0x07 = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0x07;
    /// <summary><c>_IO(KVMIO, 0x08)</c>; not on x86.</summary>
    public const uint __KVM_DEPRECATED_MAIN_0x08 = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0x08;
    /// <summary><c>_IOR(KVMIO, 0x70, struct kvm_assigned_irq)</c>; not on x86.</summary>
    public const uint __KVM_DEPRECATED_VM_R_0x70 = (_IOC_READ << 30) | (64 << 16) | (KVMIO << 8) | 0x70;
    /// <summary><c>_IOW(KVMIO, 0x87, struct kvm_debug_guest)</c>; not on x86.</summary>
    public const uint __KVM_DEPRECATED_VCPU_W_0x87 = (_IOC_WRITE << 30) | (80 << 16) | (KVMIO << 8) | 0x87;
    /// <summary><c>_IO(KVMIO, 0x00)</c>; system.</summary>
    public const uint KVM_GET_API_VERSION = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0x00;
    /// <summary><c>_IO(KVMIO, 0x01)</c>; system.</summary>
    public const uint KVM_CREATE_VM = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0x01;
    /// <summary><c>_IOWR(KVMIO, 0x02, struct kvm_msr_list)</c>; system.</summary>
    public const uint KVM_GET_MSR_INDEX_LIST = ((_IOC_READ | _IOC_WRITE) << 30) | (4 << 16) | (KVMIO << 8) | 0x02;
    /// <summary><c>_IO(KVMIO, 0x06)</c>; not on x86.</summary>
    public const uint KVM_S390_ENABLE_SIE = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0x06;
    /// <summary><c>_IO(KVMIO, 0x03)</c>; system/vm.</summary>
    public const uint KVM_CHECK_EXTENSION = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0x03;
    /// <summary><c>_IO(KVMIO, 0x04)</c>; system.</summary>
    public const uint KVM_GET_VCPU_MMAP_SIZE = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0x04;
    /// <summary><c>_IOWR(KVMIO, 0x05, struct kvm_cpuid2)</c>; system.</summary>
    public const uint KVM_GET_SUPPORTED_CPUID = ((_IOC_READ | _IOC_WRITE) << 30) | (8 << 16) | (KVMIO << 8) | 0x05;
    /// <summary><c>_IOWR(KVMIO, 0x09, struct kvm_cpuid2)</c>; system.</summary>
    public const uint KVM_GET_EMULATED_CPUID = ((_IOC_READ | _IOC_WRITE) << 30) | (8 << 16) | (KVMIO << 8) | 0x09;
    /// <summary><c>_IOWR(KVMIO, 0x0a, struct kvm_msr_list)</c>; system.</summary>
    public const uint KVM_GET_MSR_FEATURE_INDEX_LIST = ((_IOC_READ | _IOC_WRITE) << 30) | (4 << 16) | (KVMIO << 8) | 0x0a;
    /// <summary><c>_IOW(KVMIO, 0x40, struct kvm_memory_region)</c>; not on x86.</summary>
    public const uint KVM_SET_MEMORY_REGION = (_IOC_WRITE << 30) | (24 << 16) | (KVMIO << 8) | 0x40;
    /// <summary><c>_IO(KVMIO, 0x41)</c>; vm.</summary>
    public const uint KVM_CREATE_VCPU = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0x41;
    /// <summary><c>_IOW(KVMIO, 0x42, struct kvm_dirty_log)</c>; vm.</summary>
    public const uint KVM_GET_DIRTY_LOG = (_IOC_WRITE << 30) | (16 << 16) | (KVMIO << 8) | 0x42;
    /// <summary><c>_IOW(KVMIO, 0x43, struct kvm_memory_alias)</c>; not on x86.</summary>
    public const uint KVM_SET_MEMORY_ALIAS = (_IOC_WRITE << 30) | (32 << 16) | (KVMIO << 8) | 0x43;
    /// <summary><c>_IO(KVMIO, 0x44)</c>; vm.</summary>
    public const uint KVM_SET_NR_MMU_PAGES = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0x44;
    /// <summary><c>_IO(KVMIO, 0x45)</c>; vm.</summary>
    public const uint KVM_GET_NR_MMU_PAGES = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0x45;
    /// <summary><c>_IOW(KVMIO, 0x46, struct kvm_userspace_memory_region)</c>; vm.</summary>
    public const uint KVM_SET_USER_MEMORY_REGION = (_IOC_WRITE << 30) | (32 << 16) | (KVMIO << 8) | 0x46;
    /// <summary><c>_IO(KVMIO, 0x47)</c>; vm.</summary>
    public const uint KVM_SET_TSS_ADDR = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0x47;
    /// <summary><c>_IOW(KVMIO, 0x48, __u64)</c>; vm.</summary>
    public const uint KVM_SET_IDENTITY_MAP_ADDR = (_IOC_WRITE << 30) | (8 << 16) | (KVMIO << 8) | 0x48;
    /// <summary><c>_IOW(KVMIO, 0x50, struct kvm_s390_ucas_mapping)</c>; not on x86.</summary>
    public const uint KVM_S390_UCAS_MAP = (_IOC_WRITE << 30) | (24 << 16) | (KVMIO << 8) | 0x50;
    /// <summary><c>_IOW(KVMIO, 0x51, struct kvm_s390_ucas_mapping)</c>; not on x86.</summary>
    public const uint KVM_S390_UCAS_UNMAP = (_IOC_WRITE << 30) | (24 << 16) | (KVMIO << 8) | 0x51;
    /// <summary><c>_IOW(KVMIO, 0x52, unsigned long)</c>; not on x86.</summary>
    public const uint KVM_S390_VCPU_FAULT = (_IOC_WRITE << 30) | (8 << 16) | (KVMIO << 8) | 0x52;
    /// <summary><c>_IO(KVMIO, 0x60)</c>; vm.</summary>
    public const uint KVM_CREATE_IRQCHIP = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0x60;
    /// <summary><c>_IOW(KVMIO, 0x61, struct kvm_irq_level)</c>; vm.</summary>
    public const uint KVM_IRQ_LINE = (_IOC_WRITE << 30) | (8 << 16) | (KVMIO << 8) | 0x61;
    /// <summary><c>_IOWR(KVMIO, 0x62, struct kvm_irqchip)</c>; vm.</summary>
    public const uint KVM_GET_IRQCHIP = ((_IOC_READ | _IOC_WRITE) << 30) | (520 << 16) | (KVMIO << 8) | 0x62;
    /// <summary><c>_IOR(KVMIO, 0x63, struct kvm_irqchip)</c>; vm.</summary>
    public const uint KVM_SET_IRQCHIP = (_IOC_READ << 30) | (520 << 16) | (KVMIO << 8) | 0x63;
    /// <summary><c>_IO(KVMIO, 0x64)</c>; vm.</summary>
    public const uint KVM_CREATE_PIT = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0x64;
    /// <summary><c>_IOWR(KVMIO, 0x65, struct kvm_pit_state)</c>; vm.</summary>
    public const uint KVM_GET_PIT = ((_IOC_READ | _IOC_WRITE) << 30) | (72 << 16) | (KVMIO << 8) | 0x65;
    /// <summary><c>_IOR(KVMIO, 0x66, struct kvm_pit_state)</c>; vm.</summary>
    public const uint KVM_SET_PIT = (_IOC_READ << 30) | (72 << 16) | (KVMIO << 8) | 0x66;
    /// <summary><c>_IOWR(KVMIO, 0x67, struct kvm_irq_level)</c>; vm.</summary>
    public const uint KVM_IRQ_LINE_STATUS = ((_IOC_READ | _IOC_WRITE) << 30) | (8 << 16) | (KVMIO << 8) | 0x67;
    /// <summary><c>_IOW(KVMIO, 0x67, struct kvm_coalesced_mmio_zone)</c>; vm.</summary>
    public const uint KVM_REGISTER_COALESCED_MMIO = (_IOC_WRITE << 30) | (16 << 16) | (KVMIO << 8) | 0x67;
    /// <summary><c>_IOW(KVMIO, 0x68, struct kvm_coalesced_mmio_zone)</c>; vm.</summary>
    public const uint KVM_UNREGISTER_COALESCED_MMIO = (_IOC_WRITE << 30) | (16 << 16) | (KVMIO << 8) | 0x68;
    /// <summary><c>_IOR(KVMIO, 0x69, struct kvm_assigned_pci_dev)</c>; not on x86.</summary>
    public const uint KVM_ASSIGN_PCI_DEVICE = (_IOC_READ << 30) | (64 << 16) | (KVMIO << 8) | 0x69;
    /// <summary><c>_IOW(KVMIO, 0x6a, struct kvm_irq_routing)</c>; vm.</summary>
    public const uint KVM_SET_GSI_ROUTING = (_IOC_WRITE << 30) | (8 << 16) | (KVMIO << 8) | 0x6a;
    /// <summary><c>_IOW(KVMIO, 0x70, struct kvm_assigned_irq)</c>; not on x86.</summary>
    public const uint KVM_ASSIGN_DEV_IRQ = (_IOC_WRITE << 30) | (64 << 16) | (KVMIO << 8) | 0x70;
    /// <summary><c>_IO(KVMIO, 0x71)</c>; vm.</summary>
    public const uint KVM_REINJECT_CONTROL = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0x71;
    /// <summary><c>_IOW(KVMIO, 0x72, struct kvm_assigned_pci_dev)</c>; not on x86.</summary>
    public const uint KVM_DEASSIGN_PCI_DEVICE = (_IOC_WRITE << 30) | (64 << 16) | (KVMIO << 8) | 0x72;
    /// <summary><c>_IOW(KVMIO, 0x73, struct kvm_assigned_msix_nr)</c>; not on x86.</summary>
    public const uint KVM_ASSIGN_SET_MSIX_NR = (_IOC_WRITE << 30) | (8 << 16) | (KVMIO << 8) | 0x73;
    /// <summary><c>_IOW(KVMIO, 0x74, struct kvm_assigned_msix_entry)</c>; not on x86.</summary>
    public const uint KVM_ASSIGN_SET_MSIX_ENTRY = (_IOC_WRITE << 30) | (16 << 16) | (KVMIO << 8) | 0x74;
    /// <summary><c>_IOW(KVMIO, 0x75, struct kvm_assigned_irq)</c>; not on x86.</summary>
    public const uint KVM_DEASSIGN_DEV_IRQ = (_IOC_WRITE << 30) | (64 << 16) | (KVMIO << 8) | 0x75;
    /// <summary><c>_IOW(KVMIO, 0x76, struct kvm_irqfd)</c>; vm.</summary>
    public const uint KVM_IRQFD = (_IOC_WRITE << 30) | (32 << 16) | (KVMIO << 8) | 0x76;
    /// <summary><c>_IOW(KVMIO, 0x77, struct kvm_pit_config)</c>; vm.</summary>
    public const uint KVM_CREATE_PIT2 = (_IOC_WRITE << 30) | (64 << 16) | (KVMIO << 8) | 0x77;
    /// <summary><c>_IO(KVMIO, 0x78)</c>; vm.</summary>
    public const uint KVM_SET_BOOT_CPU_ID = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0x78;
    /// <summary><c>_IOW(KVMIO, 0x79, struct kvm_ioeventfd)</c>; vm.</summary>
    public const uint KVM_IOEVENTFD = (_IOC_WRITE << 30) | (64 << 16) | (KVMIO << 8) | 0x79;
    /// <summary><c>_IOW(KVMIO, 0x7a, struct kvm_xen_hvm_config)</c>; vm.</summary>
    public const uint KVM_XEN_HVM_CONFIG = (_IOC_WRITE << 30) | (56 << 16) | (KVMIO << 8) | 0x7a;
    /// <summary><c>_IOW(KVMIO, 0x7b, struct kvm_clock_data)</c>; vm.</summary>
    public const uint KVM_SET_CLOCK = (_IOC_WRITE << 30) | (48 << 16) | (KVMIO << 8) | 0x7b;
    /// <summary><c>_IOR(KVMIO, 0x7c, struct kvm_clock_data)</c>; vm.</summary>
    public const uint KVM_GET_CLOCK = (_IOC_READ << 30) | (48 << 16) | (KVMIO << 8) | 0x7c;
    /// <summary><c>_IOR(KVMIO, 0x9f, struct kvm_pit_state2)</c>; vm. Available with KVM_CAP_PIT_STATE2.</summary>
    public const uint KVM_GET_PIT2 = (_IOC_READ << 30) | (112 << 16) | (KVMIO << 8) | 0x9f;
    /// <summary><c>_IOW(KVMIO, 0xa0, struct kvm_pit_state2)</c>; vm. Available with KVM_CAP_PIT_STATE2.</summary>
    public const uint KVM_SET_PIT2 = (_IOC_WRITE << 30) | (112 << 16) | (KVMIO << 8) | 0xa0;
    /// <summary><c>_IOW(KVMIO, 0xa1, struct kvm_ppc_pvinfo)</c>; not on x86. Available with KVM_CAP_PPC_GET_PVINFO.</summary>
    public const uint KVM_PPC_GET_PVINFO = (_IOC_WRITE << 30) | (128 << 16) | (KVMIO << 8) | 0xa1;
    /// <summary><c>_IO(KVMIO, 0xa2)</c>; vm/vcpu.</summary>
    public const uint KVM_SET_TSC_KHZ = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0xa2;
    /// <summary><c>_IO(KVMIO, 0xa3)</c>; vm/vcpu.</summary>
    public const uint KVM_GET_TSC_KHZ = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0xa3;
    /// <summary><c>_IOW(KVMIO, 0xa4, struct kvm_assigned_pci_dev)</c>; not on x86. Available with KVM_CAP_PCI_2_3.</summary>
    public const uint KVM_ASSIGN_SET_INTX_MASK = (_IOC_WRITE << 30) | (64 << 16) | (KVMIO << 8) | 0xa4;
    /// <summary><c>_IOW(KVMIO, 0xa5, struct kvm_msi)</c>; vm. Available with KVM_CAP_SIGNAL_MSI.</summary>
    public const uint KVM_SIGNAL_MSI = (_IOC_WRITE << 30) | (32 << 16) | (KVMIO << 8) | 0xa5;
    /// <summary><c>_IOR(KVMIO, 0xa6, struct kvm_ppc_smmu_info)</c>; not on x86. Available with KVM_CAP_PPC_GET_SMMU_INFO.</summary>
    public const uint KVM_PPC_GET_SMMU_INFO = (_IOC_READ << 30) | (592 << 16) | (KVMIO << 8) | 0xa6;
    /// <summary><c>_IOWR(KVMIO, 0xa7, __u32)</c>; not on x86. Available with KVM_CAP_PPC_ALLOC_HTAB.</summary>
    public const uint KVM_PPC_ALLOCATE_HTAB = ((_IOC_READ | _IOC_WRITE) << 30) | (4 << 16) | (KVMIO << 8) | 0xa7;
    /// <summary><c>_IOW(KVMIO, 0xab, struct kvm_arm_device_addr)</c>; not on x86. Available with KVM_CAP_ARM_SET_DEVICE_ADDR.</summary>
    public const uint KVM_ARM_SET_DEVICE_ADDR = (_IOC_WRITE << 30) | (16 << 16) | (KVMIO << 8) | 0xab;
    /// <summary><c>_IOR(KVMIO, 0xad, struct kvm_ppc_resize_hpt)</c>; not on x86. Available with KVM_CAP_SPAPR_RESIZE_HPT.</summary>
    public const uint KVM_PPC_RESIZE_HPT_PREPARE = (_IOC_READ << 30) | (16 << 16) | (KVMIO << 8) | 0xad;
    /// <summary><c>_IOR(KVMIO, 0xae, struct kvm_ppc_resize_hpt)</c>; not on x86. Available with KVM_CAP_SPAPR_RESIZE_HPT.</summary>
    public const uint KVM_PPC_RESIZE_HPT_COMMIT = (_IOC_READ << 30) | (16 << 16) | (KVMIO << 8) | 0xae;
    /// <summary><c>_IOW(KVMIO, 0xb2, struct kvm_pmu_event_filter)</c>; vm. Available with KVM_CAP_PMU_EVENT_FILTER.</summary>
    public const uint KVM_SET_PMU_EVENT_FILTER = (_IOC_WRITE << 30) | (32 << 16) | (KVMIO << 8) | 0xb2;
    /// <summary><c>_IO(KVMIO, 0xb3)</c>; not on x86. Available with KVM_CAP_PMU_EVENT_FILTER.</summary>
    public const uint KVM_PPC_SVM_OFF = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0xb3;
    /// <summary><c>_IOWR(KVMIO, 0xe0, struct kvm_create_device)</c>; vm.</summary>
    public const uint KVM_CREATE_DEVICE = ((_IOC_READ | _IOC_WRITE) << 30) | (12 << 16) | (KVMIO << 8) | 0xe0;
    /// <summary><c>_IOW(KVMIO, 0xe1, struct kvm_device_attr)</c>; vcpu/device.</summary>
    public const uint KVM_SET_DEVICE_ATTR = (_IOC_WRITE << 30) | (24 << 16) | (KVMIO << 8) | 0xe1;
    /// <summary><c>_IOW(KVMIO, 0xe2, struct kvm_device_attr)</c>; system/vcpu/device.</summary>
    public const uint KVM_GET_DEVICE_ATTR = (_IOC_WRITE << 30) | (24 << 16) | (KVMIO << 8) | 0xe2;
    /// <summary><c>_IOW(KVMIO, 0xe3, struct kvm_device_attr)</c>; system/vcpu/device.</summary>
    public const uint KVM_HAS_DEVICE_ATTR = (_IOC_WRITE << 30) | (24 << 16) | (KVMIO << 8) | 0xe3;
    /// <summary><c>_IO(KVMIO, 0x80)</c>; vcpu.</summary>
    public const uint KVM_RUN = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0x80;
    /// <summary><c>_IOR(KVMIO, 0x81, struct kvm_regs)</c>; vcpu.</summary>
    public const uint KVM_GET_REGS = (_IOC_READ << 30) | (144 << 16) | (KVMIO << 8) | 0x81;
    /// <summary><c>_IOW(KVMIO, 0x82, struct kvm_regs)</c>; vcpu.</summary>
    public const uint KVM_SET_REGS = (_IOC_WRITE << 30) | (144 << 16) | (KVMIO << 8) | 0x82;
    /// <summary><c>_IOR(KVMIO, 0x83, struct kvm_sregs)</c>; vcpu.</summary>
    public const uint KVM_GET_SREGS = (_IOC_READ << 30) | (312 << 16) | (KVMIO << 8) | 0x83;
    /// <summary><c>_IOW(KVMIO, 0x84, struct kvm_sregs)</c>; vcpu.</summary>
    public const uint KVM_SET_SREGS = (_IOC_WRITE << 30) | (312 << 16) | (KVMIO << 8) | 0x84;
    /// <summary><c>_IOWR(KVMIO, 0x85, struct kvm_translation)</c>; vcpu.</summary>
    public const uint KVM_TRANSLATE = ((_IOC_READ | _IOC_WRITE) << 30) | (24 << 16) | (KVMIO << 8) | 0x85;
    /// <summary><c>_IOW(KVMIO, 0x86, struct kvm_interrupt)</c>; vcpu.</summary>
    public const uint KVM_INTERRUPT = (_IOC_WRITE << 30) | (4 << 16) | (KVMIO << 8) | 0x86;
    /// <summary><c>_IOWR(KVMIO, 0x88, struct kvm_msrs)</c>; system/vcpu.</summary>
    public const uint KVM_GET_MSRS = ((_IOC_READ | _IOC_WRITE) << 30) | (8 << 16) | (KVMIO << 8) | 0x88;
    /// <summary><c>_IOW(KVMIO, 0x89, struct kvm_msrs)</c>; vcpu.</summary>
    public const uint KVM_SET_MSRS = (_IOC_WRITE << 30) | (8 << 16) | (KVMIO << 8) | 0x89;
    /// <summary><c>_IOW(KVMIO, 0x8a, struct kvm_cpuid)</c>; vcpu.</summary>
    public const uint KVM_SET_CPUID = (_IOC_WRITE << 30) | (8 << 16) | (KVMIO << 8) | 0x8a;
    /// <summary><c>_IOW(KVMIO, 0x8b, struct kvm_signal_mask)</c>; vcpu.</summary>
    public const uint KVM_SET_SIGNAL_MASK = (_IOC_WRITE << 30) | (4 << 16) | (KVMIO << 8) | 0x8b;
    /// <summary><c>_IOR(KVMIO, 0x8c, struct kvm_fpu)</c>; vcpu.</summary>
    public const uint KVM_GET_FPU = (_IOC_READ << 30) | (416 << 16) | (KVMIO << 8) | 0x8c;
    /// <summary><c>_IOW(KVMIO, 0x8d, struct kvm_fpu)</c>; vcpu.</summary>
    public const uint KVM_SET_FPU = (_IOC_WRITE << 30) | (416 << 16) | (KVMIO << 8) | 0x8d;
    /// <summary><c>_IOR(KVMIO, 0x8e, struct kvm_lapic_state)</c>; vcpu.</summary>
    public const uint KVM_GET_LAPIC = (_IOC_READ << 30) | (1024 << 16) | (KVMIO << 8) | 0x8e;
    /// <summary><c>_IOW(KVMIO, 0x8f, struct kvm_lapic_state)</c>; vcpu.</summary>
    public const uint KVM_SET_LAPIC = (_IOC_WRITE << 30) | (1024 << 16) | (KVMIO << 8) | 0x8f;
    /// <summary><c>_IOW(KVMIO, 0x90, struct kvm_cpuid2)</c>; vcpu.</summary>
    public const uint KVM_SET_CPUID2 = (_IOC_WRITE << 30) | (8 << 16) | (KVMIO << 8) | 0x90;
    /// <summary><c>_IOWR(KVMIO, 0x91, struct kvm_cpuid2)</c>; vcpu.</summary>
    public const uint KVM_GET_CPUID2 = ((_IOC_READ | _IOC_WRITE) << 30) | (8 << 16) | (KVMIO << 8) | 0x91;
    /// <summary><c>_IOWR(KVMIO, 0x92, struct kvm_tpr_access_ctl)</c>; vcpu. Available with KVM_CAP_VAPIC.</summary>
    public const uint KVM_TPR_ACCESS_REPORTING = ((_IOC_READ | _IOC_WRITE) << 30) | (40 << 16) | (KVMIO << 8) | 0x92;
    /// <summary><c>_IOW(KVMIO, 0x93, struct kvm_vapic_addr)</c>; vcpu. Available with KVM_CAP_VAPIC.</summary>
    public const uint KVM_SET_VAPIC_ADDR = (_IOC_WRITE << 30) | (8 << 16) | (KVMIO << 8) | 0x93;
    /// <summary><c>_IOW(KVMIO, 0x94, struct kvm_s390_interrupt)</c>; not on x86.</summary>
    public const uint KVM_S390_INTERRUPT = (_IOC_WRITE << 30) | (16 << 16) | (KVMIO << 8) | 0x94;
    /// <summary><c>_IOW(KVMIO, 0x95, unsigned long)</c>; not on x86.</summary>
    public const uint KVM_S390_STORE_STATUS = (_IOC_WRITE << 30) | (8 << 16) | (KVMIO << 8) | 0x95;
    /// <summary><c>_IOW(KVMIO, 0x96, struct kvm_s390_psw)</c>; not on x86.</summary>
    public const uint KVM_S390_SET_INITIAL_PSW = (_IOC_WRITE << 30) | (16 << 16) | (KVMIO << 8) | 0x96;
    /// <summary><c>_IO(KVMIO, 0x97)</c>; not on x86.</summary>
    public const uint KVM_S390_INITIAL_RESET = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0x97;
    /// <summary><c>_IOR(KVMIO, 0x98, struct kvm_mp_state)</c>; vcpu.</summary>
    public const uint KVM_GET_MP_STATE = (_IOC_READ << 30) | (4 << 16) | (KVMIO << 8) | 0x98;
    /// <summary><c>_IOW(KVMIO, 0x99, struct kvm_mp_state)</c>; vcpu.</summary>
    public const uint KVM_SET_MP_STATE = (_IOC_WRITE << 30) | (4 << 16) | (KVMIO << 8) | 0x99;
    /// <summary><c>_IO(KVMIO, 0x9a)</c>; vcpu. Available with KVM_CAP_USER_NMI.</summary>
    public const uint KVM_NMI = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0x9a;
    /// <summary><c>_IOW(KVMIO, 0x9b, struct kvm_guest_debug)</c>; vcpu. Available with KVM_CAP_SET_GUEST_DEBUG.</summary>
    public const uint KVM_SET_GUEST_DEBUG = (_IOC_WRITE << 30) | (72 << 16) | (KVMIO << 8) | 0x9b;
    /// <summary><c>_IOW(KVMIO, 0x9c, __u64)</c>; vcpu.</summary>
    public const uint KVM_X86_SETUP_MCE = (_IOC_WRITE << 30) | (8 << 16) | (KVMIO << 8) | 0x9c;
    /// <summary><c>_IOR(KVMIO, 0x9d, __u64)</c>; system.</summary>
    public const uint KVM_X86_GET_MCE_CAP_SUPPORTED = (_IOC_READ << 30) | (8 << 16) | (KVMIO << 8) | 0x9d;
    /// <summary><c>_IOW(KVMIO, 0x9e, struct kvm_x86_mce)</c>; vcpu.</summary>
    public const uint KVM_X86_SET_MCE = (_IOC_WRITE << 30) | (64 << 16) | (KVMIO << 8) | 0x9e;
    /// <summary><c>_IOR(KVMIO, 0x9f, struct kvm_vcpu_events)</c>; vcpu. Available with KVM_CAP_VCPU_EVENTS.</summary>
    public const uint KVM_GET_VCPU_EVENTS = (_IOC_READ << 30) | (64 << 16) | (KVMIO << 8) | 0x9f;
    /// <summary><c>_IOW(KVMIO, 0xa0, struct kvm_vcpu_events)</c>; vcpu. Available with KVM_CAP_VCPU_EVENTS.</summary>
    public const uint KVM_SET_VCPU_EVENTS = (_IOC_WRITE << 30) | (64 << 16) | (KVMIO << 8) | 0xa0;
    /// <summary><c>_IOR(KVMIO, 0xa1, struct kvm_debugregs)</c>; vcpu. Available with KVM_CAP_DEBUGREGS.</summary>
    public const uint KVM_GET_DEBUGREGS = (_IOC_READ << 30) | (128 << 16) | (KVMIO << 8) | 0xa1;
    /// <summary><c>_IOW(KVMIO, 0xa2, struct kvm_debugregs)</c>; vcpu. Available with KVM_CAP_DEBUGREGS.</summary>
    public const uint KVM_SET_DEBUGREGS = (_IOC_WRITE << 30) | (128 << 16) | (KVMIO << 8) | 0xa2;
    /// <summary><c>_IOW(KVMIO, 0xa3, struct kvm_enable_cap)</c>; vm/vcpu.</summary>
    public const uint KVM_ENABLE_CAP = (_IOC_WRITE << 30) | (104 << 16) | (KVMIO << 8) | 0xa3;
    /// <summary><c>_IOR(KVMIO, 0xa4, struct kvm_xsave)</c>; vcpu. Available with KVM_CAP_XSAVE.</summary>
    public const uint KVM_GET_XSAVE = (_IOC_READ << 30) | (4096 << 16) | (KVMIO << 8) | 0xa4;
    /// <summary><c>_IOW(KVMIO, 0xa5, struct kvm_xsave)</c>; vcpu. Available with KVM_CAP_XSAVE.</summary>
    public const uint KVM_SET_XSAVE = (_IOC_WRITE << 30) | (4096 << 16) | (KVMIO << 8) | 0xa5;
    /// <summary><c>_IOR(KVMIO, 0xa6, struct kvm_xcrs)</c>; vcpu. Available with KVM_CAP_XCRS.</summary>
    public const uint KVM_GET_XCRS = (_IOC_READ << 30) | (392 << 16) | (KVMIO << 8) | 0xa6;
    /// <summary><c>_IOW(KVMIO, 0xa7, struct kvm_xcrs)</c>; vcpu. Available with KVM_CAP_XCRS.</summary>
    public const uint KVM_SET_XCRS = (_IOC_WRITE << 30) | (392 << 16) | (KVMIO << 8) | 0xa7;
    /// <summary><c>_IOW(KVMIO, 0xaa, struct kvm_dirty_tlb)</c>; not on x86. Available with KVM_CAP_SW_TLB.</summary>
    public const uint KVM_DIRTY_TLB = (_IOC_WRITE << 30) | (16 << 16) | (KVMIO << 8) | 0xaa;
    /// <summary><c>_IOW(KVMIO, 0xab, struct kvm_one_reg)</c>; not on x86. Available with KVM_CAP_ONE_REG.</summary>
    public const uint KVM_GET_ONE_REG = (_IOC_WRITE << 30) | (16 << 16) | (KVMIO << 8) | 0xab;
    /// <summary><c>_IOW(KVMIO, 0xac, struct kvm_one_reg)</c>; not on x86. Available with KVM_CAP_ONE_REG.</summary>
    public const uint KVM_SET_ONE_REG = (_IOC_WRITE << 30) | (16 << 16) | (KVMIO << 8) | 0xac;
    /// <summary><c>_IO(KVMIO, 0xad)</c>; vcpu.</summary>
    public const uint KVM_KVMCLOCK_CTRL = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0xad;
    /// <summary><c>_IOWR(KVMIO, 0xb0, struct kvm_reg_list)</c>; not on x86.</summary>
    public const uint KVM_GET_REG_LIST = ((_IOC_READ | _IOC_WRITE) << 30) | (8 << 16) | (KVMIO << 8) | 0xb0;
    /// <summary><c>_IOW(KVMIO, 0xb1, struct kvm_s390_mem_op)</c>; not on x86. Available with KVM_CAP_S390_MEM_OP.</summary>
    public const uint KVM_S390_MEM_OP = (_IOC_WRITE << 30) | (64 << 16) | (KVMIO << 8) | 0xb1;
    /// <summary><c>_IOW(KVMIO, 0xb2, struct kvm_s390_skeys)</c>; not on x86. Available with KVM_CAP_S390_SKEYS.</summary>
    public const uint KVM_S390_GET_SKEYS = (_IOC_WRITE << 30) | (64 << 16) | (KVMIO << 8) | 0xb2;
    /// <summary><c>_IOW(KVMIO, 0xb3, struct kvm_s390_skeys)</c>; not on x86. Available with KVM_CAP_S390_SKEYS.</summary>
    public const uint KVM_S390_SET_SKEYS = (_IOC_WRITE << 30) | (64 << 16) | (KVMIO << 8) | 0xb3;
    /// <summary><c>_IOW(KVMIO, 0xb4, struct kvm_s390_irq)</c>; not on x86. Available with KVM_CAP_S390_INJECT_IRQ.</summary>
    public const uint KVM_S390_IRQ = (_IOC_WRITE << 30) | (72 << 16) | (KVMIO << 8) | 0xb4;
    /// <summary><c>_IOW(KVMIO, 0xb5, struct kvm_s390_irq_state)</c>; not on x86. Available with KVM_CAP_S390_IRQ_STATE.</summary>
    public const uint KVM_S390_SET_IRQ_STATE = (_IOC_WRITE << 30) | (32 << 16) | (KVMIO << 8) | 0xb5;
    /// <summary><c>_IOW(KVMIO, 0xb6, struct kvm_s390_irq_state)</c>; not on x86. Available with KVM_CAP_S390_IRQ_STATE.</summary>
    public const uint KVM_S390_GET_IRQ_STATE = (_IOC_WRITE << 30) | (32 << 16) | (KVMIO << 8) | 0xb6;
    /// <summary><c>_IO(KVMIO, 0xb7)</c>; vcpu. Available with KVM_CAP_X86_SMM.</summary>
    public const uint KVM_SMI = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0xb7;
    /// <summary><c>_IOWR(KVMIO, 0xb8, struct kvm_s390_cmma_log)</c>; not on x86. Available with KVM_CAP_S390_CMMA_MIGRATION.</summary>
    public const uint KVM_S390_GET_CMMA_BITS = ((_IOC_READ | _IOC_WRITE) << 30) | (32 << 16) | (KVMIO << 8) | 0xb8;
    /// <summary><c>_IOW(KVMIO, 0xb9, struct kvm_s390_cmma_log)</c>; not on x86. Available with KVM_CAP_S390_CMMA_MIGRATION.</summary>
    public const uint KVM_S390_SET_CMMA_BITS = (_IOC_WRITE << 30) | (32 << 16) | (KVMIO << 8) | 0xb9;
    /// <summary><c>_IOWR(KVMIO, 0xba, unsigned long)</c>; vm.</summary>
    public const uint KVM_MEMORY_ENCRYPT_OP = ((_IOC_READ | _IOC_WRITE) << 30) | (8 << 16) | (KVMIO << 8) | 0xba;
    /// <summary><c>_IOR(KVMIO, 0xbb, struct kvm_enc_region)</c>; vm.</summary>
    public const uint KVM_MEMORY_ENCRYPT_REG_REGION = (_IOC_READ << 30) | (16 << 16) | (KVMIO << 8) | 0xbb;
    /// <summary><c>_IOR(KVMIO, 0xbc, struct kvm_enc_region)</c>; vm.</summary>
    public const uint KVM_MEMORY_ENCRYPT_UNREG_REGION = (_IOC_READ << 30) | (16 << 16) | (KVMIO << 8) | 0xbc;
    /// <summary><c>_IOW(KVMIO, 0xbd, struct kvm_hyperv_eventfd)</c>; vm. Available with KVM_CAP_HYPERV_EVENTFD.</summary>
    public const uint KVM_HYPERV_EVENTFD = (_IOC_WRITE << 30) | (24 << 16) | (KVMIO << 8) | 0xbd;
    /// <summary><c>_IOWR(KVMIO, 0xbe, struct kvm_nested_state)</c>; vcpu. Available with KVM_CAP_NESTED_STATE.</summary>
    public const uint KVM_GET_NESTED_STATE = ((_IOC_READ | _IOC_WRITE) << 30) | (128 << 16) | (KVMIO << 8) | 0xbe;
    /// <summary><c>_IOW(KVMIO, 0xbf, struct kvm_nested_state)</c>; vcpu. Available with KVM_CAP_NESTED_STATE.</summary>
    public const uint KVM_SET_NESTED_STATE = (_IOC_WRITE << 30) | (128 << 16) | (KVMIO << 8) | 0xbf;
    /// <summary><c>_IOWR(KVMIO, 0xc0, struct kvm_clear_dirty_log)</c>; vm. Available with KVM_CAP_MANUAL_DIRTY_LOG_PROTECT_2.</summary>
    public const uint KVM_CLEAR_DIRTY_LOG = ((_IOC_READ | _IOC_WRITE) << 30) | (24 << 16) | (KVMIO << 8) | 0xc0;
    /// <summary><c>_IOWR(KVMIO, 0xc1, struct kvm_cpuid2)</c>; system/vcpu. Available with KVM_CAP_HYPERV_CPUID (vcpu) / KVM_CAP_SYS_HYPERV_CPUID (system).</summary>
    public const uint KVM_GET_SUPPORTED_HV_CPUID = ((_IOC_READ | _IOC_WRITE) << 30) | (8 << 16) | (KVMIO << 8) | 0xc1;
    /// <summary><c>_IOW(KVMIO, 0xc2, int)</c>; not on x86. Available with KVM_CAP_ARM_SVE.</summary>
    public const uint KVM_ARM_VCPU_FINALIZE = (_IOC_WRITE << 30) | (4 << 16) | (KVMIO << 8) | 0xc2;
    /// <summary><c>_IO(KVMIO, 0xc3)</c>; not on x86. Available with KVM_CAP_S390_VCPU_RESETS.</summary>
    public const uint KVM_S390_NORMAL_RESET = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0xc3;
    /// <summary><c>_IO(KVMIO, 0xc4)</c>; not on x86. Available with KVM_CAP_S390_VCPU_RESETS.</summary>
    public const uint KVM_S390_CLEAR_RESET = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0xc4;
    /// <summary><c>_IOWR(KVMIO, 0xc5, struct kvm_pv_cmd)</c>; not on x86. Available with KVM_CAP_S390_PROTECTED.</summary>
    public const uint KVM_S390_PV_COMMAND = ((_IOC_READ | _IOC_WRITE) << 30) | (32 << 16) | (KVMIO << 8) | 0xc5;
    /// <summary><c>_IOW(KVMIO, 0xc6, struct kvm_msr_filter)</c>; vm. Available with KVM_CAP_X86_MSR_FILTER.</summary>
    public const uint KVM_X86_SET_MSR_FILTER = (_IOC_WRITE << 30) | (392 << 16) | (KVMIO << 8) | 0xc6;
    /// <summary><c>_IO(KVMIO, 0xc7)</c>; vm. Available with KVM_CAP_DIRTY_LOG_RING.</summary>
    public const uint KVM_RESET_DIRTY_RINGS = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0xc7;
    /// <summary><c>_IOWR(KVMIO, 0xc8, struct kvm_xen_hvm_attr)</c>; vm.</summary>
    public const uint KVM_XEN_HVM_GET_ATTR = ((_IOC_READ | _IOC_WRITE) << 30) | (72 << 16) | (KVMIO << 8) | 0xc8;
    /// <summary><c>_IOW(KVMIO, 0xc9, struct kvm_xen_hvm_attr)</c>; vm.</summary>
    public const uint KVM_XEN_HVM_SET_ATTR = (_IOC_WRITE << 30) | (72 << 16) | (KVMIO << 8) | 0xc9;
    /// <summary><c>_IOWR(KVMIO, 0xca, struct kvm_xen_vcpu_attr)</c>; vcpu.</summary>
    public const uint KVM_XEN_VCPU_GET_ATTR = ((_IOC_READ | _IOC_WRITE) << 30) | (72 << 16) | (KVMIO << 8) | 0xca;
    /// <summary><c>_IOW(KVMIO, 0xcb, struct kvm_xen_vcpu_attr)</c>; vcpu.</summary>
    public const uint KVM_XEN_VCPU_SET_ATTR = (_IOC_WRITE << 30) | (72 << 16) | (KVMIO << 8) | 0xcb;
    /// <summary><c>_IOW(KVMIO, 0xd0, struct kvm_irq_routing_xen_evtchn)</c>; vm. Available with KVM_CAP_XEN_HVM / KVM_XEN_HVM_CONFIG_EVTCHN_SEND.</summary>
    public const uint KVM_XEN_HVM_EVTCHN_SEND = (_IOC_WRITE << 30) | (12 << 16) | (KVMIO << 8) | 0xd0;
    /// <summary><c>_IOR(KVMIO, 0xcc, struct kvm_sregs2)</c>; vcpu.</summary>
    public const uint KVM_GET_SREGS2 = (_IOC_READ << 30) | (320 << 16) | (KVMIO << 8) | 0xcc;
    /// <summary><c>_IOW(KVMIO, 0xcd, struct kvm_sregs2)</c>; vcpu.</summary>
    public const uint KVM_SET_SREGS2 = (_IOC_WRITE << 30) | (320 << 16) | (KVMIO << 8) | 0xcd;
    /// <summary><c>_IO(KVMIO, 0xce)</c>; vm/vcpu.</summary>
    public const uint KVM_GET_STATS_FD = (_IOC_NONE << 30) | (0 << 16) | (KVMIO << 8) | 0xce;
    /// <summary><c>_IOR(KVMIO, 0xcf, struct kvm_xsave)</c>; vcpu. Available with KVM_CAP_XSAVE2.</summary>
    public const uint KVM_GET_XSAVE2 = (_IOC_READ << 30) | (4096 << 16) | (KVMIO << 8) | 0xcf;
    /// <summary><c>_IOWR(KVMIO, 0xd0, struct kvm_pv_cmd)</c>; not on x86. Available with KVM_CAP_S390_PROTECTED_DUMP.</summary>
    public const uint KVM_S390_PV_CPU_COMMAND = ((_IOC_READ | _IOC_WRITE) << 30) | (32 << 16) | (KVMIO << 8) | 0xd0;
    /// <summary><c>_IOW(KVMIO, 0xd1, struct kvm_s390_zpci_op)</c>; not on x86. Available with KVM_CAP_S390_ZPCI_OP.</summary>
    public const uint KVM_S390_ZPCI_OP = (_IOC_WRITE << 30) | (72 << 16) | (KVMIO << 8) | 0xd1;
}
