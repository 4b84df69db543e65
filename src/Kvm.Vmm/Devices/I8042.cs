using Kvm.Vmm.Bus;

namespace Kvm.Vmm.Devices;

/// <summary>The keyboard controller, ports 0x60 and 0x64, with nothing plugged in: self-tests, the command byte, A20, and the reset pulse.</summary>
/// <remarks>IBM Personal System/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller".</remarks>
public sealed class I8042(StopSignal stop) : BytePortDevice
{
    /// <summary>Data both ways.</summary>
    public const ushort DataPort = 0x60;
    /// <summary>Commands out, status in.</summary>
    public const ushort CommandPort = 0x64;

    private const byte OutputFull = 0x01, SystemFlag = 0x04, LastWasCommand = 0x08, Unlocked = 0x10;

    private byte _commandByte = 0x74; // keyboard and aux clocks off, translation on, system flag set
    private byte _outputPort = 0x03;  // not in reset, A20 open
    private byte _output;
    private bool _outputFull, _lastWasCommand;
    private byte _parameterFor; // the command whose parameter the next data byte is

    /// <inheritdoc/>
    protected override byte ReadByte(ushort port)
    {
        if (port == CommandPort)
            return (byte)(Unlocked | (_commandByte & SystemFlag) | (_outputFull ? OutputFull : 0) | (_lastWasCommand ? LastWasCommand : 0));
        _outputFull = false;
        return _output;
    }

    /// <inheritdoc/>
    protected override void WriteByte(ushort port, byte value)
    {
        _lastWasCommand = port == CommandPort;
        if (port == CommandPort) Command(value);
        else Data(value);
    }

    private void Command(byte command)
    {
        _parameterFor = 0;
        switch (command)
        {
            case 0x20: Answer(_commandByte); break;
            case 0xa7: _commandByte |= 0x20; break;
            case 0xa8: _commandByte &= 0xdf; break;
            case 0xa9: Answer(0x00); break; // auxiliary interface test: no error
            case 0xaa: Answer(0x55); break; // self-test passed
            case 0xab: Answer(0x00); break; // keyboard interface test: no error
            case 0xad: _commandByte |= 0x10; break;
            case 0xae: _commandByte &= 0xef; break;
            case 0xc0: Answer(0xa0); break; // input port: not inhibited
            case 0xd0: Answer(_outputPort); break;
            case 0x60 or 0xd1 or 0xd2 or 0xd3 or 0xd4: _parameterFor = command; break;
            case >= 0xf0 when (command & 1) == 0: // pulse output lines: bit 0 low is the reset line
                stop.Request(GuestStopReason.Reset, 0, "guest reset through the keyboard controller");
                break;
            default: break;
        }
    }

    private void Data(byte value)
    {
        byte command = _parameterFor;
        _parameterFor = 0;
        switch (command)
        {
            case 0x60: _commandByte = value; break;
            case 0xd1:
                _outputPort = value;
                if ((value & 1) == 0) stop.Request(GuestStopReason.Reset, 0, "guest reset through the keyboard controller's output port");
                break;
            case 0xd2 or 0xd3: Answer(value); break; // as if the device had sent it
            default: break; // to a keyboard or mouse that is not there
        }
    }

    private void Answer(byte value)
    {
        _output = value;
        _outputFull = true;
    }
}
