using Kvm.Vmm.Bus;

namespace Kvm.Vmm.Devices;

/// <summary>Port 0x92 (fast A20 and reset), port 0x61 (speaker and refresh toggle), port 0xcf9 (reset control).</summary>
public sealed class SystemControl(StopSignal stop, TimeProvider time) : BytePortDevice
{
    public const ushort PortA = 0x92;
    public const ushort PortB = 0x61;
    public const ushort ResetControl = 0xcf9;

    /// <summary>Memory refresh flips bit 4 of port 0x61 every 15.085 µs.</summary>
    private const double RefreshSeconds = 15.085e-6;

    private byte _a = 0x02, _b, _reset;

    protected override byte ReadByte(ushort port) => port switch
    {
        PortA => _a,
        PortB => (byte)(_b | ((long)(time.GetTimestamp() / (double)time.TimestampFrequency / RefreshSeconds) & 1) << 4 | TimerOutput),
        _ => _reset,
    };

    protected override void WriteByte(ushort port, byte value)
    {
        switch (port)
        {
            case PortA:
                _a = (byte)(value & 0xfe);
                if ((value & 1) != 0) stop.Request(GuestStopReason.Reset, 0, "guest reset through port 0x92");
                break;
            case PortB:
                _b = (byte)(value & 0x0f);
                break;
            default:
                _reset = (byte)(value & 0x0e);
                if ((value & 4) != 0) stop.Request(GuestStopReason.Reset, 0, "guest reset through port 0xcf9");
                break;
        }
    }

    /// <summary>Without a timer chip on this bus its output reads high, so that a guest that waits for it goes on.</summary>
    private const byte TimerOutput = 0x20;
}
