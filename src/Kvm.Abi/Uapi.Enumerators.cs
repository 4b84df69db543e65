// Enumerators that C makes global, and the enumerations themselves. Linux 6.1, x86-64.

namespace Kvm.Abi;

public static partial class Uapi
{
    // enum (unnamed), linux/kvm.h
    public const int kvm_ioeventfd_flag_nr_datamatch = 0;
    public const int kvm_ioeventfd_flag_nr_pio = 1;
    public const int kvm_ioeventfd_flag_nr_deassign = 2;
    public const int kvm_ioeventfd_flag_nr_virtio_ccw_notify = 3;
    public const int kvm_ioeventfd_flag_nr_fast_mmio = 4;
    public const int kvm_ioeventfd_flag_nr_max = 5;

    // enum kvm_device_type, linux/kvm.h
    public const int KVM_DEV_TYPE_MAX = 11;

    // enum pv_cmd_dmp_id, linux/kvm.h
    public const int KVM_PV_DUMP_INIT = 0;
    public const int KVM_PV_DUMP_CONFIG_STOR_STATE = 1;
    public const int KVM_PV_DUMP_COMPLETE = 2;
    public const int KVM_PV_DUMP_CPU = 3;

    // enum pv_cmd_info_id, linux/kvm.h
    public const int KVM_PV_INFO_VM = 0;
    public const int KVM_PV_INFO_DUMP = 1;

    // enum pv_cmd_id, linux/kvm.h
    public const int KVM_PV_ENABLE = 0;
    public const int KVM_PV_DISABLE = 1;
    public const int KVM_PV_SET_SEC_PARMS = 2;
    public const int KVM_PV_UNPACK = 3;
    public const int KVM_PV_VERIFY = 4;
    public const int KVM_PV_PREP_RESET = 5;
    public const int KVM_PV_UNSHARE_ALL = 6;
    public const int KVM_PV_INFO = 7;
    public const int KVM_PV_DUMP = 8;

    // enum sev_cmd_id, linux/kvm.h
    public const int KVM_SEV_INIT = 0;
    public const int KVM_SEV_ES_INIT = 1;
    public const int KVM_SEV_LAUNCH_START = 2;
    public const int KVM_SEV_LAUNCH_UPDATE_DATA = 3;
    public const int KVM_SEV_LAUNCH_UPDATE_VMSA = 4;
    public const int KVM_SEV_LAUNCH_SECRET = 5;
    public const int KVM_SEV_LAUNCH_MEASURE = 6;
    public const int KVM_SEV_LAUNCH_FINISH = 7;
    public const int KVM_SEV_SEND_START = 8;
    public const int KVM_SEV_SEND_UPDATE_DATA = 9;
    public const int KVM_SEV_SEND_UPDATE_VMSA = 10;
    public const int KVM_SEV_SEND_FINISH = 11;
    public const int KVM_SEV_RECEIVE_START = 12;
    public const int KVM_SEV_RECEIVE_UPDATE_DATA = 13;
    public const int KVM_SEV_RECEIVE_UPDATE_VMSA = 14;
    public const int KVM_SEV_RECEIVE_FINISH = 15;
    public const int KVM_SEV_GUEST_STATUS = 16;
    public const int KVM_SEV_DBG_DECRYPT = 17;
    public const int KVM_SEV_DBG_ENCRYPT = 18;
    public const int KVM_SEV_CERT_EXPORT = 19;
    public const int KVM_SEV_GET_ATTESTATION_REPORT = 20;
    public const int KVM_SEV_SEND_CANCEL = 21;
    public const int KVM_SEV_NR_MAX = 22;
}
