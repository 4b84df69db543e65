using Kvm.Vmm.Bus;

namespace Kvm.Vmm.Devices;

/// <summary>The PC's 8254 interval timer, ports 0x40 to 0x43, and the speaker port 0x61 that gates its channel 2. Channel 0 drives an interrupt line.</summary>
/// <remarks>Intel 8254 data sheet. Counting is computed from elapsed time; only channel 0's interrupts use a timer.</remarks>
public sealed class Pit8254 : BytePortDevice, IDisposable
{
    /// <summary>First of the four ports.</summary>
    public const ushort Port = 0x40;
    /// <summary>Three counters and the control word.</summary>
    public const int Ports = 4;
    /// <summary>System control port B: channel 2's gate and output, the speaker, the refresh toggle.</summary>
    public const ushort SpeakerPort = 0x61;

    /// <summary>1.193182 MHz.</summary>
    public const long Frequency = 1_193_182;

    /// <summary>Memory refresh flips bit 4 of port 0x61 every 18 ticks.</summary>
    private const long RefreshTicks = 18;

    private readonly Lock _lock = new();
    private readonly TimeProvider _time;
    private readonly long _epoch;
    private readonly Action<bool> _interrupt;
    private readonly ITimer _timer;
    private readonly Channel[] _channels = [new(), new(), new()];
    private long _nextEdge = long.MaxValue; // tick at which channel 0's output rises
    private byte _speaker;

    /// <param name="time">Where time comes from.</param>
    /// <param name="interrupt">Channel 0's interrupt line.</param>
    public Pit8254(TimeProvider time, Action<bool> interrupt)
    {
        _time = time;
        _epoch = time.GetTimestamp();
        _interrupt = interrupt;
        _timer = time.CreateTimer(_ => Tick(), null, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
        _channels[2].Gate = false;
    }

    /// <summary>Stops the timer: no more interrupts.</summary>
    public void Dispose() => _timer.Dispose();

    private long Now => (long)((Int128)(_time.GetTimestamp() - _epoch) * Frequency / _time.TimestampFrequency);

    /// <inheritdoc/>
    protected override byte ReadByte(ushort port)
    {
        lock (_lock)
        {
            long now = Now;
            if (port == SpeakerPort)
                return (byte)(_speaker | (int)(now / RefreshTicks & 1) << 4 | (_channels[2].Output(now) ? 0x20 : 0));
            return port == Port + 3 ? (byte)0xff : _channels[port - Port].Read(now);
        }
    }

    /// <inheritdoc/>
    protected override void WriteByte(ushort port, byte value)
    {
        lock (_lock)
        {
            long now = Now;
            if (port == SpeakerPort)
            {
                _speaker = (byte)(value & 0x0f);
                _channels[2].SetGate((value & 1) != 0, now);
            }
            else if (port == Port + 3)
            {
                Command(value, now);
            }
            else if (_channels[port - Port].Write(value, now) && port == Port)
            {
                Schedule(now);
            }
        }
    }

    private void Command(byte value, long now)
    {
        int select = value >> 6;
        if (select == 3)
        {
            for (int i = 0; i < 3; i++)
            {
                if ((value & (2 << i)) == 0) continue;
                if ((value & 0x20) == 0) _channels[i].LatchCount(now);
                if ((value & 0x10) == 0) _channels[i].LatchStatus(now);
            }
        }
        else if ((value & 0x30) == 0)
        {
            _channels[select].LatchCount(now);
        }
        else
        {
            _channels[select].SetControl(value);
            if (select == 0) Schedule(now);
        }
    }

    private void Schedule(long now)
    {
        _nextEdge = _channels[0].NextRise(now);
        _timer.Change(_nextEdge == long.MaxValue ? Timeout.InfiniteTimeSpan : Delay(now), Timeout.InfiniteTimeSpan);
    }

    private TimeSpan Delay(long now) => TimeSpan.FromTicks(Math.Max(0, (_nextEdge - now) * TimeSpan.TicksPerSecond / Frequency + 1));

    /// <summary>Edges that passed while the host was late become one: as with the real controller, whose request bit holds one.</summary>
    private void Tick()
    {
        bool due;
        lock (_lock)
        {
            long now = Now;
            due = now >= _nextEdge;
            if (due || _nextEdge != long.MaxValue) Schedule(now);
        }

        if (!due) return;
        _interrupt(false);
        _interrupt(true);
    }

    /// <summary>One of the three counters.</summary>
    private sealed class Channel
    {
        private int _mode = 3, _access = 3;
        private bool _bcd, _loaded, _null = true;
        private int _count = 0x10000; // 0 written means 65536
        private long _start;          // tick at which counting began
        private long _held = -1;      // elapsed ticks while the gate is low
        private byte _writeLow;
        private bool _writeHigh, _readHigh;
        private int _latched = -1, _status = -1;

        public bool Gate { get; set; } = true;

        public void SetControl(byte control)
        {
            _access = control >> 4 & 3;
            _mode = control >> 1 & 7;
            if (_mode > 5) _mode -= 4;
            _bcd = (control & 1) != 0;
            _loaded = _writeHigh = _readHigh = false;
            _null = true;
            _latched = _status = -1;
        }

        /// <summary>True when a whole count has arrived.</summary>
        public bool Write(byte value, long now)
        {
            if (_access == 3 && !_writeHigh)
            {
                _writeLow = value;
                _writeHigh = true;
                return false;
            }

            int count = _access switch { 1 => value, 2 => value << 8, _ => _writeLow | value << 8 };
            _writeHigh = false;
            if (_bcd) count = FromBcd(count);
            _count = count != 0 ? count : _bcd ? 10000 : 0x10000;
            _null = false;
            _loaded = _mode is not (1 or 5) || _loaded; // those start with the gate
            _start = now;
            _held = Gate || _mode is 1 or 5 ? -1 : 0;
            return true;
        }

        public byte Read(long now)
        {
            if (_status >= 0)
            {
                var status = (byte)_status;
                _status = -1;
                return status;
            }

            int value = _latched >= 0 ? _latched : Count(now);
            bool high = _access == 2 || (_access == 3 && _readHigh);
            if (_access == 3) _readHigh = !_readHigh;
            if (_access != 3 || !_readHigh) _latched = -1; // the whole of it was read
            return (byte)(high ? value >> 8 : value);
        }

        public void LatchCount(long now)
        {
            if (_latched < 0) _latched = Count(now);
        }

        public void LatchStatus(long now)
        {
            if (_status < 0) _status = (Output(now) ? 0x80 : 0) | (_null ? 0x40 : 0) | _access << 4 | _mode << 1 | (_bcd ? 1 : 0);
        }

        public void SetGate(bool gate, long now)
        {
            if (gate == Gate) return;
            Gate = gate;
            if (_mode is 1 or 5)
            {
                if (!gate || _null) return;
                _loaded = true; // the rising gate starts it
                _start = now;
            }
            else if (!gate)
            {
                _held = now - _start;
            }
            else if (_held >= 0)
            {
                // Modes 2 and 3 start over; 0 and 4 go on.
                _start = _mode is 2 or 3 ? now : now - _held;
                _held = -1;
            }
        }

        public bool Output(long now)
        {
            if (!_loaded) return _mode != 0;
            long elapsed = Elapsed(now);
            return _mode switch
            {
                0 or 1 => elapsed >= _count,
                2 => elapsed % _count != _count - 1,
                3 => elapsed % _count < (_count + 1) / 2,
                _ => elapsed != _count,
            };
        }

        /// <summary>The tick at which the output rises next (for modes 4 and 5: at which it strobes).</summary>
        public long NextRise(long now)
        {
            if (!_loaded || !Gate) return long.MaxValue;
            long elapsed = Elapsed(now);
            if (_mode is 2 or 3) return _start + (elapsed / _count + 1) * _count;
            return elapsed >= _count ? long.MaxValue : _start + _count;
        }

        private long Elapsed(long now) => _held >= 0 ? _held : now - _start;

        private int Count(long now)
        {
            if (!_loaded) return _count & 0xffff;
            long elapsed = Elapsed(now);
            long modulus = _bcd ? 10000 : 0x10000;
            long value = _mode switch
            {
                2 => _count - elapsed % _count,
                3 => _count - 2 * elapsed % _count,
                _ => ((_count - elapsed) % modulus + modulus) % modulus, // they wrap and go on
            };
            value %= modulus;
            return _bcd ? ToBcd((int)value) : (int)value;
        }

        private static int FromBcd(int value) => (value >> 12) * 1000 + (value >> 8 & 0xf) * 100 + (value >> 4 & 0xf) * 10 + (value & 0xf);

        private static int ToBcd(int value) => value / 1000 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 | value % 10;
    }
}
