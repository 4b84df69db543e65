using Kvm.Vmm.Bus;

namespace Kvm.Vmm.Devices;

/// <summary>The MC146818 real-time clock and its CMOS memory, ports 0x70 and 0x71. Time runs; alarms and periodic interrupts do not.</summary>
/// <remarks>Motorola MC146818A data sheet; the PC's use of the memory as the BIOS documents of IBM's AT have it.</remarks>
public sealed partial class CmosRtc : BytePortDevice
{
    /// <summary>The index port; the data port follows.</summary>
    public const ushort Port = 0x70;
    /// <summary>Index and data.</summary>
    public const int Ports = 2;

    private const int Seconds = 0, Minutes = 2, Hours = 4, DayOfWeek = 6, Day = 7, Month = 8, Year = 9, StatusA = 10, StatusB = 11, StatusC = 12, StatusD = 13, Century = 0x32;
    private const byte UpdateInProgress = 0x80, SetMode = 0x80, Binary = 0x04, Hours24 = 0x02, BatteryGood = 0x80, HourPm = 0x80;

    /// <summary>How long before a second's end the clock announces its update: 244 µs.</summary>
    private static readonly TimeSpan s_updateWarning = TimeSpan.FromMicroseconds(244);

    private readonly Lock _lock = new();
    private readonly TimeProvider _time;
    private readonly byte[] _ram = new byte[128];
    private TimeSpan _offset; // guest's clock minus the provider's
    private DateTime? _held;  // the clock while SET stops it
    private byte _index;

    /// <param name="time">Where time comes from; the clock shows UTC.</param>
    /// <param name="memory">Bytes of RAM below 4 GiB, told in the registers where BIOSes tell it.</param>
    public CmosRtc(TimeProvider time, ulong memory)
    {
        _time = time;
        _ram[StatusA] = 0x26; // 32.768 kHz time base, 1024 Hz rate
        _ram[StatusB] = Hours24;
        _ram[StatusD] = BatteryGood;
        SetWord(0x15, 640);
        ulong above1M = memory > 0x100000 ? (memory - 0x100000) / 1024 : 0;
        SetWord(0x17, (ushort)Math.Min(above1M, 0xffff));
        SetWord(0x30, (ushort)Math.Min(above1M, 0xffff));
        SetWord(0x34, (ushort)Math.Min(memory > 0x1000000 ? (memory - 0x1000000) / 0x10000 : 0, 0xffff));
    }

    /// <inheritdoc/>
    protected override byte ReadByte(ushort port)
    {
        if (port == Port) return 0xff; // the index register is write-only
        lock (_lock) return ReadRegister(_index);
    }

    /// <inheritdoc/>
    protected override void WriteByte(ushort port, byte value)
    {
        lock (_lock)
        {
            if (port == Port) _index = (byte)(value & 0x7f); // bit 7 is the NMI mask
            else WriteRegister(_index, value);
        }
    }

    /// <summary>Stays within the years that four digits can tell.</summary>
    private DateTime Now
    {
        get
        {
            if (_held is { } held) return held;
            DateTime utc = _time.GetUtcNow().UtcDateTime;
            if (_offset > DateTime.MaxValue - utc) return new DateTime(DateTime.MaxValue.Ticks, DateTimeKind.Utc);
            return _offset < DateTime.MinValue - utc ? new DateTime(0, DateTimeKind.Utc) : utc + _offset;
        }
    }

    private byte ReadRegister(int index)
    {
        DateTime now = Now;
        switch (index)
        {
            case Seconds: return Encode(now.Second);
            case Minutes: return Encode(now.Minute);
            case Hours: return EncodeHour(now.Hour);
            case DayOfWeek: return Encode((int)now.DayOfWeek + 1);
            case Day: return Encode(now.Day);
            case Month: return Encode(now.Month);
            case Year: return Encode(now.Year % 100);
            case Century: return Encode(now.Year / 100);
            case StatusA:
                bool updating = _held is null && now.Ticks % TimeSpan.TicksPerSecond >= TimeSpan.TicksPerSecond - s_updateWarning.Ticks;
                return (byte)(_ram[StatusA] | (updating ? UpdateInProgress : 0));
            case StatusC:
                byte flags = _ram[StatusC];
                _ram[StatusC] = 0; // reading clears it
                return flags;
            default: return _ram[index];
        }
    }

    private void WriteRegister(int index, byte value)
    {
        switch (index)
        {
            case Seconds or Minutes or Hours or DayOfWeek or Day or Month or Year or Century:
                SetTime(index, value);
                break;
            case StatusA:
                _ram[StatusA] = (byte)(value & 0x7f);
                break;
            case StatusB:
                if ((value & SetMode) != 0) _held ??= Now;
                else Release();
                _ram[StatusB] = value;
                break;
            case StatusC or StatusD:
                break; // read-only
            default:
                _ram[index] = value;
                break;
        }
    }

    private void Release()
    {
        if (_held is not { } held) return;
        _offset = held - _time.GetUtcNow().UtcDateTime;
        _held = null;
    }

    private void SetTime(int index, byte value)
    {
        DateTime now = Now;
        int number = index == Hours ? DecodeHour(value) : Decode(value);
        (int year, int month, int day, int hour, int minute, int second) = (now.Year, now.Month, now.Day, now.Hour, now.Minute, now.Second);
        switch (index)
        {
            case Seconds: second = number; break;
            case Minutes: minute = number; break;
            case Hours: hour = number; break;
            case Day: day = number; break;
            case Month: month = number; break;
            case Year: year = year / 100 * 100 + number; break;
            case Century: year = number * 100 + year % 100; break;
            default: return; // the day of the week follows from the date
        }

        // Registers are written one by one, so that a date between two valid ones can be invalid: the nearest valid one stands in.
        year = Math.Clamp(year, 1, 9999);
        month = Math.Clamp(month, 1, 12);
        day = Math.Clamp(day, 1, DateTime.DaysInMonth(year, month));
        var set = new DateTime(year, month, day, Math.Clamp(hour, 0, 23), Math.Clamp(minute, 0, 59), Math.Clamp(second, 0, 59), DateTimeKind.Utc);
        if (_held is not null) _held = set;
        else _offset = set - _time.GetUtcNow().UtcDateTime;
    }

    private bool IsBinary => (_ram[StatusB] & Binary) != 0;

    private byte Encode(int value) => IsBinary ? (byte)value : (byte)((value / 10 << 4) | (value % 10));

    private int Decode(byte value) => IsBinary ? value : (value >> 4) * 10 + (value & 0xf);

    private byte EncodeHour(int hour)
    {
        if ((_ram[StatusB] & Hours24) != 0) return Encode(hour);
        int twelve = hour % 12 == 0 ? 12 : hour % 12;
        return (byte)(Encode(twelve) | (hour >= 12 ? HourPm : 0));
    }

    private int DecodeHour(byte value)
    {
        if ((_ram[StatusB] & Hours24) != 0) return Decode(value);
        int hour = Decode((byte)(value & 0x7f)) % 12;
        return (value & HourPm) != 0 ? hour + 12 : hour;
    }

    private void SetWord(int index, ushort value)
    {
        _ram[index] = (byte)value;
        _ram[index + 1] = (byte)(value >> 8);
    }
}
