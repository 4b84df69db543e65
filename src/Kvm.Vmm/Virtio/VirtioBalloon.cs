using System.Buffers.Binary;

namespace Kvm.Vmm.Virtio;

/// <summary>A balloon: pages that the guest gives to the host for as long as the host wants them.</summary>
/// <remarks>
/// Virtio specification 1.2, "Traditional Memory Balloon Device". What is in a page that was given is lost: it is zeroed at once, and stays mapped.
/// The guest takes pages back by itself when it would otherwise run out of memory.
/// </remarks>
public sealed class VirtioBalloon : VirtioDevice
{
    private const ulong DeflateOnOutOfMemory = 1 << 2;
    private const int InflateQueue = 0, DeflateQueue = 1, QueueSize = 128, PageSize = 4096;

    private readonly HashSet<uint> _pages = [];
    private uint _wanted, _actual;

    /// <summary>The device, wanting nothing.</summary>
    public VirtioBalloon()
        : base(type: 5, "virtio-balloon", QueueSize, QueueSize)
    {
    }

    /// <inheritdoc/>
    protected override ulong DeviceFeatures => DeflateOnOutOfMemory;

    /// <inheritdoc/>
    public override int ConfigSize => 8;

    /// <summary>Bytes that the host wants to have; the guest gives them when it can.</summary>
    public ulong Wanted
    {
        get
        {
            lock (Gate) return (ulong)_wanted * PageSize;
        }
        set
        {
            lock (Gate)
            {
                _wanted = checked((uint)(value / PageSize));
                ConfigChanged();
            }
        }
    }

    /// <summary>Bytes that the guest says it has given.</summary>
    public ulong Actual
    {
        get
        {
            lock (Gate) return (ulong)_actual * PageSize;
        }
    }

    /// <summary>Pages that the guest has given and not taken back.</summary>
    public int PageCount
    {
        get
        {
            lock (Gate) return _pages.Count;
        }
    }

    /// <inheritdoc/>
    protected override void FillConfig(Span<byte> config)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(config, _wanted);
        BinaryPrimitives.WriteUInt32LittleEndian(config[4..], _actual);
    }

    /// <inheritdoc/>
    protected override void OnConfigWritten(int offset, ReadOnlySpan<byte> data)
    {
        if (offset == 4 && data.Length == 4) _actual = BinaryPrimitives.ReadUInt32LittleEndian(data);
    }

    /// <inheritdoc/>
    protected override void OnReset()
    {
        _pages.Clear();
        _actual = 0;
    }

    /// <inheritdoc/>
    protected override void Process()
    {
        Serve(Queues[InflateQueue], inflate: true);
        Serve(Queues[DeflateQueue], inflate: false);
    }

    private void Serve(VirtioQueue queue, bool inflate)
    {
        Span<byte> number = stackalloc byte[4];
        do
        {
            while (queue.TryPop() is { } chain)
            {
                for (long at = 0; chain.Read(at, number) == 4; at += 4)
                {
                    uint page = BinaryPrimitives.ReadUInt32LittleEndian(number);
                    if (!inflate) _pages.Remove(page);
                    else if (Ram.TryAt((ulong)page * PageSize, PageSize, out Span<byte> bytes) && _pages.Add(page)) bytes.Clear();
                }

                queue.Push(chain.Head, 0);
            }

            Interrupt(queue);
            queue.SetNotify(true);
        }
        while (queue.HasMore);
    }
}
