namespace Kvm.Core;

/// <summary>enum kvm_bus.</summary>
public enum KvmBus
{
    Mmio,
    Pio,
    VirtioCcwNotify,
    FastMmio,
}
