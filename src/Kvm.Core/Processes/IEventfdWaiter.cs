namespace Kvm.Core;

/// <summary>An entry of an eventfd's wait queue with a function of its own. Both run with the eventfd's lock held and must not sleep.</summary>
internal interface IEventfdWaiter
{
    /// <summary>EPOLLIN: the counter is above zero.</summary>
    void OnReadable();

    /// <summary>EPOLLHUP: the last descriptor was closed.</summary>
    void OnHangup();
}
