using Kvm.Vmm.Boot;

namespace Kvm.Vmm.Virtio;

/// <summary>A chain of buffers that a driver made available: what the device reads, then what it writes. All of it is RAM.</summary>
/// <remarks>Virtio specification 1.2, "The Virtqueue Descriptor Table".</remarks>
public sealed class VirtioChain
{
    private readonly GuestRam _ram;
    private readonly List<(ulong Address, int Length)> _readable = [], _writable = [];

    internal VirtioChain(GuestRam ram) => _ram = ram;

    /// <summary>The first descriptor's number, by which the chain is given back.</summary>
    public ushort Head { get; internal set; }

    /// <summary>Bytes for the device to read.</summary>
    public long ReadableLength { get; private set; }

    /// <summary>Bytes for the device to write.</summary>
    public long WritableLength { get; private set; }

    /// <summary>Copies what the driver sends, from an offset on.</summary>
    /// <returns>Bytes copied: fewer than the target takes when the chain ends.</returns>
    public int Read(long offset, Span<byte> target)
    {
        int done = 0;
        for (int i = 0; i < _readable.Count && done < target.Length; i++)
        {
            ReadOnlySpan<byte> part = Part(_readable[i], ref offset, target.Length - done);
            part.CopyTo(target[done..]);
            done += part.Length;
        }

        return done;
    }

    /// <summary>Copies to where the driver receives, from an offset on.</summary>
    /// <returns>Bytes copied: fewer than given when the chain ends.</returns>
    public int Write(long offset, ReadOnlySpan<byte> source)
    {
        int done = 0;
        for (int i = 0; i < _writable.Count && done < source.Length; i++)
        {
            Span<byte> part = Part(_writable[i], ref offset, source.Length - done);
            source.Slice(done, part.Length).CopyTo(part);
            done += part.Length;
        }

        return done;
    }

    /// <summary>How many pieces of memory the device reads (or writes).</summary>
    public int Pieces(bool writable) => writable ? _writable.Count : _readable.Count;

    /// <summary>One piece of guest memory.</summary>
    public Span<byte> Piece(bool writable, int index)
    {
        (ulong address, int length) = writable ? _writable[index] : _readable[index];
        return _ram.At(address, length);
    }

    internal void Clear()
    {
        _readable.Clear();
        _writable.Clear();
        ReadableLength = WritableLength = 0;
    }

    /// <summary>False: not RAM, or something to read behind what is written.</summary>
    internal bool TryAdd(ulong address, uint length, bool writable)
    {
        if (length > int.MaxValue || (!writable && _writable.Count > 0) || !_ram.TryAt(address, (int)length, out _)) return false;
        if (length == 0) return true;
        (writable ? _writable : _readable).Add((address, (int)length));
        if (writable) WritableLength += length;
        else ReadableLength += length;
        return true;
    }

    private Span<byte> Part((ulong Address, int Length) piece, ref long offset, int most)
    {
        if (offset >= piece.Length)
        {
            offset -= piece.Length;
            return default;
        }

        Span<byte> part = _ram.At(piece.Address, piece.Length)[(int)offset..];
        offset = 0;
        return part[..Math.Min(part.Length, most)];
    }
}
