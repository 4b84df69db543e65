// s390. Linux 6.1, x86-64.

namespace Kvm.Abi;

public static partial class Uapi
{
    public const int KVM_S390_CMMA_PEEK = 1 << 0;
    public const int KVM_S390_GET_SKEYS_NONE = 1;
    public const int KVM_S390_SKEYS_MAX = 1048576;
    public const int KVM_S390_RESET_POR = 1;
    public const int KVM_S390_RESET_CLEAR = 2;
    public const int KVM_S390_RESET_SUBSYSTEM = 4;
    public const int KVM_S390_RESET_CPU_INIT = 8;
    public const int KVM_S390_RESET_IPL = 16;
    public const int KVM_S390_MEMOP_LOGICAL_READ = 0;
    public const int KVM_S390_MEMOP_LOGICAL_WRITE = 1;
    public const int KVM_S390_MEMOP_SIDA_READ = 2;
    public const int KVM_S390_MEMOP_SIDA_WRITE = 3;
    public const int KVM_S390_MEMOP_ABSOLUTE_READ = 4;
    public const int KVM_S390_MEMOP_ABSOLUTE_WRITE = 5;
    public const int KVM_S390_MEMOP_F_CHECK_ONLY = 1 << 0;
    public const int KVM_S390_MEMOP_F_INJECT_EXCEPTION = 1 << 1;
    public const int KVM_S390_MEMOP_F_SKEY_PROTECTION = 1 << 2;
    public const uint KVM_S390_SIGP_STOP = 0xfffe0000;
    public const uint KVM_S390_PROGRAM_INT = 0xfffe0001;
    public const uint KVM_S390_SIGP_SET_PREFIX = 0xfffe0002;
    public const uint KVM_S390_RESTART = 0xfffe0003;
    public const uint KVM_S390_INT_PFAULT_INIT = 0xfffe0004;
    public const uint KVM_S390_INT_PFAULT_DONE = 0xfffe0005;
    public const uint KVM_S390_MCHK = 0xfffe1000;
    public const uint KVM_S390_INT_CLOCK_COMP = 0xffff1004;
    public const uint KVM_S390_INT_CPU_TIMER = 0xffff1005;
    public const uint KVM_S390_INT_VIRTIO = 0xffff2603;
    public const uint KVM_S390_INT_SERVICE = 0xffff2401;
    public const uint KVM_S390_INT_EMERGENCY = 0xffff1201;
    public const uint KVM_S390_INT_EXTERNAL_CALL = 0xffff1202;
    public const int KVM_S390_INT_IO_MIN = 0x00000000;
    public const uint KVM_S390_INT_IO_MAX = 0xfffdffff;
    public const int KVM_S390_INT_IO_AI_MASK = 0x04000000;
    public const int KVM_S390_PGM_FLAGS_ILC_VALID = 0x01;
    public const int KVM_S390_PGM_FLAGS_ILC_0 = 0x02;
    public const int KVM_S390_PGM_FLAGS_ILC_1 = 0x04;
    public const int KVM_S390_PGM_FLAGS_ILC_MASK = 0x06;
    public const int KVM_S390_PGM_FLAGS_NO_REWIND = 0x08;
    public const int KVM_S390_STOP_FLAG_STORE_STATUS = 0x01;
    public const int KVM_S390_SIE_PAGE_OFFSET = 1;
    public const ulong KVM_S390_STORE_STATUS_NOADDR = 0xffffffffffffffff;
    public const ulong KVM_S390_STORE_STATUS_PREFIXED = 0xfffffffffffffffe;
    public const int KVM_S390_ZPCIOP_REG_AEN = 0;
    public const int KVM_S390_ZPCIOP_DEREG_AEN = 1;
    public const int KVM_S390_ZPCIOP_REGAEN_HOST = 1 << 0;

    public static uint KVM_S390_INT_IO(uint ai, uint cssid, uint ssid, uint schid) => schid | (ssid << 16) | (cssid << 18) | (ai << 26);
}
