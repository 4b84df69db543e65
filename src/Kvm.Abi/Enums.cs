// The named enumerations of linux/kvm.h. Linux 6.1, x86-64.

namespace Kvm.Abi;

/// <summary><c>enum kvm_device_type</c>.</summary>
public enum kvm_device_type : uint
{
    KVM_DEV_TYPE_FSL_MPIC_20 = 1,
    KVM_DEV_TYPE_FSL_MPIC_42 = 2,
    KVM_DEV_TYPE_XICS = 3,
    KVM_DEV_TYPE_VFIO = 4,
    KVM_DEV_TYPE_ARM_VGIC_V2 = 5,
    KVM_DEV_TYPE_FLIC = 6,
    KVM_DEV_TYPE_ARM_VGIC_V3 = 7,
    KVM_DEV_TYPE_ARM_VGIC_ITS = 8,
    KVM_DEV_TYPE_XIVE = 9,
    KVM_DEV_TYPE_ARM_PV_TIME = 10,
    KVM_DEV_TYPE_MAX = 11,
}

/// <summary><c>enum pv_cmd_dmp_id</c>.</summary>
public enum pv_cmd_dmp_id : uint
{
    KVM_PV_DUMP_INIT = 0,
    KVM_PV_DUMP_CONFIG_STOR_STATE = 1,
    KVM_PV_DUMP_COMPLETE = 2,
    KVM_PV_DUMP_CPU = 3,
}

/// <summary><c>enum pv_cmd_info_id</c>.</summary>
public enum pv_cmd_info_id : uint
{
    KVM_PV_INFO_VM = 0,
    KVM_PV_INFO_DUMP = 1,
}

/// <summary><c>enum pv_cmd_id</c>.</summary>
public enum pv_cmd_id : uint
{
    KVM_PV_ENABLE = 0,
    KVM_PV_DISABLE = 1,
    KVM_PV_SET_SEC_PARMS = 2,
    KVM_PV_UNPACK = 3,
    KVM_PV_VERIFY = 4,
    KVM_PV_PREP_RESET = 5,
    KVM_PV_UNSHARE_ALL = 6,
    KVM_PV_INFO = 7,
    KVM_PV_DUMP = 8,
}

/// <summary><c>enum sev_cmd_id</c>.</summary>
public enum sev_cmd_id : uint
{
    KVM_SEV_INIT = 0,
    KVM_SEV_ES_INIT = 1,
    KVM_SEV_LAUNCH_START = 2,
    KVM_SEV_LAUNCH_UPDATE_DATA = 3,
    KVM_SEV_LAUNCH_UPDATE_VMSA = 4,
    KVM_SEV_LAUNCH_SECRET = 5,
    KVM_SEV_LAUNCH_MEASURE = 6,
    KVM_SEV_LAUNCH_FINISH = 7,
    KVM_SEV_SEND_START = 8,
    KVM_SEV_SEND_UPDATE_DATA = 9,
    KVM_SEV_SEND_UPDATE_VMSA = 10,
    KVM_SEV_SEND_FINISH = 11,
    KVM_SEV_RECEIVE_START = 12,
    KVM_SEV_RECEIVE_UPDATE_DATA = 13,
    KVM_SEV_RECEIVE_UPDATE_VMSA = 14,
    KVM_SEV_RECEIVE_FINISH = 15,
    KVM_SEV_GUEST_STATUS = 16,
    KVM_SEV_DBG_DECRYPT = 17,
    KVM_SEV_DBG_ENCRYPT = 18,
    KVM_SEV_CERT_EXPORT = 19,
    KVM_SEV_GET_ATTESTATION_REPORT = 20,
    KVM_SEV_SEND_CANCEL = 21,
    KVM_SEV_NR_MAX = 22,
}
