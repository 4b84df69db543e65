using Kvm.Vmm.Net;

namespace Kvm.Vmm.Virtio;

/// <summary>A network card, plugged into an <see cref="INetwork"/>.</summary>
/// <remarks>
/// Virtio specification 1.2, "Network Device". The driver may leave checksums undone and send TCP segments of up to 64 KiB: whoever takes them checks no checksums,
/// and ends TCP itself.
/// </remarks>
public sealed class VirtioNetwork : VirtioDevice
{
    private const ulong Checksum = 1 << 0, GuestChecksum = 1 << 1, Mac = 1 << 5, HostTso4 = 1 << 11, LinkStatus = 1 << 16;
    private const int HeaderSize = 12, MacSize = 6, LargestFrame = 65536 + 64, QueueSize = 256;
    private const byte DataValid = 2;
    private const int ReceiveQueue = 0, TransmitQueue = 1;

    private readonly INetwork _network;
    private readonly byte[] _mac;
    private readonly byte[] _frame = new byte[LargestFrame];
    private ReadOnlyMemory<byte>? _waiting; // for a buffer of the driver's

    /// <param name="network">What it is plugged into; disposed with the device.</param>
    /// <param name="mac">Its address.</param>
    public VirtioNetwork(INetwork network, ReadOnlySpan<byte> mac)
        : base(type: 1, "virtio-net", QueueSize, QueueSize)
    {
        ArgumentNullException.ThrowIfNull(network);
        _network = network;
        _mac = mac[..MacSize].ToArray();
        network.Arrived += Wake;
    }

    /// <inheritdoc/>
    protected override ulong DeviceFeatures => Checksum | GuestChecksum | Mac | HostTso4 | LinkStatus;

    /// <inheritdoc/>
    public override int ConfigSize => 8;

    /// <inheritdoc/>
    protected override void FillConfig(Span<byte> config)
    {
        _mac.CopyTo(config);
        config[6] = 1; // the link is up
    }

    /// <inheritdoc/>
    protected override void Process()
    {
        Transmit(Queues[TransmitQueue]);
        Receive(Queues[ReceiveQueue]);
    }

    /// <inheritdoc/>
    protected override void OnReset() => _waiting = null;

    /// <inheritdoc/>
    public override void Dispose()
    {
        _network.Arrived -= Wake;
        base.Dispose();
        _network.Dispose();
    }

    private void Transmit(VirtioQueue queue)
    {
        do
        {
            queue.SetNotify(false);
            while (queue.TryPop() is { } chain)
            {
                int length = chain.Read(HeaderSize, _frame);
                _network.Transmit(_frame.AsSpan(0, length));
                queue.Push(chain.Head, 0);
            }

            Interrupt(queue);
            queue.SetNotify(true);
        }
        while (queue.HasMore);
    }

    /// <summary>While no frame waits, new buffers are no news: the driver need not notify.</summary>
    private void Receive(VirtioQueue queue)
    {
        Span<byte> header = stackalloc byte[HeaderSize];
        header.Clear();
        header[0] = DataValid; // checksums need no look
        header[10] = 1;        // one buffer
        queue.SetNotify(false);
        while (true)
        {
            if (_waiting is null && _network.TryReceive(out ReadOnlyMemory<byte> next)) _waiting = next;
            if (_waiting is not { } frame) break;
            if (queue.TryPop() is { } chain)
            {
                if (chain.WritableLength >= HeaderSize + frame.Length)
                {
                    chain.Write(0, header);
                    chain.Write(HeaderSize, frame.Span);
                    queue.Push(chain.Head, (uint)(HeaderSize + frame.Length));
                }
                else
                {
                    queue.Push(chain.Head, 0); // a buffer too small for any frame
                }

                _waiting = null;
                continue;
            }

            queue.SetNotify(true);
            if (!queue.HasMore) break; // the frame waits for a buffer
            queue.SetNotify(false);
        }

        Interrupt(queue);
    }
}
