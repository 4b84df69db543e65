using System.Buffers.Binary;
using Kvm.Vmm.Bus;

namespace Kvm.Vmm.Pci;

/// <summary>A PCI function with one range of memory, base address register 0, and a list of capabilities.</summary>
/// <remarks>PCI Local Bus Specification 3.0, "Base Addresses", "Capabilities List".</remarks>
public abstract class PciMemoryFunction : PciFunction, IMmioDevice
{
    private const int Command = 0x04, Status = 0x06, Bar0 = 0x10, CapabilitiesPointer = 0x34, InterruptPin = 0x3d, FirstCapability = 0x40;
    private const byte MemoryEnabled = 2, HasCapabilities = 0x10;

    private readonly MmioBus _bus;
    private readonly uint _size;
    private int _lastCapability, _nextCapability = FirstCapability;
    private ulong? _at;

    /// <param name="vendor">Vendor ID.</param>
    /// <param name="device">Device ID.</param>
    /// <param name="classCode">Base class, subclass, programming interface.</param>
    /// <param name="bus">Where the memory appears.</param>
    /// <param name="size">Its bytes, a power of two, at least a page.</param>
    protected PciMemoryFunction(ushort vendor, ushort device, uint classCode, MmioBus bus, uint size)
        : base(vendor, device, classCode, revision: 1)
    {
        _bus = bus;
        _size = size;
        Span<byte> mask = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(mask, ~(size - 1));
        SetWritable(Bar0, mask);
        Config[InterruptPin] = 1; // INTA#
    }

    /// <summary>Guest-physical address of the memory; null while it is not decoded.</summary>
    public ulong? Address => _at;

    /// <summary>INTx is switched off (command register).</summary>
    protected bool IntxDisabled => (Config[Command + 1] & 4) != 0;

    /// <summary>Gives the memory a place and switches it on, as firmware would.</summary>
    public void Place(PciMemory memory)
    {
        ArgumentNullException.ThrowIfNull(memory);
        Write(Bar0, BitConverter.GetBytes(memory.Allocate(_size)));
        Write(Command, [MemoryEnabled | 4, 0]);
    }

    void IMmioDevice.Read(ulong offset, Span<byte> data) => ReadMemory(offset, data);

    void IMmioDevice.Write(ulong offset, ReadOnlySpan<byte> data) => WriteMemory(offset, data);

    /// <summary>A load from the memory.</summary>
    protected abstract void ReadMemory(ulong offset, Span<byte> data);

    /// <summary>A store to the memory.</summary>
    protected abstract void WriteMemory(ulong offset, ReadOnlySpan<byte> data);

    /// <summary>Adds a capability behind the last one.</summary>
    /// <returns>Its offset.</returns>
    protected int AddCapability(byte id, ReadOnlySpan<byte> body)
    {
        int at = _nextCapability;
        Config[_lastCapability == 0 ? CapabilitiesPointer : _lastCapability + 1] = (byte)at;
        Config[Status] |= HasCapabilities;
        Config[at] = id;
        body.CopyTo(Config[(at + 2)..]);
        _lastCapability = at;
        _nextCapability = (at + 2 + body.Length + 3) & ~3;
        return at;
    }

    /// <inheritdoc/>
    protected override void OnWritten(int offset, int length)
    {
        if (offset + length <= Command || offset >= Bar0 + 4) return;
        ulong at = BinaryPrimitives.ReadUInt32LittleEndian(Config[Bar0..]) & ~(ulong)(_size - 1);
        ulong? wanted = (Config[Command] & MemoryEnabled) != 0 && at != 0 ? at : null;
        if (wanted == _at) return;
        if (_at is { } before)
        {
            OnUnmapping(before);
            _bus.Remove(before, this);
            _at = null;
        }

        // What other devices have is theirs: a guest that puts this one on top of them loses it.
        if (wanted is not { } address || !_bus.TryAdd(address, _size, this)) return;
        _at = address;
        OnMapped(address);
    }

    /// <summary>The memory has appeared there.</summary>
    protected virtual void OnMapped(ulong address)
    {
    }

    /// <summary>The memory is about to disappear from there.</summary>
    protected virtual void OnUnmapping(ulong address)
    {
    }
}
