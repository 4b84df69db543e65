namespace Kvm.Vmm.Virtio;

/// <summary>How a transport tells its driver something.</summary>
internal interface IVirtioInterrupts
{
    /// <summary>The device gave buffers of a queue back.</summary>
    void Used(VirtioQueue queue);

    /// <summary>The device's configuration, or its status, changed.</summary>
    void ConfigurationChanged();
}
