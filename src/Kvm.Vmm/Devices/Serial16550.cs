using System.IO.Pipelines;
using Kvm.Vmm.Bus;

namespace Kvm.Vmm.Devices;

/// <summary>
/// A 16550A UART between the guest and two byte pipes. Transmission takes no time: the holding register is always empty again.
/// </summary>
/// <remarks>National Semiconductor PC16550D data sheet, "Registers"; OUT2 gates the interrupt line as PC wiring does.</remarks>
public sealed partial class Serial16550 : BytePortDevice
{
    /// <summary>First port of COM1.</summary>
    public const ushort Com1 = 0x3f8;
    /// <summary>First port of COM2.</summary>
    public const ushort Com2 = 0x2f8;
    /// <summary>Registers, one port each.</summary>
    public const int Ports = 8;
    /// <summary>COM1's interrupt line.</summary>
    public const uint Com1Gsi = 4;

    private const byte IerReceive = 0x01, IerTransmit = 0x02, IerLineStatus = 0x04, IerModemStatus = 0x08;
    private const byte IirNone = 0x01, IirModemStatus = 0x00, IirTransmit = 0x02, IirReceive = 0x04, IirLineStatus = 0x06, IirFifos = 0xc0;
    private const byte FcrEnable = 0x01, FcrClearReceive = 0x02;
    private const byte LcrDivisorLatch = 0x80;
    private const byte McrDtr = 0x01, McrRts = 0x02, McrOut1 = 0x04, McrOut2 = 0x08, McrLoop = 0x10;
    private const byte LsrData = 0x01, LsrOverrun = 0x02, LsrTransmitEmpty = 0x20, LsrIdle = 0x40, LsrErrors = 0x1e;
    private const byte MsrCts = 0x10, MsrDsr = 0x20, MsrRi = 0x40, MsrDcd = 0x80, MsrTrailingRi = 0x04;

    private readonly Lock _lock = new();
    private readonly ushort _base;
    private readonly PipeWriter? _output;
    private readonly PipeReader? _input;
    private readonly Action<bool>? _interrupt;
    private readonly byte[] _fifo = new byte[16];
    private int _fifoHead, _fifoCount;
    private byte _ier, _fcr, _lcr, _mcr, _scratch, _lineErrors;
    private byte _msr = MsrCts | MsrDsr | MsrDcd;
    private ushort _divisor = 1; // 115200 baud
    private bool _transmitInterrupt, _line;

    /// <param name="basePort">First of the eight ports.</param>
    /// <param name="output">What the guest sends; null drops it. Flushed after each byte: a full pipe holds the vCPU up.</param>
    /// <param name="input">What the guest receives; null: nothing ever.</param>
    /// <param name="interrupt">Drives the interrupt line; null: polled only.</param>
    public Serial16550(ushort basePort, PipeWriter? output, PipeReader? input = null, Action<bool>? interrupt = null)
    {
        _base = basePort;
        _output = output;
        _input = input;
        _interrupt = interrupt;
    }

    /// <summary>Bits a second that the divisor latch asks for; 0 when the divisor is 0. Nothing here is slowed down by it.</summary>
    public int BaudRate => _divisor == 0 ? 0 : 115200 / _divisor;

    /// <summary>Looks for new input; whoever feeds the input pipe calls it so that the guest gets its interrupt.</summary>
    public void Poll()
    {
        lock (_lock)
        {
            Receive();
            UpdateLine();
        }
    }

    /// <inheritdoc/>
    protected override byte ReadByte(ushort port)
    {
        lock (_lock)
        {
            Receive();
            byte value = ReadRegister(port - _base);
            UpdateLine();
            return value;
        }
    }

    /// <inheritdoc/>
    protected override void WriteByte(ushort port, byte value)
    {
        lock (_lock)
        {
            WriteRegister(port - _base, value);
            UpdateLine();
        }
    }

    private bool DivisorLatch => (_lcr & LcrDivisorLatch) != 0;

    private bool Loop => (_mcr & McrLoop) != 0;

    private bool Fifos => (_fcr & FcrEnable) != 0;

    private byte ReadRegister(int register)
    {
        switch (register)
        {
            case 0: return DivisorLatch ? (byte)_divisor : Take();
            case 1: return DivisorLatch ? (byte)(_divisor >> 8) : _ier;
            case 2: return ReadInterruptIdentification();
            case 3: return _lcr;
            case 4: return _mcr;
            case 5:
                byte lsr = LineStatus;
                _lineErrors = 0; // reading clears them
                return lsr;
            case 6:
                byte msr = ModemStatus;
                _msr &= 0xf0; // reading clears the deltas
                return msr;
            default: return _scratch;
        }
    }

    private void WriteRegister(int register, byte value)
    {
        switch (register)
        {
            case 0 when DivisorLatch: _divisor = (ushort)((_divisor & 0xff00) | value); break;
            case 0: Transmit(value); break;
            case 1 when DivisorLatch: _divisor = (ushort)((_divisor & 0x00ff) | (value << 8)); break;
            case 1:
                // Enabling the interrupt while the holding register is empty raises it at once.
                if ((value & IerTransmit) != 0 && (_ier & IerTransmit) == 0) _transmitInterrupt = true;
                _ier = (byte)(value & 0x0f);
                break;
            case 2:
                if (((value ^ _fcr) & FcrEnable) != 0 || (value & FcrClearReceive) != 0) _fifoCount = 0;
                _fcr = (byte)(value & 0xc9);
                break;
            case 3: _lcr = value; break;
            case 4: WriteModemControl((byte)(value & 0x1f)); break;
            case 7: _scratch = value; break;
            default: break; // line and modem status are read-only
        }
    }

    private byte LineStatus => (byte)(LsrTransmitEmpty | LsrIdle | _lineErrors | (_fifoCount > 0 ? LsrData : 0));

    /// <summary>In loopback the control outputs come back as the status inputs.</summary>
    private byte ModemStatus => !Loop ? _msr : (byte)((_msr & 0x0f) | LoopedStatus(_mcr));

    private static byte LoopedStatus(byte mcr) => (byte)(
        ((mcr & McrRts) != 0 ? MsrCts : 0) | ((mcr & McrDtr) != 0 ? MsrDsr : 0) | ((mcr & McrOut1) != 0 ? MsrRi : 0) | ((mcr & McrOut2) != 0 ? MsrDcd : 0));

    private void WriteModemControl(byte value)
    {
        byte before = ModemStatus;
        _mcr = value;
        byte after = ModemStatus;
        // CTS, DSR and DCD report any change; RI only its end.
        int changed = (before ^ after) >> 4;
        int deltas = changed & ~MsrTrailingRi;
        if ((before & MsrRi) != 0 && (after & MsrRi) == 0) deltas |= MsrTrailingRi;
        _msr |= (byte)deltas;
    }

    private void Transmit(byte value)
    {
        _transmitInterrupt = true; // it is empty again at once
        if (Loop)
        {
            if (!Put(value)) _lineErrors |= LsrOverrun;
            return;
        }

        if (_output is null) return;
        _output.GetSpan(1)[0] = value;
        _output.Advance(1);
        ValueTask<FlushResult> flush = _output.FlushAsync();
        if (!flush.IsCompletedSuccessfully) flush.AsTask().GetAwaiter().GetResult();
    }

    /// <summary>Takes what fits from the input pipe: the pipe, not the guest, holds what the guest has not read.</summary>
    private void Receive()
    {
        if (_input is null || Loop) return;
        int room = (Fifos ? _fifo.Length : 1) - _fifoCount;
        if (room <= 0 || !_input.TryRead(out ReadResult result)) return;
        var buffer = result.Buffer.Length > room ? result.Buffer.Slice(0, room) : result.Buffer;
        foreach (ReadOnlyMemory<byte> segment in buffer)
        {
            foreach (byte value in segment.Span) Put(value);
        }

        _input.AdvanceTo(buffer.End);
    }

    private bool Put(byte value)
    {
        if (_fifoCount >= (Fifos ? _fifo.Length : 1)) return false;
        _fifo[(_fifoHead + _fifoCount++) % _fifo.Length] = value;
        return true;
    }

    private byte Take()
    {
        if (_fifoCount == 0) return 0;
        byte value = _fifo[_fifoHead];
        _fifoHead = (_fifoHead + 1) % _fifo.Length;
        _fifoCount--;
        return value;
    }

    /// <summary>The most urgent enabled condition.</summary>
    private byte PendingInterrupt
    {
        get
        {
            if ((_ier & IerLineStatus) != 0 && (_lineErrors & LsrErrors) != 0) return IirLineStatus;
            if ((_ier & IerReceive) != 0 && _fifoCount > 0) return IirReceive;
            if ((_ier & IerTransmit) != 0 && _transmitInterrupt) return IirTransmit;
            if ((_ier & IerModemStatus) != 0 && (_msr & 0x0f) != 0) return IirModemStatus;
            return IirNone;
        }
    }

    private byte ReadInterruptIdentification()
    {
        byte pending = PendingInterrupt;
        if (pending == IirTransmit) _transmitInterrupt = false; // reading it answers this one
        return (byte)(pending | (Fifos ? IirFifos : 0));
    }

    private void UpdateLine()
    {
        bool line = PendingInterrupt != IirNone && (_mcr & McrOut2) != 0 && !Loop;
        if (line == _line) return;
        _line = line;
        _interrupt?.Invoke(line);
    }
}
