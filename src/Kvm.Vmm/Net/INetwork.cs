namespace Kvm.Vmm.Net;

/// <summary>What a network card is plugged into: Ethernet frames both ways, without checksums of the frames.</summary>
public interface INetwork : IDisposable
{
    /// <summary>Frames for the guest have come, after there were none; from any thread.</summary>
    event Action? Arrived;

    /// <summary>Takes a frame from the guest, which may leave the checksum of TCP or UDP undone and be larger than a wire's.</summary>
    void Transmit(ReadOnlySpan<byte> frame);

    /// <summary>The next frame for the guest, if there is one.</summary>
    bool TryReceive(out ReadOnlyMemory<byte> frame);
}
