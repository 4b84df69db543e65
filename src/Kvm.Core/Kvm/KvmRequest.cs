namespace Kvm.Core;

/// <summary>vCPU requests: bit numbers with flags (include/linux/kvm_host.h).</summary>
public static class KvmRequest
{
    public const uint KVM_REQUEST_MASK = 0xff;

    /// <summary>Do not wake a sleeping vCPU for it.</summary>
    public const uint KVM_REQUEST_NO_WAKEUP = 1 << 8;

    /// <summary>The sender waits until the vCPU has left guest mode.</summary>
    public const uint KVM_REQUEST_WAIT = 1 << 9;

    /// <summary>No bit is set, only the vCPU's leaving of guest mode matters.</summary>
    public const uint KVM_REQUEST_NO_ACTION = 1 << 10;

    public const uint KVM_REQ_TLB_FLUSH = 0 | KVM_REQUEST_WAIT | KVM_REQUEST_NO_WAKEUP;
    public const uint KVM_REQ_VM_DEAD = 1 | KVM_REQUEST_WAIT | KVM_REQUEST_NO_WAKEUP;
    public const uint KVM_REQ_UNBLOCK = 2;
    public const uint KVM_REQUEST_ARCH_BASE = 8;
    public const uint KVM_REQ_OUTSIDE_GUEST_MODE = KVM_REQUEST_NO_ACTION | KVM_REQUEST_WAIT | KVM_REQUEST_NO_WAKEUP;

    /// <summary>KVM_ARCH_REQ_FLAGS: architecture request <paramref name="number"/>.</summary>
    public static uint Arch(uint number, uint flags = 0) => (number + KVM_REQUEST_ARCH_BASE) | flags;
}
