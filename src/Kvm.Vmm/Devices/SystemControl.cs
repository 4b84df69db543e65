using Kvm.Vmm.Bus;

namespace Kvm.Vmm.Devices;

/// <summary>Port 0x92 (fast A20 and reset) and port 0xcf9 (reset control).</summary>
public sealed partial class SystemControl(StopSignal stop) : BytePortDevice
{
    /// <summary>System control port A: fast A20, fast reset.</summary>
    public const ushort PortA = 0x92;
    /// <summary>The reset control register.</summary>
    public const ushort ResetControl = 0xcf9;

    private byte _a = 0x02, _reset;

    /// <inheritdoc/>
    protected override byte ReadByte(ushort port) => port switch
    {
        PortA => _a,
        _ => _reset,
    };

    /// <inheritdoc/>
    protected override void WriteByte(ushort port, byte value)
    {
        switch (port)
        {
            case PortA:
                _a = (byte)(value & 0xfe);
                if ((value & 1) != 0) stop.Request(GuestStopReason.Reset, 0, "guest reset through port 0x92");
                break;
            default:
                _reset = (byte)(value & 0x0e);
                if ((value & 4) != 0) stop.Request(GuestStopReason.Reset, 0, "guest reset through port 0xcf9");
                break;
        }
    }
}
