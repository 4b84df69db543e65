namespace Kvm.Core;

/// <summary>vcpu->mode (include/linux/kvm_host.h).</summary>
public static class VcpuMode
{
    public const int OUTSIDE_GUEST_MODE = 0;
    public const int IN_GUEST_MODE = 1;
    public const int EXITING_GUEST_MODE = 2;
    public const int READING_SHADOW_PAGE_TABLES = 3;
}
