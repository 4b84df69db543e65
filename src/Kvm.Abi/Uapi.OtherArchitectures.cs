// Other architectures. Linux 6.1, x86-64.

namespace Kvm.Abi;

public static partial class Uapi
{
    public const int KVM_PPC_PVINFO_FLAGS_EV_IDLE = 1 << 0;
    public const int KVM_PPC_PAGE_SIZES_MAX_SZ = 8;
    public const int KVM_PPC_PAGE_SIZES_REAL = 0x00000001;
    public const int KVM_PPC_1T_SEGMENTS = 0x00000002;
    public const int KVM_PPC_NO_HASH = 0x00000004;

    public const int KVM_VM_S390_UCONTROL = 1;
    public const int KVM_VM_PPC_HV = 1;
    public const int KVM_VM_PPC_PR = 2;
    public const int KVM_VM_MIPS_AUTO = 0;
    public const int KVM_VM_MIPS_VZ = 1;
    public const int KVM_VM_MIPS_TE = 2;
    public const int KVM_VM_TYPE_ARM_IPA_SIZE_MASK = 0xff;

    public const int KVM_MMU_FSL_BOOKE_NOHV = 0;
    public const int KVM_MMU_FSL_BOOKE_HV = 1;

    public const int KVM_ARM_DEV_EL1_VTIMER = 1 << 0;
    public const int KVM_ARM_DEV_EL1_PTIMER = 1 << 1;
    public const int KVM_ARM_DEV_PMU = 1 << 2;

    public static ulong KVM_VM_TYPE_ARM_IPA_SIZE(ulong x) => x & KVM_VM_TYPE_ARM_IPA_SIZE_MASK;

    /// <summary>
    /// ioctls whose argument structure exists only in another architecture's headers: on x86 the macro is defined but cannot be expanded to a number.
    /// </summary>
    public static readonly IReadOnlyDictionary<string, string> IoctlsWithoutNumberOnX86 = new Dictionary<string, string>
    {
        ["KVM_CREATE_SPAPR_TCE"] = "_IOW(KVMIO, 0xa8, struct kvm_create_spapr_tce)",
        ["KVM_CREATE_SPAPR_TCE_64"] = "_IOW(KVMIO, 0xa8, struct kvm_create_spapr_tce_64)",
        ["KVM_ALLOCATE_RMA"] = "_IOR(KVMIO, 0xa9, struct kvm_allocate_rma)",
        ["KVM_PPC_GET_HTAB_FD"] = "_IOW(KVMIO, 0xaa, struct kvm_get_htab_fd)",
        ["KVM_PPC_RTAS_DEFINE_TOKEN"] = "_IOW(KVMIO, 0xac, struct kvm_rtas_token_args)",
        ["KVM_PPC_CONFIGURE_V3_MMU"] = "_IOW(KVMIO, 0xaf, struct kvm_ppc_mmuv3_cfg)",
        ["KVM_PPC_GET_RMMU_INFO"] = "_IOW(KVMIO, 0xb0, struct kvm_ppc_rmmu_info)",
        ["KVM_PPC_GET_CPU_CHAR"] = "_IOR(KVMIO, 0xb1, struct kvm_ppc_cpu_char)",
        ["KVM_ARM_MTE_COPY_TAGS"] = "_IOR(KVMIO, 0xb4, struct kvm_arm_copy_mte_tags)",
        ["KVM_ARM_VCPU_INIT"] = "_IOW(KVMIO, 0xae, struct kvm_vcpu_init)",
        ["KVM_ARM_PREFERRED_TARGET"] = "_IOR(KVMIO, 0xaf, struct kvm_vcpu_init)",
    };
}
