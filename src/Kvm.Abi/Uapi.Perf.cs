// Names of the tracepoints that perf uses (asm/kvm_perf.h). Linux 6.1, x86-64.

namespace Kvm.Abi;

public static partial class Uapi
{
    public const int DECODE_STR_LEN = 20;

    public const string VCPU_ID = "vcpu_id";
    public const string KVM_ENTRY_TRACE = "kvm:kvm_entry";
    public const string KVM_EXIT_TRACE = "kvm:kvm_exit";
    public const string KVM_EXIT_REASON = "exit_reason";
}
