using System.Buffers.Binary;
using System.Text;

namespace Kvm.Vmm.Virtio;

/// <summary>A disk. A request is answered when it is done: what was written before a flush that was answered is on the disk.</summary>
/// <remarks>Virtio specification 1.2, "Block Device".</remarks>
public sealed class VirtioBlock : VirtioDevice
{
    /// <summary>Bytes of a sector, in which the device counts.</summary>
    public const int SectorSize = 512;

    private const ulong SegmentsMax = 1 << 2, ReadOnly = 1 << 5, BlockSize = 1 << 6, FlushCommand = 1 << 9;
    private const uint In = 0, Out = 1, Flush = 4, GetId = 8;
    private const byte Ok = 0, IoError = 1, Unsupported = 2;
    private const int HeaderSize = 16, IdSize = 20, QueueSize = 256;

    private readonly IBlockStore _store;
    private readonly Action<string>? _warn;
    private readonly byte[] _id = new byte[IdSize];
    private bool _warned;

    /// <param name="store">The sectors; disposed with the device.</param>
    /// <param name="id">The serial number, at most 20 ASCII characters.</param>
    /// <param name="warn">Hears of the first failed access to the store; null: only the guest does.</param>
    public VirtioBlock(IBlockStore store, string id = "", Action<string>? warn = null)
        : base(type: 2, "virtio-blk", QueueSize)
    {
        _store = store;
        _warn = warn;
        Encoding.ASCII.GetBytes(id.AsSpan(0, Math.Min(id.Length, IdSize)), _id);
    }

    /// <inheritdoc/>
    protected override ulong DeviceFeatures => SegmentsMax | BlockSize | FlushCommand | (_store.ReadOnly ? ReadOnly : 0);

    /// <inheritdoc/>
    public override int ConfigSize => 24;

    /// <inheritdoc/>
    protected override void FillConfig(Span<byte> config)
    {
        BinaryPrimitives.WriteInt64LittleEndian(config, _store.Length / SectorSize);
        BinaryPrimitives.WriteUInt32LittleEndian(config[12..], QueueSize - 2); // segments beside header and status
        BinaryPrimitives.WriteUInt32LittleEndian(config[20..], SectorSize);
    }

    /// <inheritdoc/>
    protected override void Process()
    {
        VirtioQueue queue = Queues[0];
        do
        {
            queue.SetNotify(false);
            while (queue.TryPop() is { } chain)
            {
                uint written = Serve(chain);
                queue.Push(chain.Head, written);
                Interrupt(queue);
            }

            queue.SetNotify(true);
        }
        while (queue.HasMore);
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        base.Dispose();
        _store.Dispose();
    }

    /// <returns>Bytes written into the chain, the status at its end included.</returns>
    private uint Serve(VirtioChain chain)
    {
        Span<byte> header = stackalloc byte[HeaderSize];
        if (chain.WritableLength < 1) return 0; // nowhere to tell anything
        long data = chain.WritableLength - 1;
        byte status;
        if (chain.Read(0, header) < HeaderSize)
        {
            status = IoError;
        }
        else
        {
            ulong sector = BinaryPrimitives.ReadUInt64LittleEndian(header[8..]);
            try
            {
                status = Access(chain, BinaryPrimitives.ReadUInt32LittleEndian(header), sector, data);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                status = IoError;
                if (!_warned) _warn?.Invoke(e.Message);
                _warned = true;
            }
        }

        chain.Write(data, [status]);
        return (uint)chain.WritableLength;
    }

    private byte Access(VirtioChain chain, uint type, ulong sector, long writable)
    {
        switch (type)
        {
            case In: return Transfer(chain, sector, writable, read: true);
            case Out: return _store.ReadOnly ? IoError : Transfer(chain, sector, chain.ReadableLength - HeaderSize, read: false);
            case Flush:
                if (!_store.ReadOnly) _store.Flush();
                return Ok;
            case GetId:
                if (writable < IdSize) return IoError;
                chain.Write(0, _id);
                return Ok;
            default: return Unsupported;
        }
    }

    /// <summary>Piece by piece between guest memory and the store, with no copy in between.</summary>
    private byte Transfer(VirtioChain chain, ulong sector, long length, bool read)
    {
        if (length % SectorSize != 0 || sector > (ulong)(_store.Length / SectorSize) || length > _store.Length - (long)sector * SectorSize) return IoError;
        long offset = (long)sector * SectorSize;
        long skip = read ? 0 : HeaderSize;
        for (int i = 0; i < chain.Pieces(read) && length > 0; i++)
        {
            Span<byte> piece = chain.Piece(read, i);
            if (skip >= piece.Length)
            {
                skip -= piece.Length;
                continue;
            }

            piece = piece[(int)skip..];
            skip = 0;
            if (piece.Length > length) piece = piece[..(int)length]; // behind it is the status
            if (read) _store.Read(offset, piece);
            else _store.Write(offset, piece);
            offset += piece.Length;
            length -= piece.Length;
        }

        return Ok;
    }
}
