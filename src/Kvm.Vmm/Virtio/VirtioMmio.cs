using System.Buffers.Binary;
using Kvm.Client;
using Kvm.Vmm.Boot;
using Kvm.Vmm.Bus;

namespace Kvm.Vmm.Virtio;

/// <summary>A virtio device that is not on a bus: registers at a fixed place, one interrupt line.</summary>
/// <remarks>Virtio specification 1.2, "Virtio Over MMIO", version 2.</remarks>
public sealed class VirtioMmio : IMmioDevice, IVirtioInterrupts, IDisposable
{
    /// <summary>Bytes of the registers.</summary>
    public const uint Size = 0x200;

    private const uint Magic = 0x74726976, Version = 2, Vendor = 0x1af4;
    private const int Notify = 0x50, Config = 0x100;
    private const uint IsrQueue = 1, IsrConfiguration = 2;

    private readonly VirtioDevice _device;
    private readonly Action<bool> _setLine;
    private readonly Lock _line = new();
    private uint _featureHalf, _driverFeatureHalf, _selected, _isr;

    /// <param name="device">The device.</param>
    /// <param name="vm">The VM.</param>
    /// <param name="ram">Its RAM.</param>
    /// <param name="address">Where the registers are: their notification register rings through an ioeventfd.</param>
    /// <param name="setLine">Drives the interrupt line.</param>
    public VirtioMmio(VirtioDevice device, Vm vm, GuestRam ram, ulong address, Action<bool> setLine)
    {
        _device = device;
        _setLine = setLine;
        device.Attach(ram, vm.Backend, this);
        try
        {
            vm.IoEventfd(device.Doorbell.Number, address + Notify, 4);
        }
        catch (KvmException)
        {
            // The kernel has no room for more: the writes exit, and ring from there.
        }
    }

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        data.Clear();
        if (offset >= Config)
        {
            _device.ReadConfig((int)offset - Config, data);
            return;
        }

        if (data.Length != 4) return; // registers are read as a whole
        VirtioQueue? queue = Selected;
        BinaryPrimitives.WriteUInt32LittleEndian(data, offset switch
        {
            0x00 => Magic,
            0x04 => Version,
            0x08 => _device.Type,
            0x0c => Vendor,
            0x10 => _featureHalf < 2 ? (uint)(_device.OfferedFeatures >> (int)_featureHalf * 32) : 0,
            0x34 => queue?.MaxSize ?? 0u,
            0x44 => queue is { Ready: true } ? 1u : 0,
            0x60 => Volatile.Read(ref _isr),
            0x70 => _device.Status,
            0xfc => _device.ConfigGeneration,
            _ => 0,
        });
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset >= Config)
        {
            _device.WriteConfig((int)offset - Config, data);
            return;
        }

        if (data.Length != 4) return;
        uint value = BinaryPrimitives.ReadUInt32LittleEndian(data);
        switch (offset)
        {
            case 0x14: _featureHalf = value; break;
            case 0x20: _device.AcceptFeatures(_driverFeatureHalf, value); break;
            case 0x24: _driverFeatureHalf = value; break;
            case 0x30: _selected = value; break;
            case Notify: _device.Doorbell.Signal(); break;
            case 0x64: SetCauses(clear: value, set: 0); break;
            case 0x70:
                _device.WriteStatus((byte)value);
                if ((byte)value == 0) SetCauses(clear: ~0u, set: 0);
                break;
            default:
                if (Selected is { } queue) WriteQueue(queue, offset, value);
                break;
        }
    }

    void IVirtioInterrupts.Used(VirtioQueue queue) => SetCauses(clear: 0, IsrQueue);

    void IVirtioInterrupts.ConfigurationChanged() => SetCauses(clear: 0, IsrConfiguration);

    /// <summary>Ends the device.</summary>
    public void Dispose() => _device.Dispose();

    private VirtioQueue? Selected => _selected < (uint)_device.Queues.Count ? _device.Queues[(int)_selected] : null;

    private static void WriteQueue(VirtioQueue queue, ulong offset, uint value)
    {
        if (queue.Ready)
        {
            if (offset == 0x44 && value == 0) queue.Ready = false;
            return;
        }

        switch (offset)
        {
            case 0x38 when value != 0 && value <= queue.MaxSize && (value & (value - 1)) == 0: queue.Size = (ushort)value; break;
            case 0x44 when value == 1: queue.Ready = true; break;
            case 0x80: queue.Descriptors = (queue.Descriptors & ~0xffffffffUL) | value; break;
            case 0x84: queue.Descriptors = (uint)queue.Descriptors | (ulong)value << 32; break;
            case 0x90: queue.Available = (queue.Available & ~0xffffffffUL) | value; break;
            case 0x94: queue.Available = (uint)queue.Available | (ulong)value << 32; break;
            case 0xa0: queue.Used = (queue.Used & ~0xffffffffUL) | value; break;
            case 0xa4: queue.Used = (uint)queue.Used | (ulong)value << 32; break;
        }
    }

    /// <summary>The line is high while there is a cause.</summary>
    private void SetCauses(uint clear, uint set)
    {
        lock (_line)
        {
            _isr = (_isr & ~clear) | set;
            _setLine(_isr != 0);
        }
    }
}
