using System.Buffers.Binary;
using Kvm.Vmm.Boot;

namespace Kvm.Vmm.Virtio;

/// <summary>A split virtqueue, from the device's side. One thread at a time uses it; nothing that the driver writes there can harm anything but the queue.</summary>
/// <remarks>Virtio specification 1.2, "Split Virtqueues".</remarks>
public sealed class VirtioQueue
{
    /// <summary>No MSI-X vector.</summary>
    public const ushort NoVector = 0xffff;

    private const int DescriptorSize = 16, UsedElementSize = 8, RingHeader = 4;
    private const ushort Next = 1, Write = 2, Indirect = 4;
    private const ushort AvailNoInterrupt = 1, UsedNoNotify = 1;

    private readonly GuestRam _ram;
    private readonly VirtioChain _chain;
    private ushort _lastAvailable, _used, _signalled;

    internal VirtioQueue(GuestRam ram, int index, ushort maxSize)
    {
        _ram = ram;
        Index = index;
        MaxSize = Size = maxSize;
        _chain = new VirtioChain(ram);
    }

    /// <summary>Its number in the device.</summary>
    public int Index { get; }

    /// <summary>The largest size that the device offers.</summary>
    public ushort MaxSize { get; }

    /// <summary>Descriptors; a power of two.</summary>
    public ushort Size { get; internal set; }

    /// <summary>The driver has set it up.</summary>
    public bool Ready { get; internal set; }

    /// <summary>The driver broke the rules: the queue does nothing more until a reset.</summary>
    public bool Broken { get; private set; }

    internal ulong Descriptors { get; set; }

    internal ulong Available { get; set; }

    internal ulong Used { get; set; }

    internal ushort Vector { get; set; } = NoVector;

    /// <summary>VIRTIO_F_RING_EVENT_IDX was negotiated.</summary>
    internal bool EventIndex { get; set; }

    /// <summary>VIRTIO_F_RING_INDIRECT_DESC was negotiated.</summary>
    internal bool IndirectDescriptors { get; set; }

    /// <summary>Whether the driver has made more available.</summary>
    public bool HasMore => Ready && !Broken && Read16(Available + 2) != _lastAvailable && !Broken;

    /// <summary>Takes the next chain, which is valid until the next call.</summary>
    public VirtioChain? TryPop()
    {
        if (!HasMore) return null;
        ushort index = Read16(Available + 2);
        if ((ushort)(index - _lastAvailable) > Size) return Break();
        Thread.MemoryBarrier(); // the index first, then what it covers
        ushort head = Read16(Available + RingHeader + 2u * (uint)(_lastAvailable % Size));
        _lastAvailable++;
        _chain.Clear();
        _chain.Head = head;
        return !Broken && Follow(Descriptors, Size, head, mayBeIndirect: IndirectDescriptors) ? _chain : Break();
    }

    /// <summary>Puts the chain taken last back, as if it had not been taken.</summary>
    public void Unpop() => _lastAvailable--;

    /// <summary>Gives a chain back to the driver, with so many bytes written.</summary>
    public void Push(ushort head, uint written)
    {
        ulong at = Used + RingHeader + (ulong)UsedElementSize * (uint)(_used % Size);
        if (!_ram.TryAt(at, UsedElementSize, out Span<byte> element) || !_ram.TryAt(Used + 2, 2, out Span<byte> index))
        {
            Break();
            return;
        }

        BinaryPrimitives.WriteUInt32LittleEndian(element, head);
        BinaryPrimitives.WriteUInt32LittleEndian(element[4..], written);
        Thread.MemoryBarrier(); // the element first, then the index that shows it
        BinaryPrimitives.WriteUInt16LittleEndian(index, ++_used);
    }

    /// <summary>Whether the driver wants to hear of what was given back since the last time it was asked.</summary>
    public bool ShouldInterrupt()
    {
        ushort from = _signalled;
        if (from == _used) return false;
        _signalled = _used;
        Thread.MemoryBarrier(); // the used index first, then the driver's wish
        if (!EventIndex) return (Read16(Available) & AvailNoInterrupt) == 0;
        ushort wish = Read16(Available + RingHeader + 2u * Size);
        return (ushort)(_used - wish - 1) < (ushort)(_used - from);
    }

    /// <summary>Says whether the driver shall notify when it makes more available. After switching on, <see cref="HasMore"/> must be looked at again.</summary>
    public void SetNotify(bool wanted)
    {
        if (!Ready || Broken) return;
        bool inside = EventIndex
            ? _ram.TryAt(Used + RingHeader + (ulong)UsedElementSize * Size, 2, out Span<byte> at)
            : _ram.TryAt(Used, 2, out at);
        if (!inside)
        {
            Break();
            return;
        }

        if (!EventIndex) BinaryPrimitives.WriteUInt16LittleEndian(at, wanted ? (ushort)0 : UsedNoNotify);
        else if (wanted) BinaryPrimitives.WriteUInt16LittleEndian(at, _lastAvailable); // else it stays behind, which notifies no more
        if (wanted) Thread.MemoryBarrier();
    }

    internal void Reset()
    {
        Size = MaxSize;
        Ready = Broken = false;
        Descriptors = Available = Used = 0;
        Vector = NoVector;
        _lastAvailable = _used = _signalled = 0;
    }

    private bool Follow(ulong table, uint size, ushort first, bool mayBeIndirect)
    {
        uint at = first;
        for (uint i = 0; i < size; i++)
        {
            if (at >= size || !_ram.TryAt(table + at * DescriptorSize, DescriptorSize, out Span<byte> descriptor)) return false;
            ulong address = BinaryPrimitives.ReadUInt64LittleEndian(descriptor);
            uint length = BinaryPrimitives.ReadUInt32LittleEndian(descriptor[8..]);
            ushort flags = BinaryPrimitives.ReadUInt16LittleEndian(descriptor[12..]);
            ushort next = BinaryPrimitives.ReadUInt16LittleEndian(descriptor[14..]);
            if ((flags & Indirect) != 0)
            {
                // A table of its own, which ends the chain and holds no further tables.
                return mayBeIndirect && (flags & Next) == 0 && length % DescriptorSize == 0 && length is > 0 and <= 0xffff * DescriptorSize
                    && Follow(address, length / DescriptorSize, 0, mayBeIndirect: false);
            }

            if (!_chain.TryAdd(address, length, (flags & Write) != 0)) return false;
            if ((flags & Next) == 0) return true;
            at = next;
        }

        return false; // a circle
    }

    private VirtioChain? Break()
    {
        Broken = true;
        return null;
    }

    private ushort Read16(ulong address)
    {
        if (_ram.TryAt(address, 2, out Span<byte> value)) return BinaryPrimitives.ReadUInt16LittleEndian(value);
        Break();
        return 0;
    }
}
