namespace Kvm.Vmm.Bus;

/// <summary>A device in guest-physical memory.</summary>
public interface IMmioDevice
{
    /// <param name="offset">Bytes from the start of the device's range.</param>
    /// <param name="data">1 to 8 bytes; all ones on entry.</param>
    void Read(ulong offset, Span<byte> data);

    /// <summary>Takes a store of 1 to 8 bytes at an offset from the start of the device's range.</summary>
    void Write(ulong offset, ReadOnlySpan<byte> data);
}
