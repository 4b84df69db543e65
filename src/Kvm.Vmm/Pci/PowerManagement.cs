using System.Buffers.Binary;
using Kvm.Vmm.Bus;
using Kvm.Vmm.Migration;

namespace Kvm.Vmm.Pci;

/// <summary>
/// The PIIX4's power management, function 00:01.3, and its ACPI registers: the 24-bit timer, the way into soft off, and the switch between APM and ACPI.
/// Nothing here raises an interrupt; there is no SMM, which is told as "already set up".
/// </summary>
/// <remarks>Intel 82371AB data sheet, "Power Management"; ACPI specification, "ACPI Register Model".</remarks>
public sealed class PowerManagement : PciFunction, IPortDevice
{
    /// <summary>The APM control port; the status port follows.</summary>
    public const ushort ApmPort = 0xb2;
    /// <summary>Control and status.</summary>
    public const int ApmPorts = 2;
    /// <summary>What the control port takes to switch ACPI on.</summary>
    public const byte AcpiEnable = 0xf1;
    /// <summary>What the control port takes to switch ACPI off.</summary>
    public const byte AcpiDisable = 0xf0;
    /// <summary>Hz.</summary>
    public const long TimerFrequency = 3_579_545;

    private const int Base = 0x40, DeviceActivityB = 0x58, Misc = 0x80;
    private const int Ports = 64, Pm1Status = 0, Pm1Enable = 2, Pm1Control = 4, Timer = 8;
    private const ushort SciEnable = 1 << 0, SleepEnable = 1 << 13;

    private readonly PortBus _bus;
    private readonly StopSignal _stop;
    private readonly TimeProvider _time;
    private long _epoch;
    private ushort _at; // 0: not decoded
    private ushort _enable, _control;
    private byte _apmControl, _apmStatus;

    /// <param name="bus">Gets the registers where the firmware puts them.</param>
    /// <param name="stop">Asked when the guest switches itself off.</param>
    /// <param name="time">What the timer counts.</param>
    public PowerManagement(PortBus bus, StopSignal stop, TimeProvider time)
        : base(vendor: 0x8086, device: 0x7113, classCode: 0x068000, revision: 3)
    {
        _bus = bus;
        _stop = stop;
        _time = time;
        _epoch = time.GetTimestamp();
        Config[0x3d] = 1; // INTA#
        Config[Base] = 1; // an I/O address
        SetWritable(Base, 0xc0, 0xff);
        SetWritable(Misc, 0x01);
        Config[DeviceActivityB + 3] = 0x02; // APMC enable: firmware takes SMM for set up
        bus.Add(ApmPort, ApmPorts, this);
    }

    /// <summary>The timer's value now.</summary>
    public uint TimerValue => (uint)((Int128)(_time.GetTimestamp() - _epoch) * TimerFrequency / _time.TimestampFrequency) & 0xffffff;

    /// <summary>Decodes the registers from a port on, a multiple of 64, as firmware would have it.</summary>
    public void PlaceAt(ushort port)
    {
        Write(Base, BitConverter.GetBytes((uint)port | 1));
        Write(Misc, [1]);
    }

    internal override void Transfer(StateFields fields)
    {
        TransferConfig(fields);
        fields.Field(ref _enable);
        fields.Field(ref _control);
        fields.Field(ref _apmControl);
        fields.Field(ref _apmStatus);
        // The timer goes on where it was.
        var ticks = (long)((Int128)(_time.GetTimestamp() - _epoch) * TimerFrequency / _time.TimestampFrequency);
        fields.Field(ref ticks);
        if (!fields.Restoring) return;
        _epoch = _time.GetTimestamp() - (long)((Int128)ticks * _time.TimestampFrequency / TimerFrequency);
        OnWritten(Base, Misc - Base);
    }

    /// <inheritdoc/>
    protected override void OnWritten(int offset, int length)
    {
        if (offset + length <= Base || offset > Misc) return;
        bool decoded = (Config[Misc] & 1) != 0;
        var at = (ushort)(decoded ? BinaryPrimitives.ReadUInt16LittleEndian(Config[Base..]) & 0xffc0 : 0);
        if (at == _at) return;
        if (_at != 0) _bus.Remove(_at, Ports, this);
        // What other devices have is theirs: a guest that puts the registers on top of them loses the registers.
        _at = at != 0 && _bus.TryAdd(at, Ports, this) ? at : (ushort)0;
    }

    void IPortDevice.Read(ushort port, Span<byte> data)
    {
        if (port is ApmPort or ApmPort + 1)
        {
            data[0] = port == ApmPort ? _apmControl : _apmStatus;
            return;
        }

        Span<byte> block = stackalloc byte[Ports + sizeof(uint)];
        block.Clear();
        BinaryPrimitives.WriteUInt16LittleEndian(block[Pm1Enable..], _enable);
        BinaryPrimitives.WriteUInt16LittleEndian(block[Pm1Control..], _control);
        BinaryPrimitives.WriteUInt32LittleEndian(block[Timer..], TimerValue);
        block.Slice(port - _at, data.Length).CopyTo(data);
    }

    void IPortDevice.Write(ushort port, ReadOnlySpan<byte> data)
    {
        switch (port)
        {
            case ApmPort:
                _apmControl = data[0];
                if (data.Length > 1) _apmStatus = data[1];
                if (_apmControl == AcpiEnable) _control |= SciEnable;
                else if (_apmControl == AcpiDisable) _control = (ushort)(_control & ~SciEnable);
                break;
            case ApmPort + 1:
                _apmStatus = data[0];
                break;
            default:
                for (int i = 0; i < data.Length; i++) WriteByte(port - _at + i, data[i]);
                break;
        }
    }

    private void WriteByte(int register, byte value)
    {
        switch (register)
        {
            case Pm1Enable: _enable = (ushort)((_enable & 0xff00) | value); break;
            case Pm1Enable + 1: _enable = (ushort)((_enable & 0x00ff) | value << 8); break;
            case Pm1Control: _control = (ushort)((_control & 0xff00 & ~SciEnable) | (_control & SciEnable) | (value & 0xfe)); break;
            case Pm1Control + 1:
                _control = (ushort)((_control & 0x00ff) | (value & 0x1c) << 8); // the sleep type stays, the enable bit reads 0
                if ((value << 8 & SleepEnable) != 0 && (value >> 2 & 7) == 0) _stop.Request(GuestStopReason.PowerOff, 0, "guest switched itself off");
                break;
            default: break; // status bits, of which none is ever set, and what is not there
        }
    }
}
