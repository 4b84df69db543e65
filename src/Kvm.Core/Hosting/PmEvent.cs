namespace Kvm.Core;

/// <summary>Power-management events (include/linux/suspend.h).</summary>
public enum PmEvent
{
    HibernationPrepare = 1,
    PostHibernation = 2,
    SuspendPrepare = 3,
    PostSuspend = 4,
}
