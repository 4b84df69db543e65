namespace Kvm.Vmm.Virtio;

/// <summary>What a disk's sectors are kept in. An I/O that can't be done throws <see cref="IOException"/>, which the guest sees as an error of that request.</summary>
public interface IBlockStore : IDisposable
{
    /// <summary>Bytes; whole sectors of 512.</summary>
    long Length { get; }

    /// <summary>Nothing can be written.</summary>
    bool ReadOnly { get; }

    /// <summary>Fills the buffer from an offset on.</summary>
    void Read(long offset, Span<byte> buffer);

    /// <summary>Writes the buffer at an offset.</summary>
    void Write(long offset, ReadOnlySpan<byte> buffer);

    /// <summary>Returns when all that was written before survives a loss of power.</summary>
    void Flush();
}
