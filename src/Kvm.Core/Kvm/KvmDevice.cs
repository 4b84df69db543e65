namespace Kvm.Core;

/// <summary>What an open /dev/kvm stands for: the kvm module with a vendor module in it.</summary>
public sealed class KvmDevice
{
    internal KvmDevice(KvmModule module) => Module = module;

    public KvmModule Module { get; }

    public Host Host => Module.Host;
}
