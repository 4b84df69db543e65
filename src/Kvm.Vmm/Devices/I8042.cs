using Kvm.Vmm.Bus;

namespace Kvm.Vmm.Devices;

/// <summary>
/// The keyboard controller, ports 0x60 and 0x64: self-tests, the command byte, A20, the reset pulse; a keyboard that answers its commands and on which nobody
/// types, and no mouse.
/// </summary>
/// <remarks>IBM Personal System/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller", "Keyboards".</remarks>
/// <param name="stop">Asked for a reset.</param>
/// <param name="interrupt">Drives the keyboard's line; null: polled only.</param>
public sealed partial class I8042(StopSignal stop, Action<bool>? interrupt = null) : BytePortDevice
{
    /// <summary>Data both ways.</summary>
    public const ushort DataPort = 0x60;
    /// <summary>Commands out, status in.</summary>
    public const ushort CommandPort = 0x64;
    /// <summary>The keyboard's line.</summary>
    public const uint KeyboardGsi = 1;

    private const byte OutputFull = 0x01, SystemFlag = 0x04, LastWasCommand = 0x08, Unlocked = 0x10; // status
    private const byte KeyboardInterrupt = 0x01, Translate = 0x40;                                  // command byte
    private const byte Acknowledge = 0xfa, Resend = 0xfe, TestPassed = 0xaa;

    private readonly Queue<byte> _output = new(16);
    private byte _commandByte = 0x74; // keyboard and aux clocks off, translation on, system flag set
    private byte _outputPort = 0x03;  // not in reset, A20 open
    private byte _last;               // what the data port gives when there is nothing new
    private bool _lastWasCommand, _line;
    private byte _parameterFor;         // the controller's command whose parameter the next data byte is
    private byte _keyboardParameterFor; // the keyboard's

    /// <inheritdoc/>
    protected override byte ReadByte(ushort port)
    {
        if (port == CommandPort)
            return (byte)(Unlocked | (_commandByte & SystemFlag) | (_output.Count > 0 ? OutputFull : 0) | (_lastWasCommand ? LastWasCommand : 0));
        if (_output.TryDequeue(out byte value)) _last = value;
        SetLine(false); // each byte is an edge of its own
        UpdateLine();
        return _last;
    }

    /// <inheritdoc/>
    protected override void WriteByte(ushort port, byte value)
    {
        _lastWasCommand = port == CommandPort;
        if (port == CommandPort) Command(value);
        else Data(value);
        UpdateLine();
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
            case 0xd4: break; // to a mouse that is not there
            default: Keyboard(value); break;
        }
    }

    private void Keyboard(byte value)
    {
        byte command = _keyboardParameterFor;
        _keyboardParameterFor = 0;
        _commandByte &= 0xef; // data for it switches its clock on
        if (command != 0)
        {
            Answer(Acknowledge);
            if (command == 0xf0 && value == 0) Answer(2); // asked for it: the scan code set
            return;
        }

        switch (value)
        {
            case 0xed or 0xf0 or 0xf3: // lights, scan code set, repetition: with a parameter
                _keyboardParameterFor = value;
                Answer(Acknowledge);
                break;
            case 0xee: Answer(0xee); break; // echo
            case 0xf2:
                Answer(Acknowledge);
                Answer(0xab);
                Answer((byte)((_commandByte & Translate) != 0 ? 0x41 : 0x83));
                break;
            case >= 0xf4 and <= 0xfd: Answer(Acknowledge); break; // on, off, defaults, kinds of keys
            case 0xff:
                Answer(Acknowledge);
                Answer(TestPassed);
                break;
            default: Answer(Resend); break;
        }
    }

    /// <summary>The keyboard has a buffer of sixteen; what does not fit is lost.</summary>
    private void Answer(byte value)
    {
        if (_output.Count < 16) _output.Enqueue(value);
    }

    private void UpdateLine() => SetLine(_output.Count > 0 && (_commandByte & KeyboardInterrupt) != 0);

    private void SetLine(bool level)
    {
        if (level == _line) return;
        _line = level;
        interrupt?.Invoke(level);
    }
}
