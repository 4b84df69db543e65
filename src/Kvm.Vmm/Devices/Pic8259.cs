using Kvm.Vmm.Bus;

namespace Kvm.Vmm.Devices;

/// <summary>The PC's pair of 8259A interrupt controllers, ports 0x20, 0xa0 and the edge/level registers 0x4d0: sixteen lines, one INTR.</summary>
/// <remarks>Intel 8259A data sheet. Not there: special mask with rotation, polled reads of the slave through the master, MCS-80 mode.</remarks>
public sealed class Pic8259 : BytePortDevice, IInterruptSource
{
    /// <summary>First of the master's two ports.</summary>
    public const ushort MasterPort = 0x20;
    /// <summary>First of the slave's two ports.</summary>
    public const ushort SlavePort = 0xa0;
    /// <summary>First of the two edge/level registers: the master's, the slave's.</summary>
    public const ushort EdgeLevelPort = 0x4d0;
    private const int CascadeLine = 2;

    private readonly Lock _lock = new();
    private readonly Chip _master = new() { LevelMask = 0xf8 };
    private readonly Chip _slave = new() { LevelMask = 0xde };
    private bool _intr;

    /// <inheritdoc/>
    public event Action? Raised;

    /// <inheritdoc/>
    public bool Pending => Volatile.Read(ref _intr);

    /// <summary>Drives one of the lines 0 to 15.</summary>
    public void SetLine(int line, bool level)
    {
        lock (_lock)
        {
            (line < 8 ? _master : _slave).SetLine(line & 7, level);
            Update();
        }
    }

    /// <inheritdoc/>
    public byte Acknowledge()
    {
        lock (_lock)
        {
            int line = _master.Highest();
            byte vector;
            if (line == CascadeLine)
            {
                _master.Take(line);
                int slaveLine = _slave.Highest();
                if (slaveLine < 0) slaveLine = 7; // gone meanwhile: spurious
                else _slave.Take(slaveLine);
                vector = (byte)(_slave.Base + slaveLine);
            }
            else
            {
                if (line < 0) line = 7;
                else _master.Take(line);
                vector = (byte)(_master.Base + line);
            }

            Update();
            return vector;
        }
    }

    /// <inheritdoc/>
    protected override byte ReadByte(ushort port)
    {
        lock (_lock)
        {
            if (port is EdgeLevelPort) return _master.Level;
            if (port is EdgeLevelPort + 1) return _slave.Level;
            byte value = ChipOf(port).Read((port & 1) != 0);
            Update();
            return value;
        }
    }

    /// <inheritdoc/>
    protected override void WriteByte(ushort port, byte value)
    {
        lock (_lock)
        {
            if (port is EdgeLevelPort) _master.Level = (byte)(value & _master.LevelMask);
            else if (port is EdgeLevelPort + 1) _slave.Level = (byte)(value & _slave.LevelMask);
            else ChipOf(port).Write((port & 1) != 0, value);
            Update();
        }
    }

    private Chip ChipOf(ushort port) => (port & 0xfe) == SlavePort ? _slave : _master;

    private void Update()
    {
        _master.SetLine(CascadeLine, _slave.Highest() >= 0);
        bool intr = _master.Highest() >= 0;
        if (intr == _intr) return;
        Volatile.Write(ref _intr, intr);
        if (intr) Raised?.Invoke();
    }

    /// <summary>One 8259A.</summary>
    private sealed class Chip
    {
        private byte _requests, _inService, _mask = 0xff, _lines;
        private int _lowest = 7; // the line with the lowest priority; the next one has the highest
        private int _initStep;
        private bool _needsIcw4, _autoEoi, _rotateOnAutoEoi, _readInService, _poll, _specialMask, _specialFullyNested;

        /// <summary>ICW2: the vector of line 0.</summary>
        public byte Base { get; private set; }

        /// <summary>ELCR: lines that are level-triggered.</summary>
        public byte Level { get; set; }

        /// <summary>Lines that may be level-triggered.</summary>
        public byte LevelMask { get; init; }

        public void SetLine(int line, bool level)
        {
            byte bit = (byte)(1 << line);
            bool before = (_lines & bit) != 0;
            _lines = (byte)(level ? _lines | bit : _lines & ~bit);
            if ((Level & bit) != 0) _requests = (byte)(level ? _requests | bit : _requests & ~bit);
            else if (level && !before) _requests |= bit;
            else if (!level) _requests = (byte)(_requests & ~bit); // the request must last until INTA
        }

        /// <summary>The line to serve: requested, not masked, above what is in service. -1: none.</summary>
        public int Highest()
        {
            int requested = First(_requests & ~_mask);
            if (requested < 0) return -1;
            int served = First(_specialMask ? _inService & ~_mask : _inService);
            // In special fully nested mode another request of the cascade line itself may interrupt.
            bool above = served < 0 || Rank(requested) < Rank(served) || (_specialFullyNested && requested == served);
            return above ? requested : -1;
        }

        public void Take(int line)
        {
            byte bit = (byte)(1 << line);
            if ((Level & bit) == 0) _requests = (byte)(_requests & ~bit);
            if (!_autoEoi) _inService |= bit;
            else if (_rotateOnAutoEoi) _lowest = line;
        }

        public byte Read(bool dataPort)
        {
            if (_poll)
            {
                _poll = false;
                int line = Highest();
                if (line < 0) return 0;
                Take(line);
                return (byte)(0x80 | line);
            }

            return dataPort ? _mask : _readInService ? _inService : _requests;
        }

        public void Write(bool dataPort, byte value)
        {
            if (dataPort) WriteData(value);
            else if ((value & 0x10) != 0) Initialize(value);
            else if ((value & 0x08) != 0) WriteOcw3(value);
            else WriteOcw2(value);
        }

        private void Initialize(byte icw1)
        {
            _requests = _inService = _mask = 0;
            _lines &= Level; // an edge must come again
            _lowest = 7;
            _autoEoi = _rotateOnAutoEoi = _readInService = _poll = _specialMask = _specialFullyNested = false;
            _needsIcw4 = (icw1 & 1) != 0;
            _initStep = 2;
        }

        private void WriteData(byte value)
        {
            switch (_initStep)
            {
                case 2:
                    Base = (byte)(value & 0xf8);
                    _initStep = 3;
                    break;
                case 3: // which line cascades: wired
                    _initStep = _needsIcw4 ? 4 : 0;
                    break;
                case 4:
                    _autoEoi = (value & 2) != 0;
                    _specialFullyNested = (value & 0x10) != 0;
                    _initStep = 0;
                    break;
                default:
                    _mask = value;
                    break;
            }
        }

        private void WriteOcw3(byte value)
        {
            if ((value & 0x04) != 0) _poll = true;
            if ((value & 0x02) != 0) _readInService = (value & 0x01) != 0;
            if ((value & 0x40) != 0) _specialMask = (value & 0x20) != 0;
        }

        private void WriteOcw2(byte value)
        {
            int line = value & 7;
            switch (value >> 5)
            {
                case 0: _rotateOnAutoEoi = false; break;
                case 4: _rotateOnAutoEoi = true; break;
                case 1 or 5: // end of the highest interrupt in service
                    line = First(_inService);
                    if (line < 0) break;
                    _inService = (byte)(_inService & ~(1 << line));
                    if (value >> 5 == 5) _lowest = line;
                    break;
                case 3 or 7: // end of a named one
                    _inService = (byte)(_inService & ~(1 << line));
                    if (value >> 5 == 7) _lowest = line;
                    break;
                case 6: _lowest = line; break;
                default: break;
            }
        }

        /// <summary>0 for the highest priority.</summary>
        private int Rank(int line) => (line - _lowest - 1) & 7;

        private int First(int lines)
        {
            for (int rank = 0; rank < 8; rank++)
            {
                int line = (_lowest + 1 + rank) & 7;
                if ((lines & (1 << line)) != 0) return line;
            }

            return -1;
        }
    }
}
