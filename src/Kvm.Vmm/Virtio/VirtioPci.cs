using System.Buffers.Binary;
using Kvm.Client;
using Kvm.Vmm.Boot;
using Kvm.Vmm.Bus;
using Kvm.Vmm.Pci;
using static Kvm.Abi.Uapi;

namespace Kvm.Vmm.Virtio;

/// <summary>A virtio device on PCI, of the modern kind only: its registers in memory, notifications through ioeventfds, interrupts as MSI-X messages or on its line.</summary>
/// <remarks>Virtio specification 1.2, "Virtio Over PCI Bus".</remarks>
public sealed class VirtioPci : PciMemoryFunction, IVirtioInterrupts, IDisposable
{
    private const ushort Vendor = 0x1af4, FirstDevice = 0x1040, Subsystem = 0x1100;
    private const byte VendorCapability = 0x09, MsixCapability = 0x11;
    private const byte CommonConfig = 1, NotifyConfig = 2, IsrConfig = 3, DeviceConfig = 4, PciConfigAccess = 5;

    // Pages of base address register 0.
    private const int Common = 0x0000, Isr = 0x1000, Device = 0x2000, Notify = 0x3000, Table = 0x4000, Pending = 0x5000, Size = 0x8000, PageSize = 0x1000;
    private const int NotifyMultiplier = 4, CommonSize = 0x38;
    private const uint IsrQueue = 1, IsrConfiguration = 2;

    private readonly VirtioDevice _device;
    private readonly Vm _vm;
    private readonly MsixTable? _msix;
    private readonly Action<bool> _setLine;
    private readonly int _msixControl, _windowOffset;
    private readonly Lock _line = new();
    private uint _featureHalf, _driverFeatureHalf, _isr;
    private ushort _selected, _configVector = VirtioQueue.NoVector;
    private volatile bool _ioEventFds;

    /// <param name="device">The device.</param>
    /// <param name="vm">The VM.</param>
    /// <param name="ram">Its RAM.</param>
    /// <param name="bus">Where the registers appear.</param>
    /// <param name="classCode">PCI's class for such devices.</param>
    /// <param name="hasMsi">Interrupt controllers are there that take messages.</param>
    /// <param name="setLine">Drives INTA#.</param>
    public VirtioPci(VirtioDevice device, Vm vm, GuestRam ram, MmioBus bus, uint classCode, bool hasMsi, Action<bool> setLine)
        : base(Vendor, (ushort)(FirstDevice + device.Type), classCode, bus, Size)
    {
        _device = device;
        _vm = vm;
        _setLine = setLine;
        SetSubsystem(Vendor, Subsystem);
        device.Attach(ram, vm.Backend, this);
        if (hasMsi)
        {
            _msix = new MsixTable(vm, device.Queues.Count + 1);
            byte[] body = [(byte)(_msix.Vectors - 1), 0, .. BitConverter.GetBytes((uint)Table), .. BitConverter.GetBytes((uint)Pending)];
            _msixControl = AddCapability(MsixCapability, body) + 2;
            SetWritable(_msixControl + 1, 0xc0);
        }

        AddRegisters(CommonConfig, Common, PageSize);
        AddRegisters(IsrConfig, Isr, PageSize);
        AddRegisters(DeviceConfig, Device, PageSize);
        AddRegisters(NotifyConfig, Notify, PageSize, BitConverter.GetBytes(NotifyMultiplier));
        // A window to all of it in configuration space: bar, offset and length are the driver's, four bytes of data follow.
        int window = AddRegisters(PciConfigAccess, 0, 0, new byte[4]);
        SetWritable(window + 4, 0xff);
        SetWritable(window + 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
        _windowOffset = window;
    }

    /// <inheritdoc/>
    public override void Read(int offset, Span<byte> data)
    {
        if (offset == _windowOffset + 16 && Window(data.Length) is { } at)
        {
            Span<byte> value = Config.Slice(_windowOffset + 16, 4);
            ReadMemory((ulong)at, value[..data.Length]);
        }

        base.Read(offset, data);
    }

    /// <inheritdoc/>
    protected override void ReadMemory(ulong offset, Span<byte> data)
    {
        data.Clear();
        int at = (int)(offset % PageSize);
        switch ((int)(offset - (ulong)at))
        {
            case Common when at < CommonSize: ReadCommon(at, data); break;
            case Isr when at == 0:
                data[0] = (byte)ClearCauses();
                break;
            case Device: _device.ReadConfig(at, data); break;
            case Table: _msix?.Read(at, data); break;
            case Pending: _msix?.ReadPending(at, data); break;
        }
    }

    /// <inheritdoc/>
    protected override void WriteMemory(ulong offset, ReadOnlySpan<byte> data)
    {
        int at = (int)(offset % PageSize);
        switch ((int)(offset - (ulong)at))
        {
            case Common when at < CommonSize: WriteCommon(at, data); break;
            case Device: _device.WriteConfig(at, data); break;
            case Notify: _device.Doorbell.Signal(); break; // an access that the ioeventfds don't match
            case Table: _msix?.Write(at, data); break;
        }
    }

    void IVirtioInterrupts.Used(VirtioQueue queue) => Raise(queue.Vector, IsrQueue);

    void IVirtioInterrupts.ConfigurationChanged() => Raise(_configVector, IsrConfiguration);

    /// <summary>Ends the device.</summary>
    public void Dispose() => _device.Dispose();

    /// <inheritdoc/>
    protected override void OnWritten(int offset, int length)
    {
        base.OnWritten(offset, length);
        if (_msix is not null && offset <= _msixControl + 1 && offset + length > _msixControl + 1)
            _msix.SetControl((Config[_msixControl + 1] & 0x80) != 0, (Config[_msixControl + 1] & 0x40) != 0);
        if (offset == _windowOffset + 16 && Window(length) is { } at)
            WriteMemory((ulong)at, Config.Slice(_windowOffset + 16, length));
    }

    /// <inheritdoc/>
    protected override void OnMapped(ulong address) => SetIoEventFds(address, 0);

    /// <inheritdoc/>
    protected override void OnUnmapping(ulong address) => SetIoEventFds(address, (uint)KVM_IOEVENTFD_FLAG_DEASSIGN);

    /// <summary>The driver writes the queue's number, 16 bits, to the queue's own register: each rings the device's doorbell.</summary>
    private void SetIoEventFds(ulong address, uint flags)
    {
        if (flags != 0 && !_ioEventFds) return;
        try
        {
            foreach (VirtioQueue queue in _device.Queues)
                _vm.IoEventfd(_device.Doorbell.Number, address + Notify + (ulong)(queue.Index * NotifyMultiplier), 2, flags);
            _ioEventFds = flags == 0;
        }
        catch (KvmException)
        {
            // The kernel has no room for more (ENOSPC): the writes exit, and ring from there.
        }
    }

    private int AddRegisters(byte type, uint offset, uint length, params ReadOnlySpan<byte> more)
    {
        int size = 16 + more.Length;
        return AddCapability(VendorCapability, [(byte)size, type, 0, 0, 0, 0, .. BitConverter.GetBytes(offset), .. BitConverter.GetBytes(length), .. more]);
    }

    /// <summary>Where the window in configuration space looks, if an access of that size may go there.</summary>
    private int? Window(int size)
    {
        uint offset = BinaryPrimitives.ReadUInt32LittleEndian(Config[(_windowOffset + 8)..]), length = BinaryPrimitives.ReadUInt32LittleEndian(Config[(_windowOffset + 12)..]);
        return Config[_windowOffset + 4] == 0 && length == size && offset % length == 0 && offset + (ulong)length <= Size ? (int)offset : null;
    }

    private void Raise(ushort vector, uint cause)
    {
        if (_msix is { Enabled: true })
        {
            _msix.Fire(vector);
            return;
        }

        lock (_line)
        {
            _isr |= cause;
            if (!IntxDisabled) _setLine(true);
        }
    }

    /// <summary>Reading the causes takes them, and the line goes low.</summary>
    private uint ClearCauses()
    {
        lock (_line)
        {
            uint causes = _isr;
            _isr = 0;
            _setLine(false);
            return causes;
        }
    }

    private VirtioQueue? Selected => _selected < _device.Queues.Count ? _device.Queues[_selected] : null;

    private void ReadCommon(int offset, Span<byte> data)
    {
        VirtioQueue? queue = Selected;
        ulong value = offset switch
        {
            0x00 => _featureHalf,
            0x04 => _featureHalf < 2 ? (uint)(_device.OfferedFeatures >> (int)_featureHalf * 32) : 0,
            0x08 => _driverFeatureHalf,
            0x0c => _driverFeatureHalf < 2 ? (uint)(_device.AcceptedFeatures >> (int)_driverFeatureHalf * 32) : 0,
            0x10 => _configVector,
            0x12 => (uint)_device.Queues.Count,
            0x14 => _device.Status,
            0x15 => _device.ConfigGeneration,
            0x16 => _selected,
            0x18 => queue?.Size ?? 0u,
            0x1a => queue?.Vector ?? VirtioQueue.NoVector,
            0x1c => queue is { Ready: true } ? 1u : 0,
            0x1e => _selected, // the notification register of this queue
            0x20 => queue?.Descriptors ?? 0,
            0x24 => (queue?.Descriptors ?? 0) >> 32,
            0x28 => queue?.Available ?? 0,
            0x2c => (queue?.Available ?? 0) >> 32,
            0x30 => queue?.Used ?? 0,
            0x34 => (queue?.Used ?? 0) >> 32,
            _ => 0,
        };
        Span<byte> bytes = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
        bytes[..data.Length].CopyTo(data);
    }

    private void WriteCommon(int offset, ReadOnlySpan<byte> data)
    {
        Span<byte> bytes = stackalloc byte[8];
        bytes.Clear();
        data.CopyTo(bytes);
        uint value = BinaryPrimitives.ReadUInt32LittleEndian(bytes), high = BinaryPrimitives.ReadUInt32LittleEndian(bytes[4..]);
        VirtioQueue? queue = Selected;
        switch (offset)
        {
            case 0x00: _featureHalf = value; break;
            case 0x08: _driverFeatureHalf = value; break;
            case 0x0c: _device.AcceptFeatures(_driverFeatureHalf, value); break;
            case 0x10: _configVector = Known((ushort)value); break;
            case 0x14:
                _device.WriteStatus((byte)value);
                if ((byte)value == 0) Reset();
                break;
            case 0x16: _selected = (ushort)value; break;
            case 0x1a when queue is not null: queue.Vector = Known((ushort)value); break;
            default:
                if (queue is { Ready: false }) WriteQueue(queue, offset, value, data.Length == 8 ? high : null);
                break;
        }
    }

    /// <summary>A queue that is in use does not move.</summary>
    private static void WriteQueue(VirtioQueue queue, int offset, uint value, uint? high)
    {
        switch (offset)
        {
            case 0x18 when value != 0 && value <= queue.MaxSize && (value & (value - 1)) == 0: queue.Size = (ushort)value; break;
            case 0x1c when value == 1: queue.Ready = true; break;
            case 0x20: queue.Descriptors = Low(queue.Descriptors, value, high); break;
            case 0x24: queue.Descriptors = High(queue.Descriptors, value); break;
            case 0x28: queue.Available = Low(queue.Available, value, high); break;
            case 0x2c: queue.Available = High(queue.Available, value); break;
            case 0x30: queue.Used = Low(queue.Used, value, high); break;
            case 0x34: queue.Used = High(queue.Used, value); break;
        }
    }

    private static ulong Low(ulong before, uint value, uint? high) => high is { } top ? (ulong)top << 32 | value : (before & ~0xffffffffUL) | value;

    private static ulong High(ulong before, uint value) => (uint)before | (ulong)value << 32;

    /// <summary>A vector that is not there can't be set, which the driver finds when it reads it back.</summary>
    private ushort Known(ushort vector) => _msix is not null && vector < _msix.Vectors ? vector : VirtioQueue.NoVector;

    private void Reset()
    {
        _configVector = VirtioQueue.NoVector;
        _selected = 0;
        _featureHalf = _driverFeatureHalf = 0;
        ClearCauses();
    }
}
