using Kvm.Abi;

namespace Kvm.Client;

/// <summary>An access to a guest-physical address that no memory slot backs.</summary>
public readonly unsafe ref struct MmioExit
{
    private readonly kvm_run* _run;

    internal MmioExit(kvm_run* run) => _run = run;

    /// <summary>A store: <see cref="Data"/> is what the guest wrote. Otherwise a load: the guest waits for <see cref="Data"/> to be filled.</summary>
    public bool IsWrite => _run->mmio.is_write != 0;

    /// <summary>Guest-physical address of the first byte.</summary>
    public ulong Address => _run->mmio.phys_addr;

    /// <summary>1 to 8 bytes: what the guest wrote, or where its input goes.</summary>
    public Span<byte> Data => new((byte*)&_run->mmio.data, (int)_run->mmio.len);
}
